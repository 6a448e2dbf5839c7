"""The command `valle eval variants`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from valle.common.errors import UserError
from valle.eval.cli_tts import add_run_options, evaluate

MEASURES = [
    ["bare", "ras_window=0", "retries=0", "n_best=1"],
    ["ras", "ras_window=10", "retries=0", "n_best=1"],
    ["retries", "ras_window=10", "n_best=1"],
    ["best", "ras_window=10", "n_best=4"],
]
"""What each measure against skips and repeats is worth, one more in each."""
_EXAMPLE = """examples:
  valle eval variants --list plain100 --jobs 2 --out results/measures
  valle eval variants --variant fp32 precision=fp32 --variant int8 precision=int8 --out results/precision

Settings are those of 'valle clone' (retries n_best best_by precision) and the model's sampling (ras_window temperature
top_p ...). Without --variant: bare; with repetition-aware sampling; with retries, too; with the best of four takes.
One that was stopped goes on when started again with the same --out."""


def add_variants_command(subparsers: Any) -> None:
    """Add it to the subcommands of `valle eval`."""
    variants = subparsers.add_parser(
        "variants",
        help="one model speaking in several ways, compared text by text",
        description="Evaluate a model once for each way of speaking, as 'valle eval tts' does, and compare.",
        epilog=_EXAMPLE,
    )
    variants.usage = "valle eval variants [--variant NAME SETTING=VALUE ...] ... --out DIR [options]"
    add_run_options(variants)
    add = variants.add_argument
    add("--variant", nargs="+", action="append", metavar="V", help="its name and settings; the first is the yardstick")
    add("--out", type=Path, required=True, metavar="DIR", help="keep each one's results in DIR/NAME")
    variants.set_defaults(run=_run, wavs=None)


def _run(args: argparse.Namespace) -> int:
    from valle.common.distributed import parse_part
    from valle.common.files import check_folder
    from valle.eval.compare import compare, table
    from valle.eval.manner import Manner
    from valle.eval.saved_results import load_systems

    variants = {name: Manner.parse(settings) for name, *settings in args.variant or MEASURES}
    if len(variants) < max(2, len(args.variant or [])) or any(Path(name).name != name for name in variants):
        raise UserError("--variant: give two or more, with names of their own that can be names of folders")
    for name, manner in variants.items():
        check_folder(args.out / name)
        evaluate(args, args.out / name, parse_part("1/1"), manner)
    systems = load_systems([args.out / name for name in variants])
    found = compare(systems, args.seed)
    print(json.dumps([c.to_dict() for c in found], indent=2) if args.json else table(found, systems[0].name))
    return 0
