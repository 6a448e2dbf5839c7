"""`valle eval`: measures; its options live beside the measuring, in `valle.eval.cli`."""

from __future__ import annotations

import argparse

from valle.eval.cli import add_eval_commands


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = "example:\n  valle eval tts --out results"
    add_eval_commands(parser.add_subparsers(dest="what", metavar="WHAT", required=True))
