"""`valle tokenize`: a corpus to phonemes and codes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from valle.outputs import check_folder
from valle.tokenizers.errors import UserError

if TYPE_CHECKING:
    from valle.tokenizers.text import TextTokenizer

_EPILOG = """example:
  valle tokenize corpus/cuts.jsonl.gz --codec codec/ --aligner aligner.safetensors --out tokens

A run that was stopped goes on when started again. To share the work of a large corpus between machines, give
each the same command with --part 1/8, --part 2/8, ..."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("cuts", metavar="CUTS", help="cut manifest made by 'valle prepare'")
    add("--out", required=True, metavar="DIR", help="folder for the shards")
    add("--codec", required=True, metavar="DIR", help="codec or model folder")
    add("--aligner", metavar="FILE", help="aligner, for durations ('valle train aligner'); default: no durations")
    add("--text-tokenizer", metavar="JSON", help="tokenizer file (default: phonemes of American English)")
    add("--device", default="cpu", metavar="D", help="cpu, cuda, ... (default: cpu)")
    add("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    add("--shard-size", type=int, default=500, metavar="N", help="utterances in a shard (default: 500)")
    add("--part", default="1/1", metavar="I/N", help="do the I-th of N parts of the work")


def run(args: argparse.Namespace) -> int:
    """Make the shards that are missing."""
    part, parts = _part(args.part)
    check_folder(args.out)

    from valle.data.aligner import Aligner
    from valle.data.tokenize import tokenize

    text = read_text_tokenizer(args.text_tokenizer)
    aligner = None if args.aligner is None else Aligner.load(args.aligner)
    report = tokenize(
        args.cuts,
        args.out,
        args.codec,
        text,
        aligner=aligner,
        device=args.device,
        shard_size=args.shard_size,
        jobs=args.jobs,
        part=part - 1,
        parts=parts,
    )
    print(report.table())
    return 0


def read_text_tokenizer(path: str | None) -> TextTokenizer:
    """The tokenizer in a JSON file, or the default one."""
    from valle.tokenizers.text import PhonemeTokenizer, text_tokenizer_from_dict

    if path is None:
        return PhonemeTokenizer()
    try:
        return text_tokenizer_from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"text tokenizer {path} cannot be read: {error}") from error


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--part must be I/N with 1 <= I <= N, such as 2/8, got '{text}'")
    return int(number), int(count)
