"""`valle bench`: how fast this machine runs the parts of the system."""

from __future__ import annotations

import argparse

from valle.commands import bench_codec, bench_decode, bench_serve, bench_train


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands, each of which sets `run(args) -> exit code`."""
    parser.epilog = "example:\n  valle bench codec --threads 1"
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    bench_codec.configure(kinds)
    bench_decode.configure(kinds)
    bench_serve.configure(kinds)
    bench_train.configure(kinds)
