"""The commands `valle eval report`, `compare` and `samples`, which read results back."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from valle.common.errors import UserError

_REPORT_EXAMPLE = """examples:
  valle eval report results/embedded --out report.html
  valle eval report ours=results/a theirs=results/b --out report.html"""
_COMPARE_EXAMPLE = """example:
  valle eval compare plain=results/plain aligned=results/aligned"""
_SAMPLES_EXAMPLE = """example:
  valle eval samples results/embedded --out docs/samples"""


def add_report_commands(subparsers: Any) -> None:
    """Add the three to the subcommands of `valle eval`."""
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
    from valle.eval.saved_results import load_systems

    check_writable(args.out, (".html", ".htm"))
    page = build_page(load_systems(args.results), args.title, args.sounds)
    args.out.write_text(page, encoding="utf-8")
    print(f"wrote {args.out} ({len(page.encode()) / 1e6:.1f} MB)", file=sys.stderr)
    return 0


def _run_compare(args: argparse.Namespace) -> int:
    from valle.eval.compare import compare, table
    from valle.eval.saved_results import load_systems

    systems = load_systems(args.results)
    found = compare(systems, args.seed)
    print(json.dumps([c.to_dict() for c in found], indent=2) if args.json else table(found, systems[0].name))
    return 0


def _run_samples(args: argparse.Namespace) -> int:
    from valle.eval.samples import write_samples
    from valle.eval.saved_results import load_systems

    systems = load_systems([args.results])
    if len(systems) != 1 or systems[0].results["kind"] != "tts":
        raise UserError(f"{args.results} is no result of 'valle eval tts'")
    n = write_samples(systems[0], args.out, args.title, args.per_voice)
    print(f"wrote {n} samples into {args.out}", file=sys.stderr)
    return 0
