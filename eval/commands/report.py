"""The commands `valle eval report`, `compare`, `samples` and `listening`, which read results back."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from valle.common.errors import UserError
from valle.common.tables import plain_table

_REPORT_EXAMPLE = """examples:
  valle eval report results/embedded --out report.html
  valle eval report ours=results/a theirs=results/b --out report.html"""
_COMPARE_EXAMPLE = """example:
  valle eval compare plain=results/plain aligned=results/aligned"""
_SAMPLES_EXAMPLE = """example:
  valle eval samples results/embedded --out docs/samples"""
_LISTENING_EXAMPLE = """example:
  valle eval listening make ours=results/a theirs=results/b --out test --key test-key.json
  (put the folder 'test' on any web server, or send it; listeners open index.html and send back a CSV file)
  valle eval listening read answers/*.csv --key test-key.json"""


def add_report_commands(subparsers: Any) -> None:
    """Add the four to the subcommands of `valle eval`."""
    report = _add(
        subparsers, "report", "one HTML page of results, with sound: to be opened in a browser", _REPORT_EXAMPLE
    )
    report.add_argument("results", nargs="+", metavar="[NAME=]DIR", help="folders that 'valle eval ... --out' wrote")
    report.add_argument("--out", type=Path, required=True, metavar="HTML", help="file to write; it needs no other")
    report.add_argument("--title", default="Evaluation", help="heading of the page")
    report.add_argument(
        "--sounds",
        type=int,
        default=300,
        metavar="N",
        help="at most so many outputs with sound, the worst (default: 300)",
    )
    report.set_defaults(run=_run_report)

    compare = _add(subparsers, "compare", "systems on the same list, paired text by text", _COMPARE_EXAMPLE)
    compare.add_argument(
        "results", nargs="+", metavar="[NAME=]DIR", help="folders of results; the first is the yardstick"
    )
    compare.add_argument("--seed", type=int, default=0, help="of the intervals (default: 0)")
    compare.add_argument("--json", action="store_true", help="print as JSON")
    compare.set_defaults(run=_run_compare)

    samples = _add(subparsers, "samples", "a page of samples for a repository or web site", _SAMPLES_EXAMPLE)
    samples.add_argument("results", metavar="DIR", help="folder that 'valle eval tts --out' wrote")
    samples.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for index.html, README.md, sounds"
    )
    samples.add_argument("--title", default="Samples", help="heading of the page")
    samples.add_argument("--per-voice", type=int, default=2, metavar="N", help="texts for each voice (default: 2)")
    samples.set_defaults(run=_run_samples)
    _add_listening(subparsers)


def _add(subparsers: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    return subparsers.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=example,
    )


def _run_report(args: argparse.Namespace) -> int:
    from valle.common.files import check_writable
    from valle.eval.report.page import build_page
    from valle.eval.results import load_systems

    check_writable(args.out, (".html", ".htm"))
    page = build_page(load_systems(args.results), args.title, args.sounds)
    args.out.write_text(page, encoding="utf-8")
    print(f"wrote {args.out} ({len(page.encode()) / 1e6:.1f} MB)", file=sys.stderr)
    return 0


def _run_compare(args: argparse.Namespace) -> int:
    from valle.eval.compare import compare, table
    from valle.eval.results import load_systems

    systems = load_systems(args.results)
    found = compare(systems, args.seed)
    print(json.dumps([c.to_dict() for c in found], indent=2) if args.json else table(found, systems[0].name))
    return 0


def _run_samples(args: argparse.Namespace) -> int:
    from valle.eval.report.samples import write_samples
    from valle.eval.results import load_systems

    systems = load_systems([args.results])
    if len(systems) != 1 or systems[0].results["kind"] != "tts":
        raise UserError(f"{args.results} is no result of 'valle eval tts'")
    n = write_samples(systems[0], args.out, args.title, args.per_voice)
    print(f"wrote {n} samples into {args.out}", file=sys.stderr)
    return 0


def _add_listening(subparsers: Any) -> None:
    listening = subparsers.add_parser(
        "listening",
        help="a listening test for people: make one, read the answers",
        description="Mean opinion scores of naturalness (mos) or likeness to the prompt (smos), by people.",
        epilog=_LISTENING_EXAMPLE,
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
    from valle.eval.report.listening import make_kit
    from valle.eval.results import load_systems

    systems = load_systems(args.results)
    n = make_kit(systems, args.out, args.key, args.scale, args.texts, args.seed, not args.no_reference)
    print(f"wrote {args.out / 'index.html'}: {n} samples; keep {args.key} to yourself", file=sys.stderr)
    return 0


def _run_read(args: argparse.Namespace) -> int:
    from valle.eval.report.listening import read_ratings, score_ratings

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
