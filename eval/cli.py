"""The commands `valle eval tts` and `valle eval codec`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.tokenizers.errors import UserError

if TYPE_CHECKING:
    from valle.eval.codec import CodecReport
    from valle.eval.stats import Estimate
    from valle.eval.tts import TTSReport

_TTS_EXAMPLE = """example:
  valle eval tts --out results/tts
  valle eval tts --list-jobs > jobs.tsv     # for another system: let it write wavs/<id>.wav, then
  valle eval tts --wavs wavs --out results/other"""
_CODEC_EXAMPLE = """example:
  valle eval codec --model runs/codec --n-q 1 4 --out results/codec"""


def add_eval_commands(subparsers: Any) -> None:
    """Add `tts` and `codec` to what `add_subparsers` gave for `valle eval`; each sets `run(args) -> exit code`."""
    tts = subparsers.add_parser(
        "tts",
        help="how well a model clones voices: word errors and likeness to the prompt",
        description="Let a model say sentences in the voices of a list and judge the result.",
        epilog=_TTS_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tts.add_argument("--model", metavar="M", help="model folder or Hub id (default: the embedded model)")
    tts.add_argument("--wavs", type=Path, metavar="DIR", help="judge another system's DIR/<id>.wav instead of a model")
    tts.add_argument("--list-jobs", action="store_true", help="print what is to be said (id prompt prompt_text text)")
    tts.add_argument("--sentences", type=Path, metavar="FILE", help="one sentence a line (default: 10 shipped ones)")
    tts.add_argument("--no-prompt-text", action="store_true", help="do not give the model the prompts' transcripts")
    _add_common(tts, recogniser_default="pocketsphinx", speaker_default="resemblyzer")
    tts.set_defaults(run=_run_tts)

    codec = subparsers.add_parser(
        "codec",
        help="how much of speech survives a codec: STOI, PESQ, MCD, ...",
        description="Encode and decode the recordings of a list and compare with the originals.",
        epilog=_CODEC_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    codec.add_argument("--model", metavar="M", help="codec folder, model folder or Hub id (default: embedded model)")
    codec.add_argument("--n-q", type=int, nargs="+", metavar="N", help="quantizers to decode with (default: 1 2 4)")
    codec.add_argument(
        "--metrics", nargs="+", metavar="M", help="of stoi pesq mcd visqol dnsmos (default: first three)"
    )
    codec.add_argument("--no-cross", action="store_true", help="do not also swap time-invariant codes in a speaker")
    _add_common(codec, recogniser_default=None, speaker_default=None)
    codec.set_defaults(run=_run_codec)


def _add_common(parser: argparse.ArgumentParser, recogniser_default: str | None, speaker_default: str | None) -> None:
    parser.add_argument("--list", type=Path, metavar="TSV", help="recordings: id path speaker text (default: shipped)")
    parser.add_argument(
        "--recogniser",
        default=recogniser_default,
        metavar="R",
        help=f"pocketsphinx, hubert or whisper-SIZE (default: {recogniser_default or 'no recognition'})",
    )
    parser.add_argument("--recogniser-model", metavar="M", help="folder or Hub id of its weights")
    parser.add_argument(
        "--speaker-model",
        default=speaker_default,
        metavar="S",
        help=f"resemblyzer or wavlm (default: {speaker_default or 'no similarity'})",
    )
    parser.add_argument("--speaker-weights", metavar="M", help="folder or Hub id of its weights")
    parser.add_argument("--seed", type=int, default=0, help="of synthesis and intervals (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes of pocketsphinx (default: 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json and utterances.tsv here")
    parser.add_argument("--keep-wavs", action="store_true", help="also write the audio, into DIR/wavs")
    parser.add_argument("--json", action="store_true", help="print results as JSON")


def _run_tts(args: argparse.Namespace) -> int:
    from valle.eval.lists import RECORDINGS, SENTENCES, choose_prompts, read_list, read_sentences
    from valle.eval.tts import plan

    recordings = read_list(args.list or RECORDINGS)
    jobs = plan(choose_prompts(recordings), read_sentences(args.sentences or SENTENCES))
    if args.list_jobs:
        print("id\tprompt\tprompt_text\ttext")
        for job in jobs:
            print(job.id, job.prompt.path, job.prompt.text, job.text, sep="\t")
        return 0
    _check(args)

    from valle.cloner import VoiceCloner
    from valle.eval.recognisers import build_recogniser
    from valle.eval.results import tts_results, tts_table
    from valle.eval.similarity import build_speaker_model
    from valle.eval.tts import judge, read_outputs, synthesise, write_outputs

    device = _device(args)
    # The judges are built first: what they lack should not come out after an hour of synthesis.
    recogniser = build_recogniser(args.recogniser, args.recogniser_model, device, args.jobs)
    speaker_model = build_speaker_model(args.speaker_model, args.speaker_weights, device)
    if args.wavs:
        outputs = read_outputs(args.wavs, jobs)
    else:
        outputs = synthesise(VoiceCloner.from_pretrained(args.model, device), jobs, not args.no_prompt_text, args.seed)
    if args.keep_wavs:
        write_outputs(args.out / "wavs", jobs, outputs)
    report = judge(jobs, outputs, recogniser, speaker_model, recordings, args.seed)
    _finish(args, tts_results(report, _config(args), args.seed), tts_table(report.rows), _describe_tts(report))
    return 0


def _run_codec(args: argparse.Namespace) -> int:
    _check(args)

    from valle.eval.codec import evaluate_codec
    from valle.eval.codec_metrics import DEFAULT_METRICS
    from valle.eval.lists import RECORDINGS, read_list
    from valle.eval.recognisers import build_recogniser
    from valle.eval.results import codec_results, codec_table
    from valle.eval.similarity import build_speaker_model
    from valle.hub import find_model
    from valle.tokenizers.codecs.registry import load_codec

    recordings = read_list(args.list or RECORDINGS)
    device = _device(args)
    report = evaluate_codec(
        load_codec(find_model(args.model), device),
        recordings,
        n_qs=args.n_q,
        cross_time_invariant=not args.no_cross,
        metrics=args.metrics or DEFAULT_METRICS,
        recogniser=build_recogniser(args.recogniser, args.recogniser_model, device, args.jobs)
        if args.recogniser
        else None,
        speaker_model=build_speaker_model(args.speaker_model, args.speaker_weights, device)
        if args.speaker_model
        else None,
        wav_folder=args.out / "wavs" if args.keep_wavs else None,
        seed=args.seed,
    )
    _finish(args, codec_results(report, _config(args), args.seed), codec_table(report.rows), _describe_codec(report))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what would be lost or useless, before the long work."""
    from valle.outputs import check_folder

    if args.keep_wavs and not args.out:
        raise UserError("--keep-wavs needs --out DIR to know where")
    if args.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, got {args.jobs}")
    if args.out:
        check_folder(args.out)


