"""`valle prepare`: recordings with texts to a checked corpus."""

from __future__ import annotations

import argparse

from valle.outputs import check_folder

_EPILOG = """examples:
  valle prepare recordings/ --out corpus            # a.wav with a.txt beside it; speaker = folder name
  valle prepare list.tsv --out corpus --where split=train    # columns: id path speaker text"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.description = "Check recordings and write corpus/cuts.jsonl.gz; what is left out stands in dropped.tsv."
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("root", metavar="SOURCE", help="folder of audio with .txt files beside it, or a TSV table")
    add("--out", required=True, metavar="DIR", help="folder for the corpus")
    add("--where", action="append", default=[], metavar="COL=VAL", help="keep rows with this value (a,b: one of these)")
    add("--language", default="en-us", metavar="CODE", help="of rows that do not say theirs (default: en-us)")
    add("--min-seconds", type=float, default=0.5, metavar="S", help="drop what is shorter (default: 0.5)")
    add("--max-seconds", type=float, default=30.0, metavar="S", help="drop what is longer (default: 30)")
    add("--allow-no-text", action="store_true", help="keep recordings without text (enough to train a codec)")
    add("--jobs", type=int, metavar="N", help="threads that check audio (default: one for each core)")


def run(args: argparse.Namespace) -> int:
    """Check the recordings and write the manifest."""
    check_folder(args.out)

    from valle.data.corpus import parse_where
    from valle.data.prepare import Limits, prepare_folder

    limits = Limits(args.min_seconds, args.max_seconds, allow_no_text=args.allow_no_text)
    report = prepare_folder(
        args.root, args.out, where=parse_where(args.where), language=args.language, limits=limits, jobs=args.jobs
    )
    print(report.table())
    print(f"wrote {report.cuts}")
    return 0
