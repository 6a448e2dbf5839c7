"""`valle clone`: speak with the voice of a recording, once or for a list of jobs."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError
from valle.common.files import check_folder, check_writable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from valle.synthesis.cloner import VoiceCloner
    from valle.synthesis.options import SynthesisOptions
    from valle.synthesis.prompt import Voice
    from valle.synthesis.result import Outcome, SpeechChunk

FAULTY = 3
"""Exit code of `--strict` where a sentence is faulty."""
STREAM_FORMATS = ("raw", "wav", "mp3", "opus", "aac", "flac")

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
    add("--voice", metavar="NAME", help="instead: [DIR/]name or id of a voice of 'valle serve', or file of Voice.save")
    add("--text", help="what to say")
    add("--text-file", metavar="FILE", help="read it from a file ('-': standard input)")
    add("--out", metavar="AUDIO", help="file to write: .wav, .flac, .ogg, .mp3, .opus")
    add("--stream", action="store_true", help="to standard output, at once")
    add("--stream-format", choices=STREAM_FORMATS, metavar="F", help="raw 16-bit samples (default), wav, mp3, opus, …")
    add("--jobs", metavar="TSV", help="many at once: table of id prompt prompt_text text")
    add("--out-dir", metavar="DIR", help="folder for the results of --jobs, DIR/<id>.wav")
    add("--language", default="en-us", metavar="CODE", help="of the text: de, fr-fr, cmn, … (default: en-us)")
    add("--any-language", action="store_true", help="let a model try what it was not trained to speak")
    add("--seed", type=_seed, default=0, metavar="N", help="another seed, another reading (default: 0)")
    add("--temperature", type=float, metavar="X", help="liveliness; lower is safer")
    add("--top-k", type=int, metavar="N", help="choose among the N likeliest codes")
    add("--top-p", type=float, metavar="P", help="choose among codes of this total probability")
    add("--ras-window", type=int, metavar="N", help="frames of repetition-aware sampling; 0: off")
    add("--loudness", type=_loudness, metavar="LUFS", help="of the speech, -40 to -10 (default: that of the prompt)")
    add("--strict", action="store_true", help="exit code 3 where a sentence is faulty")
    add("--retry-faulty", action="store_true", help="speak only the faulty sentences of --out again")
    add("--retries", type=int, default=2, metavar="N", help="more tries of what went wrong (default: 2)")
    add("--n-best", type=int, metavar="N", help="keep the best of N (default: 4; with --stream 1)")
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
    for option in ("out", "plot", "json", "retry_faulty"):
        if args.stream and getattr(args, option):
            name = option.replace("_", "-")
            raise UserError(f"--{name} does not go with --stream, which writes to standard output")
    if args.stream_format and not args.stream:
        raise UserError("--stream-format belongs to --stream; the format of --out is that of its name")
    text = _text(args)
    make_voice = _voice(args)
    if args.out is not None:
        from valle.common.audio import AUDIO_SUFFIXES

        check_writable(args.out, AUDIO_SUFFIXES)
    if args.plot is not None:
        check_writable(args.plot, (".png",))

    cloner, options = _load(args)
    voice = make_voice(cloner)
    if args.stream:
        return _stream(cloner.stream(text, voice, options=options), args, cloner.sample_rate)
    outcome, wav = _write(args, cloner, text, voice, options)
    if args.plot is not None:
        from valle.common.plot import plot_pair

        plot_pair(args.plot, voice.prompt.wav, wav, cloner.sample_rate, text[:200])
    _report(outcome, args, args.out, cloner.sample_rate)
    return _strictly(outcome, args)


def _write(
    args: argparse.Namespace, cloner: VoiceCloner, text: str, voice: Voice, options: SynthesisOptions
) -> tuple[Outcome, Tensor]:
    """Speak into the file `--out`, from where a stopped command left it; gives what `--plot` draws, [S], too."""
    import torch

    from valle.synthesis.spoken_file import Pieces, SpokenFile

    pieces = Pieces.read(Path(args.out), _made_with(args, text, voice, options), args.retry_faulty)
    drawn = [torch.zeros(0)]
    with progress_bar("speaking") as progress:
        known = pieces.spoken.copy()
        chunks = cloner.sentences(text, voice, options, progress=progress, known=known, retry_faulty=args.retry_faulty)
        with SpokenFile(Path(args.out), cloner.sample_rate, pieces) as file:
            try:
                for chunk in chunks:
                    file.add(chunk.wav, chunk.piece)
                    drawn += [chunk.wav] if args.plot else []
            except KeyboardInterrupt:
                if pieces.spoken:
                    note = f"{args.out} holds the first {file.seconds:.1f} s; the same command goes on from there"
                    print(f"note: {note}", file=sys.stderr)
                raise
    assert chunk.outcome is not None
    pieces.complete()
    return chunk.outcome, torch.cat(drawn)


def _made_with(args: argparse.Namespace, text: str, voice: Voice, options: SynthesisOptions) -> dict[str, Any]:
    """What decides how a text is spoken: the same for the command that goes on with it."""
    from valle.eval.results import hash_model

    tensors = (t for t in (voice.codes, voice.time_invariant, voice.phonemes, voice.durations) if t is not None)
    return {
        "text": _hash(text.encode(errors="surrogatepass")),
        "prompt": _hash(*(tensor.contiguous().numpy().tobytes() for tensor in tensors)),
        "model": hash_model(args.model),
        "precision": args.precision,
        "language": options.language,
        "seed": options.seed,
        "n-best": options.count(stream=False),
        "best-by": args.best_by,
        "retries": options.retries,
        "sampling": asdict(options.sampling) if options.sampling else None,
    }


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _strictly(outcome: Outcome, args: argparse.Namespace) -> int:
    """The exit code of what was spoken."""
    if not (args.strict and outcome.faulty):
        return 0
    print(f"valle: {len(outcome.faulty)} of {len(outcome.pieces)} sentences are faulty", file=sys.stderr)
    return FAULTY


def _stream(chunks: Iterator[SpeechChunk], args: argparse.Namespace, sample_rate: int) -> int:
    """Audio to standard output; what there is to say of it to standard error."""
    encode, end = _encoder(args.stream_format or "raw", sample_rate)
    code = 0
    for chunk in chunks:
        sys.stdout.buffer.write(encode(chunk.wav.numpy()))
        sys.stdout.buffer.flush()
        if chunk.outcome is not None:
            sys.stdout.buffer.write(end())
            sys.stdout.buffer.flush()
            code = _strictly(chunk.outcome, args)
            _notes(chunk.outcome)
            print(
                f"{chunk.outcome.seconds:.1f} s of speech at {chunk.sample_rate} Hz, first audio after "
                f"{chunk.outcome.first_chunk_seconds:.2f} s, real-time factor {chunk.outcome.real_time_factor:.2f}",
                file=sys.stderr,
            )
    return code


def _encoder(name: str, sample_rate: int) -> tuple[Callable[[np.ndarray], bytes], Callable[[], bytes]]:
    """What makes bytes of float samples [S], and what gives the last of them."""
    if name == "raw":
        return lambda samples: (samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes(), bytes
    # As the server does it, and at its rate.
    from valle.serve.encoding import audio_encoder
    from valle.serve.postprocess import Finisher, Finishing

    finisher, encoder = Finisher(sample_rate, Finishing()), audio_encoder(name)
    return lambda samples: encoder.add(finisher.add(samples)), lambda: encoder.add(finisher.end()) + encoder.end()


def _run_jobs(args: argparse.Namespace) -> int:
    """All jobs; one that fails is reported and does not stop the others."""
    for option in ("prompt", "prompt_text", "voice", "text", "text_file", "out", "plot", "retry_faulty"):
        if getattr(args, option) not in (None, False):
            raise UserError(f"--{option.replace('_', '-')} does not go with --jobs: the table says it for each job")
    if args.stream:
        raise UserError("--stream does not go with --jobs, which writes files")
    if args.out_dir is None:
        raise UserError("--jobs needs --out-dir DIR to know where to write")
    from valle.synthesis.batch import read_jobs, speak_jobs

    jobs = read_jobs(args.jobs)
    folder = check_folder(args.out_dir)
    cloner, options = _load(args)
    failed = faulty = 0
    with progress_bar("jobs") as progress:
        spoken = speak_jobs(cloner, jobs, options, loudness=args.loudness)
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
            faulty += bool(_strictly(speech, args))
    if failed:
        raise UserError(f"{failed} of {len(jobs)} jobs failed")
    return FAULTY if faulty else 0


def _load(args: argparse.Namespace) -> tuple[VoiceCloner, SynthesisOptions]:
    from valle.synthesis.cloner import VoiceCloner
    from valle.synthesis.options import SynthesisOptions

    options = SynthesisOptions(args.seed, args.language, candidates=args.n_best, retries=args.retries)
    if options.count(args.stream) > 1 and args.best_by != "own":
        from valle.eval.judges.judging import build_scorer

        options = replace(options, scorer=build_scorer(args.best_by))
    cloner = VoiceCloner.from_pretrained(args.model, args.device, args.precision, args.threads, args.any_language)
    settings = {name: getattr(args, name) for name in ("temperature", "top_k", "top_p", "ras_window")}
    given = {name: value for name, value in settings.items() if value is not None}
    return cloner, replace(options, sampling=replace(cloner.bundle.sampling, **given))


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


def _voice(args: argparse.Namespace) -> Callable[[VoiceCloner], Voice]:
    """What makes the voice once there is a model; what is wrong with the options is said now."""
    if args.voice is None:
        if args.prompt is None:
            raise UserError("--prompt is missing, or --voice instead (see 'valle clone --help')")
        if not Path(args.prompt).is_file():
            raise UserError(f"audio file not found: {args.prompt}")
        return lambda cloner: cloner.make_voice(args.prompt, args.prompt_text, args.language, args.loudness)
    if args.prompt is not None or args.prompt_text is not None:
        raise UserError("--voice brings its recording and what is said in it: leave out --prompt and --prompt-text")
    from valle.synthesis.prompt import Voice
    from valle.synthesis.voice_store import VoiceStore

    path = Path(args.voice)
    if path.is_file():
        voice = Voice.load(path)
        return lambda cloner: replace(voice, loudness=args.loudness or voice.loudness)
    stored = VoiceStore(path.parent if "/" in args.voice else None).find(path.name)
    recording, said, language = stored.recording, stored.transcript, stored.language
    return lambda cloner: cloner.make_voice(recording, said, language, args.loudness)


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
            "faulty": outcome.faulty,
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


def _loudness(value: str) -> float:
    try:
        if -40 <= (lufs := float(value)) <= -10:
            return lufs
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be -40 to -10 LUFS, such as -16, got {value}")


def _threads(value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= 1024:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1024, got {value}")
    return int(value)


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, on terminals only; gives the function that moves it to a share, 0 to 1."""
    from tqdm import tqdm

    with tqdm(
        total=1.0,
        desc=name,
        disable=None,
        leave=False,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left",
    ) as bar:

        def move(share: float) -> None:
            bar.update(share - bar.n)

        yield move
