"""`valle eval`: measures; the options of its subcommands live beside the measuring, in `valle.eval.commands`."""

from __future__ import annotations

import argparse

from valle.eval.commands.codec import add_codec_command
from valle.eval.commands.decoding import add_decoding_command
from valle.eval.commands.report import add_report_commands
from valle.eval.commands.tts import add_tts_commands


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options; each subcommand sets `run(args) -> exit code`."""
    parser.epilog = "example:\n  valle eval tts --out results"
    subparsers = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    add_tts_commands(subparsers)
    add_report_commands(subparsers)
    add_codec_command(subparsers)
    add_decoding_command(subparsers)
