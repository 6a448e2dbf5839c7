"""The command `valle eval ceilings`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from valle.eval.cli_tts import add_judge_options, judge_names

_EXAMPLE = """examples:
  valle eval ceilings --recogniser faster-whisper --recogniser-model DIR --naturalness dnsmos --out results/ceilings
  valle eval ceilings --list clean.tsv --no-clone     # columns: id path speaker text; two of each speaker or more"""


def add_ceilings_command(subparsers: Any) -> None:
    """Add it to the subcommands of `valle eval`."""
    parser = subparsers.add_parser(
        "ceilings",
        help="which stage of a model loses words, voice and naturalness",
        description="Hear the same sentences after each stage of a model, from the recording to the clone.",
        epilog=_EXAMPLE,
    )
    parser.usage = "valle eval ceilings [--list TSV] [--model M] [options]"
    add = parser.add_argument
    add("--list", type=Path, metavar="TSV", help="recordings: id path speaker text (default: shipped)")
    add("--model", metavar="M", help="model folder or Hub id (default: the embedded model)")
    add("--first", type=int, metavar="N", help="only the first N recordings of each speaker (default: all)")
    add("--no-clone", action="store_true", help="leave out the last stage, which takes the longest")
    add_judge_options(parser)
    add("--seed", type=int, default=0, help="of synthesis and intervals (default: 0)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("--out", type=Path, metavar="DIR", help="write results.json and utterances.tsv here")
    add("--json", action="store_true", help="print results as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from valle.common.device import find_device
    from valle.common.files import check_folder
    from valle.eval.ceilings import Ceilings, evaluate_ceilings
    from valle.eval.judging import Judges
    from valle.eval.lists import RECORDINGS, Recording, read_list
    from valle.eval.results import results_head, write_results
    from valle.synthesis.cloner import VoiceCloner

    if args.out:
        check_folder(args.out)
    seen: Counter[str] = Counter()
    recordings: list[Recording] = []
    for recording in read_list(args.list or RECORDINGS):
        seen[recording.speaker] += 1
        if args.first is None or seen[recording.speaker] <= args.first:
            recordings.append(recording)
    names, device = judge_names(args), str(find_device(args.device))
    judges = Judges.build(names, device)
    cloner = VoiceCloner.from_pretrained(args.model, device)
    found = Ceilings(list(evaluate_ceilings(cloner, recordings, judges, not args.no_clone, args.seed)))
    figures = {
        stage: {name: figure.to_dict() for name, figure in of.items()} for stage, of in found.figures(args.seed).items()
    }
    config = {"model": args.model or "embedded", "list": str(args.list or RECORDINGS.name), **vars(names)}
    results = results_head("ceilings", config, args.seed, len(found.rows)) | {"stages": figures}
    print(json.dumps(results, indent=2) if args.json else found.table())
    if args.out:
        write_results(args.out, results, [row.columns() for row in found.rows])
        print(f"wrote {args.out / 'results.json'} and {args.out / 'utterances.tsv'}", file=sys.stderr)
    return 0
