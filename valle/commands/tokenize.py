"""`valle tokenize`: a corpus to phonemes and codes."""

from __future__ import annotations

import argparse

from valle.common.errors import UserError
from valle.common.files import check_folder

_EPILOG = """examples:
  valle tokenize corpus/train.jsonl.gz --codec codec/ --aligner aligner.safetensors --out tokens
  valle tokenize corpus/train.jsonl.gz --codec codec/ --dry-run --hours 585

  valle tokenize corpus/train.jsonl.gz --codec codec/ --aligner aligner.safetensors --out tokens-1.1 --speed 1.1

A run that was stopped goes on when started again. To share the work of a large corpus between machines, give
each the same command with --part 1/8, --part 2/8, ...; processes with --device cuda share the GPUs of a machine."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("cuts", metavar="CUTS", help="cut manifest made by 'valle prepare'")
    add("--out", metavar="DIR", help="folder for the shards")
    add("--codec", required=True, metavar="M", help="codec folder, model folder, Hub id, or 'embedded'")
    add("--aligner", metavar="X", help="for durations: file of 'valle train aligner', or model as above; default: none")
    add(
        "--text-tokenizer",
        metavar="X",
        help="tokenizer file, or model as above (default: phonemes of US English)",
    )
    add("--device", default="cpu", metavar="D", help="cpu, cuda, ... (default: cpu)")
    add("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    add("--shard-size", type=int, default=500, metavar="N", help="utterances in a shard (default: 500)")
    add("--speed", type=float, default=1.0, metavar="X", help="play the recordings at X times their speed (default: 1)")
    add("--disguise", type=float, default=1.0, metavar="X", help="let quantizer 1 hear other voices, for a flow: 1.4")
    add("--no-text", action="store_true", help="speech without transcripts, for a flow")
    add("--part", default="1/1", metavar="I/N", help="do the I-th of N parts; auto: as torchrun or SLURM number me")
    add("--dry-run", action="store_true", help="make nothing; say from a sample how long it takes, and what disk")
    add("--hours", type=float, metavar="H", help="with --dry-run: for H hours of speech like this")


def run(args: argparse.Namespace) -> int:
    """Make the shards that are missing."""
    from valle.common.device import parse_part

    place = parse_part(args.part)
    if args.hours is not None and not args.dry_run:
        raise UserError("--hours goes with --dry-run")
    if args.out is None and not args.dry_run:
        raise UserError("--out is missing: the folder for the shards")
    if args.out is not None:
        check_folder(args.out)

    from valle.data.aligner import Aligner
    from valle.data.tokenize import tokenize
    from valle.tokenizers.text import PhonemeTokenizer, read_text_tokenizer

    text = PhonemeTokenizer() if args.text_tokenizer is None else read_text_tokenizer(args.text_tokenizer)
    aligner = None if args.aligner is None else Aligner.load(args.aligner)
    if args.dry_run:
        from valle.data.sizing import size_up

        sizing = size_up(args.cuts, args.codec, text, aligner=aligner, device=args.device)
        print(sizing.table(args.jobs * place.parts, args.hours))
        return 0
    report = tokenize(
        args.cuts,
        args.out,
        args.codec,
        text,
        aligner=aligner,
        device=place.device(args.device),
        shard_size=args.shard_size,
        speed=args.speed,
        disguise=args.disguise,
        has_text=not args.no_text,
        jobs=args.jobs,
        part=place.part,
        parts=place.parts,
    )
    print(report.table())
    return 0
