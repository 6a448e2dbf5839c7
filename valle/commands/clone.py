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
    from valle.cloner import Speech, Voice, VoiceCloner
    from valle.lm import Sampling

_EPILOG = """examples:
  valle clone --prompt me.wav --text "Any sentence." --out out.wav
  valle clone --jobs jobs.tsv --out-dir out     # columns: id prompt prompt_text text"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--prompt", metavar="AUDIO", help="recording of the voice, 3 to 10 seconds of speech")
    add("--prompt-text", metavar="TEXT", help="what is said in it; brings the result closer to its manner")
    add("--text", help="what to say")
    add("--text-file", metavar="FILE", help="read it from a file ('-': standard input)")
    add("--out", metavar="AUDIO", help="file to write: .wav, .flac, .ogg or .mp3")
    add("--jobs", metavar="TSV", help="many at once: a table with the columns id prompt prompt_text text")
    add("--out-dir", metavar="DIR", help="folder for the results of --jobs, DIR/<id>.wav")
    add("--language", default="en-us", metavar="CODE", help="of the text, such as de, fr-fr, cmn (default: en-us)")
    add("--seed", type=_seed, default=0, metavar="N", help="another seed, another reading (default: 0)")
    add("--temperature", type=float, metavar="X", help="liveliness; lower is safer (default: the model's)")
    add("--top-k", type=int, metavar="N", help="choose among the N likeliest codes (default: the model's)")
    add("--top-p", type=float, metavar="P", help="choose among codes of this total probability")
    add("--model", metavar="M", help="model folder or Hugging Face Hub id (default: the embedded model)")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps (default: auto)")
    add("--plot", metavar="PNG", help="also draw the spectrograms of prompt and result")
    add("--json", action="store_true", help="print the result's data as JSON, one line for each")


def run(args: argparse.Namespace) -> int:
    """Speak once, or for every row of a table."""
    if args.jobs is not None:
        return _run_jobs(args)
    if args.out_dir is not None:
        raise UserError("--out-dir belongs to --jobs; give --out for one result")
    for option in ("prompt", "out"):
        if getattr(args, option) is None:
            raise UserError(f"--{option} is missing (see 'valle clone --help')")
    text = _text(args)
    _check_prompt(args.prompt)
    check_writable(args.out, AUDIO_SUFFIXES)
    if args.plot is not None:
        check_writable(args.plot, (".png",))

    cloner, sampling = _load(args)
    voice = cloner.make_voice(args.prompt, args.prompt_text, args.language)
    with progress_bar("speaking") as progress:
        speech = cloner.clone(text, voice, seed=args.seed, sampling=sampling, language=args.language, progress=progress)
    speech.save(args.out)
    if args.plot is not None:
        from valle.plot import plot_pair

        plot_pair(args.plot, voice.prompt.wav, speech.wav, cloner.sample_rate, text[:200])
    _report(speech, args, args.out)
    return 0


def _run_jobs(args: argparse.Namespace) -> int:
    """All jobs; one that fails is reported and does not stop the others."""
    for option in ("prompt", "prompt_text", "text", "text_file", "out", "plot"):
        if getattr(args, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} does not go with --jobs: the table says it for each job")
    if args.out_dir is None:
        raise UserError("--jobs needs --out-dir DIR to know where to write")
    jobs = read_jobs(args.jobs)
    folder = check_folder(args.out_dir)
    cloner, sampling = _load(args)
    voices: dict[tuple[Path, str], Voice] = {}
    failed = 0
    for job in jobs:
        out = folder / f"{job.id}.wav"
        key = (job.prompt, job.prompt_text)
        try:
            if key not in voices:
                voices = {key: cloner.make_voice(job.prompt, job.prompt_text or None, args.language)}
            with progress_bar(job.id) as progress:
                speech = cloner.clone(
                    job.text, voices[key], seed=args.seed, sampling=sampling, language=args.language, progress=progress
                )
            speech.save(out)
        except UserError as error:
            failed += 1
            print(f"valle: job '{job.id}': {error}", file=sys.stderr)
            continue
        _report(speech, args, str(out))
    if failed:
        raise UserError(f"{failed} of {len(jobs)} jobs failed")
    return 0


def _load(args: argparse.Namespace) -> tuple[VoiceCloner, Sampling]:
    from valle.cloner import VoiceCloner

    cloner = VoiceCloner.from_pretrained(args.model, args.device)
    options = {name: getattr(args, name) for name in ("temperature", "top_k", "top_p")}
    given = {name: value for name, value in options.items() if value is not None}
    return cloner, replace(cloner.bundle.sampling, **given)


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


def _check_prompt(path: str) -> None:
    if not Path(path).is_file():
        raise UserError(f"audio file not found: {path}")


def _report(speech: Speech, args: argparse.Namespace, out: str) -> None:
    if args.json:
        print(
            json.dumps(
                {
                    "out": out,
                    "seconds": round(speech.seconds, 3),
                    "sample_rate": speech.sample_rate,
                    "stop_reason": speech.stop_reason,
                    "real_time_factor": round(speech.real_time_factor, 3),
                    "seed": args.seed,
                    "notes": speech.notes,
                },
                ensure_ascii=False,
            ),
            flush=True,
        )
        return
    for note in speech.notes:
        print(f"note: {note}", file=sys.stderr)
    print(
        f"{out}: {speech.seconds:.1f} s of speech, made in {speech.real_time_factor * speech.seconds:.1f} s "
        f"(real-time factor {speech.real_time_factor:.2f})",
        flush=True,
    )


def _seed(value: str) -> int:
    if not value.isdecimal() or int(value) >= 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**31 - 1}, got {value}")
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
