"""`valle clone`: speak with the voice of a recording, once or for a list of jobs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from valle.jobs import read_jobs
from valle.outputs import AUDIO_SUFFIXES, check_folder, check_writable
from valle.tokenizers.errors import UserError

if TYPE_CHECKING:
    from valle.cloner import VoiceCloner
    from valle.lm import Sampling
    from valle.pieces import Takes
    from valle.speech import Outcome, SpeechChunk

_EPILOG = """examples:
  valle clone --prompt me.wav --text "Any sentence." --out out.wav
  valle clone --voice Me --text "Any sentence." --out out.wav       # stored by 'valle serve'
  valle clone --jobs jobs.tsv --out-dir out     # columns: id prompt prompt_text text
  valle clone --prompt me.wav --text-file book.txt --stream | aplay -t raw -f S16_LE -r 16000"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.usage = "valle clone --prompt AUDIO --text TEXT --out AUDIO [options]"
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--prompt", metavar="AUDIO", help="recording of the voice, 3 to 10 seconds of speech")
    add("--prompt-text", metavar="TEXT", help="what is said in it; its manner is then followed")
    add("--voice", metavar="NAME", help="instead of --prompt: a voice of 'valle serve' ([DIR/]name or id), alloy, …")
    add("--text", help="what to say")
    add("--text-file", metavar="FILE", help="read it from a file ('-': standard input)")
    add("--out", metavar="AUDIO", help="file to write: .wav, .flac, .ogg or .mp3")
    add("--stream", action="store_true", help="raw 16-bit samples to standard output, at once")
    add("--jobs", metavar="TSV", help="many at once: table of id prompt prompt_text text")
    add("--out-dir", metavar="DIR", help="folder for the results of --jobs, DIR/<id>.wav")
    add("--language", default="en-us", metavar="CODE", help="of the text: de, fr-fr, cmn, … (default: en-us)")
    add("--any-language", action="store_true", help="let a model try what it was not trained to speak")
    add("--seed", type=_seed, default=0, metavar="N", help="another seed, another reading (default: 0)")
    add("--temperature", type=float, metavar="X", help="liveliness; lower is safer")
    add("--top-k", type=int, metavar="N", help="choose among the N likeliest codes")
    add("--top-p", type=float, metavar="P", help="choose among codes of this total probability")
    add("--ras-window", type=int, metavar="N", help="frames of repetition-aware sampling; 0: off")
    add("--retries", type=int, default=2, metavar="N", help="more takes of what went wrong (default: 2)")
    add("--n-best", type=int, metavar="N", help="keep the best of N takes (default: 4; with --stream 1)")
    judges = ("own", "cer", "sim", "both")
    add("--best-by", choices=judges, default="own", metavar="BY", help="own (default); cer, sim, both (extra 'eval')")
    add("--model", metavar="M", help="folder or Hugging Face Hub id (default: embedded)")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps (default: auto)")
    add("--threads", type=_threads, metavar="N", help="of the CPU (default: what suits the model)")
    add("--precision", default="auto", metavar="P", help="auto, fp32, bf16, fp16, int8 (default: auto)")
    add("--plot", metavar="PNG", help="also draw the spectrograms of prompt and result")
    add("--json", action="store_true", help="print results as JSON, one on a line")


def run(args: argparse.Namespace) -> int:
    """Speak once, or for every row of a table."""
    if args.jobs is not None:
        return _run_jobs(args)
    if args.out_dir is not None:
        raise UserError("--out-dir belongs to --jobs; give --out for one result")
    if args.out is None and not args.stream:
        raise UserError("--out is missing (see 'valle clone --help')")
    for option in ("out", "plot", "json"):
        if args.stream and getattr(args, option):
            raise UserError(f"--{option} does not go with --stream, which writes to standard output")
    text = _text(args)
    prompt = _prompt(args)
    if args.out is not None:
        check_writable(args.out, AUDIO_SUFFIXES)
    if args.plot is not None:
        check_writable(args.plot, (".png",))

    cloner, sampling, takes = _load(args)
    voice = cloner.make_voice(*prompt)
    how = {"seed": args.seed, "sampling": sampling, "language": args.language, "takes": takes}
    if args.stream:
        return _stream(cloner.stream(text, voice, **how))
    with progress_bar("speaking") as progress:
        speech = cloner.clone(text, voice, **how, progress=progress)
    speech.save(args.out)
    if args.plot is not None:
        from valle.plot import plot_pair

        plot_pair(args.plot, voice.prompt.wav, speech.wav, cloner.sample_rate, text[:200])
    _report(speech, args, args.out, cloner.sample_rate)
    return 0


def _stream(chunks: Iterator[SpeechChunk]) -> int:
    """Raw little-endian 16-bit samples to standard output; what there is to say of them to standard error."""
    for chunk in chunks:
        samples = (chunk.wav.clamp(-1, 1) * 32767).round().numpy().astype("<i2")
        sys.stdout.buffer.write(samples.tobytes())
        sys.stdout.buffer.flush()
        if chunk.outcome is not None:
            _notes(chunk.outcome)
            print(
                f"{chunk.outcome.seconds:.1f} s of speech at {chunk.sample_rate} Hz, first audio after "
                f"{chunk.outcome.first_chunk_seconds:.2f} s, real-time factor {chunk.outcome.real_time_factor:.2f}",
                file=sys.stderr,
            )
    return 0


