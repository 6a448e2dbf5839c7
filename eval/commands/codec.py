"""The command `valle eval codec`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError

if TYPE_CHECKING:
    from valle.eval.codec import CodecReport, CodecSummary
    from valle.tokenizers.codecs.base import SpeechCodec

_EXAMPLE = """example:
  valle eval codec --model runs/codec --n-q 1 4 --out results/codec
  valle eval codec --model codec_a codec_b --out results/codecs --plot results/consistency.png"""


def add_codec_command(subparsers: Any) -> None:
    """Add `codec` to the subcommands of `valle eval`."""
    codec = subparsers.add_parser(
        "codec",
        help="how much of speech survives codecs: ViSQOL, PESQ, STOI, MCD, and what they cost",
        description="Encode and decode the recordings of a list and compare with the originals.",
        epilog=_EXAMPLE,
    )
    add = codec.add_argument
    add("--model", nargs="+", metavar="M", help="codec or model folders or Hub ids (default: the embedded model)")
    add("--n-q", type=int, nargs="+", metavar="N", help="quantizers to decode with (default: 1 2 4)")
    add(
        "--metrics",
        nargs="+",
        metavar="M",
        help="of visqol visqol_poly pesq stoi mcd dnsmos (default: visqol pesq stoi mcd)",
    )
    add("--no-cross", action="store_true", help="do not also swap time-invariant codes in a speaker")
    add("--plot", type=Path, metavar="PNG", help="picture of how constant the time-invariant representations are")
    add("--half-seconds", type=float, metavar="S", help="of each half, next to the middle (default: all)")
    add("--list", type=Path, metavar="TSV", help="recordings: id path speaker text (default: shipped)")
    add("--recogniser", metavar="R", help="pocketsphinx, faster-whisper, hubert, whisper-SIZE (default: none)")
    add("--recogniser-model", metavar="M", help="folder or Hub id of its weights")
    add("--speaker-model", metavar="S", help="resemblyzer or wavlm (default: none)")
    add("--speaker-weights", metavar="M", help="folder or Hub id of its weights")
    add("--seed", type=int, default=0, help="of the intervals (default: 0)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("--jobs", type=int, default=1, metavar="N", help="processes of pocketsphinx (default: 1)")
    add("--out", type=Path, metavar="DIR", help="write results here; an interrupted run goes on from its scores.jsonl")
    add("--keep-wavs", action="store_true", help="also write the audio, into DIR/wavs")
    add("--json", action="store_true", help="print results as JSON")
    codec.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    _check(args)

    from valle.eval.codec import codec_results, codec_rows, paper_table, plot_consistency
    from valle.eval.results import write_results

    reports = dict(_evaluate(args))
    results = codec_results(reports, _config(args), args.seed)
    if args.out:
        write_results(args.out, results, codec_rows(reports))
    if args.plot:
        found = {name: report.consistency for name, report in reports.items() if report.consistency}
        if not found:
            raise UserError("--plot: none of these codecs has a time-invariant part")
        plot_consistency(args.plot, found)
    print(json.dumps(results, indent=2, ensure_ascii=False) if args.json else paper_table(reports))
    if args.out:
        print(f"wrote {args.out / 'results.json'} and {args.out / 'utterances.tsv'}", file=sys.stderr)
    return 0


def _evaluate(args: argparse.Namespace) -> Iterator[tuple[str, CodecReport]]:
    """A report for each codec, by its name."""
    from valle.common.device import find_device
    from valle.eval.codec import evaluate_codec
    from valle.eval.judges.codec_metrics import DEFAULT_METRICS
    from valle.eval.judges.measure import KeptScores
    from valle.eval.judges.recognisers import build_recogniser
    from valle.eval.judges.similarity import build_speaker_model
    from valle.eval.protocols import RECORDINGS, read_list
    from valle.eval.results import versions

    kept = KeptScores(args.out / "scores.jsonl" if args.out else None, json.dumps(versions()))
    recordings = read_list(args.list or RECORDINGS)
    device = str(find_device(args.device))
    recogniser = speaker_model = None
    if args.recogniser:
        recogniser = build_recogniser(args.recogniser, args.recogniser_model, device, args.jobs)
    if args.speaker_model:
        speaker_model = build_speaker_model(args.speaker_model, args.speaker_weights, device)
    codecs = _load(args.model or [None], device)
    for name, codec in codecs.items():
        folder = args.out / "wavs" if args.keep_wavs else None
        yield (
            name,
            evaluate_codec(
                codec,
                recordings,
                n_qs=_n_qs(args.n_q, codec, alone=len(codecs) == 1),
                cross_time_invariant=not args.no_cross,
                metrics=args.metrics or DEFAULT_METRICS,
                recogniser=recogniser,
                speaker_model=speaker_model,
                wav_folder=folder / name if folder and len(codecs) > 1 else folder,
                seed=args.seed,
                half_seconds=args.half_seconds,
                kept=kept,
                done=partial(_tell, name),
            ),
        )


def _tell(name: str, summary: CodecSummary) -> None:
    """One way of decoding is measured: for whoever waits for the others."""
    figures = ", ".join(f"{metric} {value.value:.3f}" for metric, value in summary.metrics.items())
    print(f"{name}, {summary.time_invariant}, n_q {summary.n_q}: {figures}", file=sys.stderr)


def _load(models: list[str | None], device: str) -> dict[str, SpeechCodec]:
    """The codecs, by the name of their folder, or its whole path where two are called the same."""
    from valle.tokenizers.codecs.registry import load_codec

    names = [model or "embedded" for model in models]
    if len(set(names)) < len(names):
        raise UserError("--model names a codec twice")
    short = [Path(name).name for name in names]
    codecs = [load_codec(name, device) for name in names]
    return dict(zip(short if len(set(short)) == len(short) else names, codecs, strict=True))


def _n_qs(wanted: list[int] | None, codec: SpeechCodec, alone: bool) -> list[int] | None:
    """Of several codecs, one may have fewer quantizers than the others: it does with those that it has."""
    if wanted is None or alone:
        return wanted
    if not (fitting := [n for n in wanted if n <= codec.spec.n_q]):
        raise UserError(f"--n-q: codec '{codec.spec.name}' has {codec.spec.n_q} quantizers, fewer than asked for")
    return fitting


def _check(args: argparse.Namespace) -> None:
    """Refuse what would be lost or useless, before the long work."""
    from valle.common.files import check_folder, check_writable

    if args.keep_wavs and not args.out:
        raise UserError("--keep-wavs needs --out DIR to know where")
    if args.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, got {args.jobs}")
    if args.half_seconds is not None and not args.half_seconds >= 0.2:
        raise UserError(f"--half-seconds must be 0.2 or more, got {args.half_seconds}")
    if args.out:
        check_folder(args.out)
    if args.plot:
        check_writable(args.plot, (".png",))


def _config(args: argparse.Namespace) -> dict[str, Any]:
    """The options as given; what only says where and how to print is left out."""
    without = {"run", "command", "what", "json", "out", "keep_wavs", "plot", "seed"}
    given = {name: value for name, value in vars(args).items() if name not in without}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
