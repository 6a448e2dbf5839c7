"""The commands `valle eval tts` and `valle eval jobs`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError
from valle.common.tables import plain_table

if TYPE_CHECKING:
    from valle.common.distributed import Place
    from valle.eval.judging import JudgeNames
    from valle.eval.manner import Manner
    from valle.eval.trial_lists import TrialList
    from valle.eval.tts_scores import TTSReport

_TTS_EXAMPLE = """examples:
  valle eval tts --list plain100 --naturalness dnsmos --jobs 2 --out results/embedded
  valle eval jobs --list plain100 --out jobs     # for another system: let it write wavs/<id>.wav, then
  valle eval tts --list plain100 --wavs wavs --out results/other

LIST is plain50, plain100 or ends50 (shipped); a table of trials (id prompt text, and prompt_text speaker reference if
known) or of recordings (id path speaker text); a meta.lst of Seed-TTS-eval; a folder of LibriSpeech or LibriTTS.
A run that was stopped goes on when started again with the same --out. Several machines that share a disk each take
--part 1/4, --part 2/4, ...; 'auto' is their number under torchrun, SLURM and the like."""


def add_tts_commands(subparsers: Any) -> None:
    """Add `tts` and `jobs` to the subcommands of `valle eval`."""
    tts = subparsers.add_parser(
        "tts",
        help="how well a model clones voices: word errors, likeness, naturalness",
        description="Let a model say texts in the voices of a list and judge the result.",
        epilog=_TTS_EXAMPLE,
    )
    add_run_options(tts)
    tts.usage = "valle eval tts [--list LIST] [--model M | --wavs DIR] [options]"
    add = tts.add_argument
    add("--wavs", type=Path, metavar="DIR", help="judge another system's DIR/<id>.wav instead of a model")
    add("--speak", nargs="+", default=[], metavar="S", help="NAME=VALUE: retries n_best precision temperature ...")
    add("--part", default="1/1", metavar="I/N", help="do the I-th of N parts of the work, or 'auto'")
    add("--out", type=Path, metavar="DIR", help="keep results, audio and all in between here")
    tts.set_defaults(run=_run_tts)

    jobs = subparsers.add_parser(
        "jobs",
        help="write down what a list wants said, for other systems",
        description="Write DIR/jobs.tsv (id prompt prompt_text text) and the prompts: input of 'valle clone --jobs'.",
        epilog="example:\n  valle eval jobs --list plain100 --out jobs",
    )
    _add_list(jobs)
    jobs.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for jobs.tsv and prompts/")
    jobs.set_defaults(run=_run_jobs)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of an evaluation: what is said, by which model, who judges, where it is computed."""
    _add_list(parser)
    add = parser.add_argument
    add("--model", metavar="M", help="model folder or Hub id (default: the embedded model)")
    add("--no-prompt-text", action="store_true", help="do not give the model the prompts' transcripts")
    add_judge_options(parser)
    add("--seed", type=int, default=0, help="of synthesis and intervals (default: 0)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("--jobs", type=int, default=1, metavar="N", help="processes; with cuda, one for each GPU (default: 1)")
    add("--threads", type=int, default=1, metavar="N", help="of each process (default: 1); part of the result")
    add("--json", action="store_true", help="print results as JSON")


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    """The options that say who judges: `judge_names` reads them."""
    add = parser.add_argument
    add(
        "--recogniser",
        default="pocketsphinx",
        metavar="R",
        help="pocketsphinx (default), faster-whisper, hubert, whisper-SIZE",
    )
    add("--recogniser-model", metavar="M", help="folder or Hub id of its weights")
    add("--speaker-model", default="resemblyzer", metavar="S", help="resemblyzer (default) or wavlm")
    add("--speaker-weights", metavar="M", help="folder or Hub id of its weights")
    add("--naturalness", nargs="+", default=[], metavar="N", help="of dnsmos utmos=FILE nisqa=FILE (default: none)")
    add("--no-reading", action="store_true", help="do not look for skipped and repeated words (English only)")


def judge_names(args: argparse.Namespace) -> JudgeNames:
    """The judges of the options of `add_judge_options`."""
    from valle.eval.judging import JudgeNames

    return JudgeNames(
        args.recogniser,
        args.recogniser_model,
        args.speaker_model,
        args.speaker_weights,
        tuple(args.naturalness),
        not args.no_reading,
    )


def _add_list(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--list", default="plain50", metavar="LIST", help="what is said, by whom: see below (default: plain50)")
    add("--protocol", metavar="P", help="sentences, cross-sentence or continuation (recordings)")
    add("--sentences", type=Path, metavar="FILE", help="one a line, for the protocol 'sentences'")
    add("--sample", type=int, metavar="N", help="draw N of the texts at random (default: all)")
    add("--sample-seed", type=int, default=0, metavar="N", help="of the drawing (default: 0)")


def _open_list(args: argparse.Namespace) -> TrialList:
    from valle.eval.trial_lists import open_list

    return open_list(args.list, args.protocol, args.sentences, args.sample, args.sample_seed)


def _run_jobs(args: argparse.Namespace) -> int:
    from valle.common.files import check_folder
    from valle.eval.results import write_table

    check_folder(args.out)
    trials = _open_list(args).trials
    paths = {trial.prompt_id: trial.prompt for trial in trials}
    saved = {id_: clip.save(args.out / "prompts", id_).relative_to(args.out) for id_, clip in paths.items()}
    rows = [
        {"id": t.id, "prompt": saved[t.prompt_id], "prompt_text": t.prompt_text or "", "text": t.text} for t in trials
    ]
    write_table(args.out / "jobs.tsv", rows)
    print(f"wrote {args.out / 'jobs.tsv'}: {len(rows)} texts, {len(saved)} prompts", file=sys.stderr)
    return 0


def _run_tts(args: argparse.Namespace) -> int:
    from valle.common.distributed import parse_part
    from valle.common.files import check_folder
    from valle.eval.manner import Manner

    place, manner = parse_part(args.part), Manner.parse(args.speak)
    if args.speak and args.wavs:
        raise UserError("--speak is for a model, not for --wavs")
    if place.parts > 1 and not args.out:
        raise UserError("--part needs --out DIR, a folder that all parts share")
    if not args.out:
        with tempfile.TemporaryDirectory() as folder:
            return _show(args, evaluate(args, Path(folder), place, manner), place)
    check_folder(args.out)
    return _show(args, evaluate(args, args.out, place, manner), place)


def evaluate(
    args: argparse.Namespace, folder: Path, place: Place, manner: Manner
) -> tuple[TTSReport, dict[str, Any]] | None:
    """The report, and what it depends on, of the options of `add_run_options`; None where other parts are to do."""
    from valle.common.device import find_device
    from valle.eval.tts import Plan, evaluate_tts, identity
    from valle.eval.tts_results import write_tts_results

    for option in ("jobs", "threads"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option} must be 1 or more, got {getattr(args, option)}")
    device = place.device(str(find_device(args.device)))
    listed = _open_list(args)
    plan = Plan(
        trials=listed.trials,
        recordings=listed.recordings,
        model=args.model,
        manner=manner,
        wavs=args.wavs,
        use_prompt_text=not args.no_prompt_text,
        judges=judge_names(args),
        seed=args.seed,
        device=device,
        threads=args.threads,
    )
    report = evaluate_tts(plan, folder, jobs=args.jobs, part=place.part, parts=place.parts)
    if report is None:
        return None
    config = {
        "list": Path(args.list).name,
        "protocol": args.protocol,
        "sample": args.sample,
        "sample_seed": args.sample_seed,
        **identity(plan),
    }
    write_tts_results(folder, report, config, args.seed)
    return report, config


def _show(args: argparse.Namespace, found: tuple[TTSReport, dict[str, Any]] | None, place: Place) -> int:
    from valle.eval.tts_results import tts_results

    if found is None:
        print(f"part {place.part + 1} of {place.parts} is done; the last one writes the results", file=sys.stderr)
        return 0
    report, config = found
    print(json.dumps(tts_results(report, config, args.seed), indent=2) if args.json else describe_tts(report))
    if args.out:
        print(
            f"wrote {args.out / 'results.json'}; look at it: valle eval report {args.out} --out report.html",
            file=sys.stderr,
        )
    return 0


_LINES = (
    ("word error rate", "wer", "recordings_wer"),
    ("character error rate", "cer", "recordings_cer"),
    ("texts with a skipped word", "skips", "recordings_skips"),
    ("texts with a repeated word", "repeats", "recordings_repeats"),
    ("texts with either", "misread", "recordings_misread"),
    ("similarity to the prompt", "sim", "same_speaker"),
    ("  to the resynthesised prompt", "sim_resynthesised", None),
    ("  to the other prompts", "sim_others", "different_speakers"),
    ("  to the real recording", "sim_reference", None),
    ("predicted quality (DNSMOS)", "dnsmos", "recordings_dnsmos"),
    ("predicted quality (UTMOS)", "utmos", "recordings_utmos"),
    ("predicted quality (NISQA)", "nisqa", "recordings_nisqa"),
)


def describe_tts(report: TTSReport) -> str:
    """The figures as text for a terminal."""
    voices = len({row.trial.speaker for row in report.rows})
    rows: list[tuple[object, ...]] = [("", "outputs", "real recordings")]
    for label, name, real in _LINES:
        if name in report.metrics:
            rows.append((label, report.metrics[name], report.context.get(real or "", "")))
    if report.real_time_factor == report.real_time_factor:
        rows.append(("real-time factor", f"{report.real_time_factor:.3f}", ""))
    return f"{len(report.rows)} texts, {voices} voices; value [95 % interval]\n{plain_table(rows)}"