def _device(args: argparse.Namespace) -> str:
    from valle.device import find_device

    return str(find_device(args.device))


def _config(args: argparse.Namespace) -> dict[str, Any]:
    """The options as given; what only says where and how to print is left out."""
    without = {"run", "command", "json", "out", "keep_wavs", "list_jobs", "seed"}
    given = {name: value for name, value in vars(args).items() if name not in without}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


def _finish(args: argparse.Namespace, results: dict[str, Any], table: list[dict[str, Any]], text: str) -> None:
    from valle.eval.results import write_results

    if args.out:
        write_results(args.out, results, table)
    print(json.dumps(results, indent=2, ensure_ascii=False) if args.json else text)
    if args.out:
        print(f"wrote {args.out / 'results.json'} and {args.out / 'utterances.tsv'}", file=sys.stderr)


def _describe_tts(report: TTSReport) -> str:
    def line(label: str, value: Estimate | None) -> str:
        return f"  {label:<34}{value}"

    m, c = report.metrics, report.context
    lines = [
        f"{len(report.rows)} sentences, {len({row.job.prompt.speaker for row in report.rows})} voices "
        "(value [95 % interval])",
        line("word error rate", m["wer"]),
        line("  same recogniser, real recordings", c["recordings_wer"]),
        line("character error rate", m["cer"]),
        line("  same recogniser, real recordings", c["recordings_cer"]),
        line("similarity to the prompt", m["sim"]),
        line("  to the other prompts", m["sim_others"]),
        line("  real: same speaker", c["same_speaker"]),
        line("  real: different speakers", c["different_speakers"]),
        line("sentences with skipped words", m["skips"]),
        line("sentences with repeated words", m["repeats"]),
    ]
    return "\n".join(lines)


def _describe_codec(report: CodecReport) -> str:
    lines = [
        f"{report.parameters / 1e6:.1f} M parameters; {report.time_invariant_bits:.0f} bits of time-invariant codes "
        f"per utterance; encodes at {report.encode_rtf:.3f} x real time"
    ]
    for s in report.summaries:
        lines.append(f"n_q {s.n_q}, {s.bitrate:.0f} bit/s, {s.time_invariant} time-invariant codes")
        lines += [f"  {name:<8}{value}" for name, value in s.metrics.items()]
        lines.append(f"  decodes at {s.decode_rtf:.3f} x real time")
    return "\n".join(lines)
