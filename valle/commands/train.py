"""`valle train`: Lightning jobs from YAML files, and the aligner."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from valle.common.errors import UserError
from valle.common.files import check_writable
from valle.common.hub import find_model

_SUMMARIES = {
    "codec": "the codec: speech to codes and back",
    "ar": "the autoregressive model: text to the first quantizer's codes",
    "nar": "the non-autoregressive model: the codes of the other quantizers",
    "flow": "the same by flow matching: learns from speech without transcripts, too",
}
_EPILOG = """Every setting of the YAML file is an option: --trainer.max_steps 1000 --run.folder runs/mine --data.seed 1
All of them, with their values: valle train {kind} --print-config [--config YAML]
Checkpoints and logs go to the run's folder; the same command continues a run that was stopped.

example:
  valle train {kind} --config configs/{kind}/tiny.yaml --trainer.max_steps 50"""
_ALIGNER_EPILOG = """example:
  valle train aligner corpus/cuts.jsonl.gz --out aligner.safetensors"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.epilog = _EPILOG.format(kind="ar")
    kinds = parser.add_subparsers(dest="kind", metavar="PART", required=True)
    for kind, summary in _SUMMARIES.items():
        job = kinds.add_parser(kind, help=summary, description=f"Train {summary}.", epilog=_EPILOG.format(kind=kind))
        job.add_argument("--config", "-c", action="append", default=[], metavar="YAML", help="settings; later ones win")
        if kind != "codec":
            job.add_argument("--model", metavar="M", help="finetune this model (folder, Hub id, or 'embedded')")
        job.add_argument("--print-config", action="store_true", help="print all settings as YAML and stop")
        job.set_defaults(takes_rest=True, trains=True)
    aligner = kinds.add_parser(
        "aligner",
        help="the aligner: finds how long each phoneme lasts",
        description="Train the aligner on a prepared corpus; takes minutes.",
        epilog=_ALIGNER_EPILOG,
    )
    aligner.add_argument("cuts", metavar="CUTS", help="cut manifest made by 'valle prepare', with texts")
    aligner.add_argument("--out", required=True, metavar="FILE", help="file to write (.safetensors)")
    aligner.add_argument("--codec", metavar="M", help="codec or model whose frames count (default: 16 kHz, 50 Hz)")
    aligner.add_argument("--text-tokenizer", metavar="JSON", help="as in 'valle tokenize'")
    aligner.add_argument("--max-hours", type=float, default=10.0, metavar="H", help="speech used (default: 10)")
    aligner.add_argument("--seed", type=int, default=0, metavar="N", help="which utterances (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Train, or continue training."""
    if args.kind == "aligner":
        return _train_aligner(args)
    if not (args.config or args.rest or args.print_config):
        raise UserError(f"--config is missing; to try it out: --config configs/{args.kind}/tiny.yaml")
    options = [word for path in args.config for word in ("--config", str(find_config(path)))]
    model = getattr(args, "model", None)
    if model is not None:
        find_model(model)  # what training imports takes long: a wrong name is told before

    from valle.training.run import train

    words = [*options, *(["--print_config"] if args.print_config else []), *args.rest]
    train(args.kind, words, model)
    return 0


def find_config(path: str) -> Path:
    """`path`, or if there is no such file, the one of this name among those that come with the package."""
    package = Path(__file__).parents[1]
    for place in (Path(path), package / path):
        if place.is_file():
            return place
    raise UserError(f"--config {path} does not exist; those that come with valle are in {package / 'configs'}")


def _train_aligner(args: argparse.Namespace) -> int:
    check_writable(args.out, (".safetensors",))

    from valle.data.aligner import train_aligner
    from valle.tokenizers.text import PhonemeTokenizer, read_text_tokenizer

    rates: dict[str, Any] = {}
    if args.codec is not None:
        from valle.tokenizers.codecs.registry import load_codec

        spec = load_codec(args.codec).spec
        rates = {"sample_rate": spec.sample_rate, "frame_rate": spec.frame_rate}
    text = PhonemeTokenizer() if args.text_tokenizer is None else read_text_tokenizer(args.text_tokenizer)
    train_aligner(args.cuts, text, args.out, max_hours=args.max_hours, seed=args.seed, **rates)
    print(f"wrote {args.out}")
    return 0
