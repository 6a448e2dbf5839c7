"""The commands `valle eval paper`, and `noise` and `reading`, which check the instruments."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError
from valle.common.tables import plain_table

if TYPE_CHECKING:
    from valle.eval.lists import Recording

_PAPER_EXAMPLE = """examples:
  valle eval paper --runs                     # what has to be run for which cells
  valle eval paper --results results          # the tables, from results/<run>"""
_NOISE_EXAMPLE = """example:
  valle eval noise --naturalness dnsmos --out docs/pictures/noise.png"""


def add_paper_commands(subparsers: Any) -> None:
    """Add the three to the subcommands of `valle eval`."""
    paper = subparsers.add_parser(
        "paper",
        help="the TiCodec paper's tables, its figures and ours",
        description="The TiCodec paper's tables: its figure, ours with interval and n, or 'not measured here'.",
        epilog=_PAPER_EXAMPLE,
    )
    paper.add_argument("--results", type=Path, metavar="DIR", help="folder of results, each named after its run")
    paper.add_argument("--runs", action="store_true", help="print the runs instead: what they need, their command")
    paper.add_argument("--json", action="store_true", help="print as JSON")
    paper.set_defaults(run=_run_paper)

    noise = subparsers.add_parser(
        "noise",
        help="what each metric makes of growing noise, as a plot",
        description="Add white noise to real recordings and plot what each metric makes of it.",
        epilog=_NOISE_EXAMPLE,
    )
    add = noise.add_argument
    add("--list", type=Path, metavar="TSV", help="recordings: id path speaker text (default: shipped)")
    add("--recordings", type=int, default=10, metavar="N", help="how many of them (default: 10)")
    add(
        "--metrics",
        nargs="*",
        default=["stoi", "pesq", "mcd"],
        metavar="M",
        help="codec metrics (default: stoi pesq mcd)",
    )
    add("--naturalness", nargs="+", default=[], metavar="N", help="of dnsmos utmos=FILE nisqa=FILE (default: none)")
    add("--out", type=Path, required=True, metavar="PNG", help="plot to write")
    noise.set_defaults(run=_run_noise)

    reading = subparsers.add_parser(
        "reading",
        help="how often skips and repeats are found, and heard where there are none",
        description="Cut a word out of real recordings, or double one, and see whether that is noticed.",
        epilog="example:\n  valle eval reading --recordings 20",
    )
    reading.add_argument("--list", type=Path, metavar="TSV", help="recordings: id path speaker text (default: shipped)")
    reading.add_argument("--recordings", type=int, metavar="N", help="how many of them (default: all)")
    reading.add_argument("--seed", type=int, default=0, help="of the choice of words (default: 0)")
    reading.set_defaults(run=_run_reading)


def _run_paper(args: argparse.Namespace) -> int:
    from valle.eval.paper import paper_tables, read_runs

    if args.runs:
        for name, run in read_runs().items():
            print(f"{name}\n  needs: {run.needs}\n  {run.command.replace('DIR', str(args.results or 'DIR'))}")
        return 0
    tables = paper_tables(args.results)
    print(json.dumps([t.to_dict() for t in tables], indent=2) if args.json else "\n\n".join(t.text() for t in tables))
    return 0


def _run_noise(args: argparse.Namespace) -> int:
    from valle.common.files import check_writable
    from valle.eval.judging import JudgeNames, Judges
    from valle.eval.noise import noise_curves, plot_curves

    check_writable(args.out, (".png",))
    judges = Judges.build(JudgeNames(naturalness=tuple(args.naturalness), reading=False))
    curves = noise_curves(_recordings(args), judges, args.metrics)
    plot_curves(curves, args.out)
    rows = [
        (c.metric, *(f"{v:.3f}" for v in c.values), f"{'falls' if c.falls else 'DOES NOT FALL'} with the noise")
        for c in curves
    ]
    print(plain_table(rows))
    print(f"wrote {args.out}", file=sys.stderr)
    return 0


def _run_reading(args: argparse.Namespace) -> int:
    from valle.eval.reading_check import check_reading

    print(check_reading(_recordings(args), args.seed))
    return 0


def _recordings(args: argparse.Namespace) -> list[Recording]:
    """`--recordings` of the list, at even steps, so that all its speakers are among them."""
    from valle.eval.lists import RECORDINGS, read_list

    recordings = read_list(args.list or RECORDINGS)
    n = args.recordings or len(recordings)
    if not 1 <= n <= len(recordings):
        raise UserError(f"--recordings must be 1 to {len(recordings)}, got {n}")
    return [recordings[i * len(recordings) // n] for i in range(n)]