def _run_jobs(args: argparse.Namespace) -> int:
    """All jobs; one that fails is reported and does not stop the others."""
    for option in ("prompt", "prompt_text", "voice", "text", "text_file", "out", "plot"):
        if getattr(args, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} does not go with --jobs: the table says it for each job")
    if args.stream:
        raise UserError("--stream does not go with --jobs, which writes files")
    if args.out_dir is None:
        raise UserError("--jobs needs --out-dir DIR to know where to write")
    jobs = read_jobs(args.jobs)
    folder = check_folder(args.out_dir)
    from valle.batch import speak_jobs

    cloner, sampling, takes = _load(args)
    failed = 0
    with progress_bar("jobs") as progress:
        spoken = speak_jobs(cloner, jobs, args.seed, sampling, args.language, takes)
        for number, (job, speech) in enumerate(spoken, start=1):
            progress(number / len(jobs))
            out = folder / f"{job.id}.wav"
            try:
                if isinstance(speech, UserError):
                    raise speech
                speech.save(out)
            except UserError as error:
                failed += 1
                print(f"valle: job '{job.id}': {error}", file=sys.stderr)
                continue
            _report(speech, args, str(out), cloner.sample_rate)
    if failed:
        raise UserError(f"{failed} of {len(jobs)} jobs failed")
    return 0


def _load(args: argparse.Namespace) -> tuple[VoiceCloner, Sampling, Takes]:
    from valle.cloner import VoiceCloner
    from valle.pieces import BEST_OF, Takes

    n_best = args.n_best if args.n_best is not None else 1 if args.stream else BEST_OF
    scorer = None
    if n_best > 1 and args.best_by != "own":
        from valle.eval.scorer import build_scorer

        scorer = build_scorer(args.best_by)
    takes = Takes(n_best, scorer, args.retries)
    cloner = VoiceCloner.from_pretrained(args.model, args.device, args.precision, args.threads, args.any_language)
    options = {name: getattr(args, name) for name in ("temperature", "top_k", "top_p", "ras_window")}
    given = {name: value for name, value in options.items() if value is not None}
    return cloner, replace(cloner.bundle.sampling, **given), takes


def _text(args: argparse.Namespace) -> str:
    if (args.text is None) == (args.text_file is None):
        raise UserError("give what to say with --text or with --text-file (one of them)")
    if args.text is not None:
        text = args.text
    else:
        try:
            text = sys.stdin.read() if args.text_file == "-" else Path(args.text_file).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UserError(f"--text-file {args.text_file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"--text-file {args.text_file} is not UTF-8 text; save it as UTF-8") from error
    if not text.strip():
        raise UserError("the text is empty; give something to say")
    return text


def _prompt(args: argparse.Namespace) -> tuple[str | Path, str | None, str]:
    """The recording of the voice, what is said in it if that is known, and the language of that."""
    if args.voice is None:
        if args.prompt is None:
            raise UserError("--prompt is missing, or --voice instead (see 'valle clone --help')")
        if not Path(args.prompt).is_file():
            raise UserError(f"audio file not found: {args.prompt}")
        return args.prompt, args.prompt_text, args.language
    if args.prompt is not None or args.prompt_text is not None:
        raise UserError("--voice brings its recording and what is said in it: leave out --prompt and --prompt-text")
    from valle.voice_store import VoiceStore

    path = Path(args.voice)
    stored = VoiceStore(path.parent if "/" in args.voice else None).find(path.name)
    return stored.recording, stored.transcript, stored.language


def _report(outcome: Outcome, args: argparse.Namespace, out: str, sample_rate: int) -> None:
    if args.json:
        facts = {
            "out": out,
            "seconds": round(outcome.seconds, 3),
            "sample_rate": sample_rate,
            "stop_reason": outcome.stop_reason,
            "real_time_factor": round(outcome.real_time_factor, 3),
            "seed": outcome.seed,
            "retries": outcome.retries,
            "notes": outcome.notes,
        }
        print(json.dumps(facts, ensure_ascii=False), flush=True)
        return
    _notes(outcome)
    print(
        f"{out}: {outcome.seconds:.1f} s of speech, made in {outcome.real_time_factor * outcome.seconds:.1f} s "
        f"(real-time factor {outcome.real_time_factor:.2f})",
        flush=True,
    )


def _notes(outcome: Outcome) -> None:
    for note in outcome.notes:
        print(f"note: {note}", file=sys.stderr)


def _seed(value: str) -> int:
    if not value.isdecimal() or int(value) >= 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**31 - 1}, got {value}")
    return int(value)


def _threads(value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= 1024:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1024, got {value}")
    return int(value)


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, on terminals only; gives the function that moves it to a share, 0 to 1."""
    from tqdm import tqdm

    with tqdm(
        total=1.0, desc=name, disable=None, leave=False, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    ) as bar:

        def move(share: float) -> None:
            bar.update(share - bar.n)

        yield move
