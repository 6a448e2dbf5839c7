"""The command `valle eval listening`: make a listening test, and read its answers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from valle.common.tables import plain_table

_EXAMPLE = """example:
  valle eval listening make ours=results/a theirs=results/b --out test --key test-key.json
  (put the folder 'test' on any web server, or send it; listeners open index.html and send back a CSV file)
  valle eval listening read answers/*.csv --key test-key.json"""


def add_listening_command(subparsers: Any) -> None:
    """Add `listening` to the subcommands of `valle eval`."""
    listening = subparsers.add_parser(
        "listening",
        help="a listening test for people: make one, read the answers",
        description="Mean opinion scores of naturalness (mos) or likeness to the prompt (smos), by people.",
        epilog=_EXAMPLE,
    )
    actions = listening.add_subparsers(dest="action", metavar="make|read", required=True)
    make = actions.add_parser("make", help="a page with blinded samples in an order that differs for each listener")
    add = make.add_argument
    add("results", nargs="+", metavar="[NAME=]DIR", help="folders that 'valle eval tts --out' wrote")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the page and its sounds")
    add(
        "--key",
        type=Path,
        required=True,
        metavar="JSON",
        help="file that says which sample is whose; do not hand it out",
    )
    add("--scale", default="mos", help="mos: naturalness; smos: likeness of the voice (default: mos)")
    add("--texts", type=int, default=20, metavar="N", help="texts, the same of each system (default: 20)")
    add("--no-reference", action="store_true", help="leave out the real recordings of the texts")
    add("--seed", type=int, default=0, help="of the choice of texts (default: 0)")
    make.set_defaults(run=_run_make)
    read = actions.add_parser("read", help="means with 95 %% intervals from the listeners' files")
    read.add_argument("answers", nargs="+", type=Path, metavar="CSV", help="files that listeners saved")
    read.add_argument("--key", type=Path, required=True, metavar="JSON", help="the test's key")
    read.add_argument("--seed", type=int, default=0, help="of the intervals (default: 0)")
    read.add_argument("--json", action="store_true", help="print as JSON")
    read.set_defaults(run=_run_read)


def _run_make(args: argparse.Namespace) -> int:
    from valle.eval.listening.kit import make_kit
    from valle.eval.saved_results import load_systems

    systems = load_systems(args.results)
    n = make_kit(systems, args.out, args.key, args.scale, args.texts, args.seed, not args.no_reference)
    print(f"wrote {args.out / 'index.html'}: {n} samples; keep {args.key} to yourself", file=sys.stderr)
    return 0


def _run_read(args: argparse.Namespace) -> int:
    from valle.eval.listening.ratings import read_ratings, score_ratings

    found = score_ratings(read_ratings(args.answers, args.key), args.seed)
    if args.json:
        print(json.dumps([rating.to_dict() for rating in found], indent=2))
        return 0
    rows: list[tuple[object, ...]] = [("system", "mean", "± 95 %", "bootstrap", "answers", "listeners")]
    for r in found:
        interval = f"[{r.mean.low:.2f}, {r.mean.high:.2f}]"
        rows.append((r.system, f"{r.mean.value:.2f}", f"{r.half_width:.2f}", interval, r.mean.n, r.listeners))
    print(plain_table(rows, "<>"))
    print("±: answers taken as independent, as in papers; bootstrap: over listeners and texts")
    return 0
