"""The command `valle`: finds the sub-command, runs it, and turns what went wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from traceback import walk_tb
from typing import NoReturn

from valle import __version__
from valle.common.device import wait_asleep
from valle.common.errors import UserError, install_advice
from valle.common.files import remove_unused_folders

COMMANDS = {
    "clone": "speak a text with the voice of a recording",
    "codec": "speech to codes and back: encode, decode, reconstruct",
    "prepare": "turn recordings with texts into a corpus",
    "tokenize": "turn a corpus into phonemes and codes, ready for training",
    "train": "train a part of the model: codec, ar, nar, aligner",
    "export": "put trained parts together as a model that 'clone' can use",
    "import": "turn a codec that others have trained into a codec folder: hificodec, ticodec, encodec",
    "eval": "measure a codec or a voice-cloning model",
    "serve": "answer over HTTP and WebSocket, with a page to try it",
    "watermark": "mark speech inaudibly, or look for the mark",
    "bench": "measure how fast this machine runs the parts of the system",
    "info": "say what a model, codec, token or code file holds",
}
"""Each is a module of `valle.commands` whose `configure(parser)` adds the options and sets `run(args) -> exit code`."""

_EPILOG = """example:
  valle clone --prompt me.wav --text "Any sentence." --out out.wav

'valle COMMAND --help' explains a command."""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, like all other errors of this program."""

    def __init__(self, **options: object) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see '{self.prog} --help')")


def build_parser(argv: Sequence[str]) -> Parser:
    """The parser for `argv`: only the command that it names is imported."""
    parser = Parser(prog="valle", description="Zero-shot text-to-speech: clone a voice from seconds of it.")
    parser.epilog = _EPILOG
    parser.add_argument("--version", action="version", version=f"valle {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == wanted:
            # `import` is a word of Python: its module is import_.py.
            module = f"{name}_" if iskeyword(name) else name
            import_module(f"valle.commands.{module}").configure(command)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command line `argv` and return its exit code; the user's mistakes are raised as `UserError`."""
    logging.basicConfig(format="note: %(message)s", level=logging.WARNING)
    parser = build_parser(argv)
    # Only training takes options that it does not list: they are the settings of its YAML files.
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "takes_rest", False):
        raise UserError(f"unknown option: {rest[0]} (see 'valle {args.command} --help')")
    args.rest = rest
    if not getattr(args, "trains", False):  # which has the cores to itself
        wait_asleep()
    try:
        return args.run(args)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("valle"):
            raise
        raise UserError(f"{error.name} is not installed; {install_advice(_extra_of(error))}") from error


def _extra_of(error: ModuleNotFoundError) -> str:
    """The extra of setup.cfg that brings the module: what its importer belongs to (any command may evaluate)."""
    importers = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    own = [part for name in importers if name.startswith("valle.") for part in name.split(".")]
    return next((extra for extra in ("eval", "serve") if extra in own), "train")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 done, 2 the user's mistake (one line on stderr), 3 `--strict` and faults, 130 interrupted."""
    try:
        code = run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"valle: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("valle: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`valle info | head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    finally:
        remove_unused_folders()


if __name__ == "__main__":
    sys.exit(main())
