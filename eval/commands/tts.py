"""The commands `valle eval tts`, `jobs`, `variants` and `ceilings`: how well a model clones voices."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError
from valle.common.tables import plain_table

if TYPE_CHECKING:
    from valle.common.device import Place
    from valle.eval.judges.judging import JudgeNames
    from valle.eval.protocols import TrialList
    from valle.eval.run import Manner
    from valle.eval.run_folder import TTSReport

_TTS_EXAMPLE = """examples:
  valle eval tts --list plain100 --naturalness dnsmos --jobs 2 --out results/embedded
  valle eval jobs --list plain100 --out jobs     # for another system: let it write wavs/<id>.wav, then
  valle eval tts --list plain100 --wavs wavs --out results/other

LIST is plain50, plain100 or ends50 (shipped); a table of trials (id prompt text, and prompt_text speaker reference if
known) or of recordings (id path speaker text); a meta.lst of Seed-TTS-eval; a folder of LibriSpeech or LibriTTS.
A run that was stopped goes on when started again with the same --out. Several machines that share a disk each take
--part 1/4, --part 2/4, ...; 'auto' is their number under torchrun, SLURM and the like."""
MEASURES = [
    ["bare", "ras_window=0", "retries=0", "n_best=1"],
    ["ras", "ras_window=10", "retries=0", "n_best=1"],
    ["retries", "ras_window=10", "n_best=1"],
    ["best", "ras_window=10", "n_best=4"],
]
"""What each measure against skips and repeats is worth, one more in each."""
_VARIANTS_EXAMPLE = """examples:
  valle eval variants --list plain100 --jobs 2 --out results/measures
  valle eval variants --variant fp32 precision=fp32 --variant int8 precision=int8 --out results/precision

Settings are those of 'valle clone' (retries n_best best_by precision) and the model's sampling (ras_window temperature
top_p ...). Without --variant: bare; with repetition-aware sampling; with retries, too; with the best of four takes.
One that was stopped goes on when started again with the same --out."""
_CEILINGS_EXAMPLE = """examples:
  valle eval ceilings --recogniser faster-whisper --recogniser-model DIR --naturalness dnsmos --out results/ceilings
  valle eval ceilings --list clean.tsv --no-clone     # columns: id path speaker text; two of each speaker or more"""


def add_tts_commands(subparsers: Any) -> None:
    """Add `tts`, `jobs`, `variants` and `ceilings` to the subcommands of `valle eval`."""
    tts = subparsers.add_parser(
        "tts",
        help="how well a model clones voices: word errors, likeness, naturalness",
        description="Let a model say texts in the voices of a list and judge the result.",
        epilog=_TTS_EXAMPLE,
    )
    _add_run_options(tts)
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
    _add_variants(subparsers)
    _add_ceilings(subparsers)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of an evaluation: what is said, by which model, who judges, where it is computed."""
    _add_list(parser)
    add = parser.add_argument
    add("--model", metavar="M", help="model folder or Hub id (default: the embedded model)")
    add("--no-prompt-text", action="store_true", help="do not give the model the prompts' transcripts")
    _add_judge_options(parser)
    add("--seed", type=int, default=0, help="of synthesis and intervals (default: 0)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("--jobs", type=int, default=1, metavar="N", help="processes; with cuda, one for each GPU (default: 1)")
    add("--threads", type=int, default=1, metavar="N", help="of each process (default: 1); part of the result")
    add("--json", action="store_true", help="print results as JSON")


def _add_judge_options(parser: argparse.ArgumentParser) -> None:
    """The options that say who judges: `_judge_names` reads them."""
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


def _judge_names(args: argparse.Namespace) -> JudgeNames:
    """The judges of the options of `_add_judge_options`."""
    from valle.eval.judges.judging import JudgeNames

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
    from valle.eval.protocols import open_list

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
    from valle.common.device import parse_part
    from valle.common.files import check_folder
    from valle.eval.run import Manner

    place, manner = parse_part(args.part), Manner.parse(args.speak)
    if args.speak and args.wavs:
        raise UserError("--speak is for a model, not for --wavs")
    if place.parts > 1 and not args.out:
        raise UserError("--part needs --out DIR, a folder that all parts share")
    if not args.out:
        with tempfile.TemporaryDirectory() as folder:
            return _show(args, _evaluate(args, Path(folder), place, manner), place)
    check_folder(args.out)
    return _show(args, _evaluate(args, args.out, place, manner), place)


def _evaluate(
    args: argparse.Namespace, folder: Path, place: Place, manner: Manner
) -> tuple[TTSReport, dict[str, Any]] | None:
    """The report, and what it depends on, of the options of `_add_run_options`; None where other parts are to do."""
    from valle.common.device import find_device
    from valle.eval.run import Plan, evaluate_tts, identity

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
        judges=_judge_names(args),
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
    report.write(folder, config, args.seed)
    return report, config


def _show(args: argparse.Namespace, found: tuple[TTSReport, dict[str, Any]] | None, place: Place) -> int:
    if found is None:
        print(f"part {place.part + 1} of {place.parts} is done; the last one writes the results", file=sys.stderr)
        return 0
    report, config = found
    print(json.dumps(report.results(config, args.seed), indent=2) if args.json else describe_tts(report))
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
    voices = len({row.texts["speaker"] for row in report.rows})
    rows: list[tuple[object, ...]] = [("", "outputs", "real recordings")]
    for label, name, real in _LINES:
        if name in report.metrics:
            rows.append((label, report.metrics[name], report.context.get(real or "", "")))
    if report.real_time_factor == report.real_time_factor:
        rows.append(("real-time factor", f"{report.real_time_factor:.3f}", ""))
    return f"{len(report.rows)} texts, {voices} voices; value [95 % interval]\n{plain_table(rows)}"


def _add_variants(subparsers: Any) -> None:
    variants = subparsers.add_parser(
        "variants",
        help="one model speaking in several ways, compared text by text",
        description="Evaluate a model once for each way of speaking, as 'valle eval tts' does, and compare.",
        epilog=_VARIANTS_EXAMPLE,
    )
    variants.usage = "valle eval variants [--variant NAME SETTING=VALUE ...] ... --out DIR [options]"
    _add_run_options(variants)
    add = variants.add_argument
    add("--variant", nargs="+", action="append", metavar="V", help="its name and settings; the first is the yardstick")
    add("--out", type=Path, required=True, metavar="DIR", help="keep each one's results in DIR/NAME")
    variants.set_defaults(run=_run_variants, wavs=None)


def _run_variants(args: argparse.Namespace) -> int:
    from valle.common.device import parse_part
    from valle.common.files import check_folder
    from valle.eval.compare import compare, table
    from valle.eval.results import load_systems
    from valle.eval.run import Manner

    variants = {name: Manner.parse(settings) for name, *settings in args.variant or MEASURES}
    if len(variants) < max(2, len(args.variant or [])) or any(Path(name).name != name for name in variants):
        raise UserError("--variant: give two or more, with names of their own that can be names of folders")
    for name, manner in variants.items():
        check_folder(args.out / name)
        _evaluate(args, args.out / name, parse_part("1/1"), manner)
    systems = load_systems([args.out / name for name in variants])
    found = compare(systems, args.seed)
    print(json.dumps([c.to_dict() for c in found], indent=2) if args.json else table(found, systems[0].name))
    return 0


def _add_ceilings(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "ceilings",
        help="which stage of a model loses words, voice and naturalness",
        description="Hear the same sentences after each stage of a model, from the recording to the clone.",
        epilog=_CEILINGS_EXAMPLE,
    )
    parser.usage = "valle eval ceilings [--list TSV] [--model M] [options]"
    add = parser.add_argument
    add("--list", type=Path, metavar="TSV", help="recordings: id path speaker text (default: shipped)")
    add("--model", metavar="M", help="model folder or Hub id (default: the embedded model)")
    add("--first", type=int, metavar="N", help="only the first N recordings of each speaker (default: all)")
    add("--no-clone", action="store_true", help="leave out the last stage, which takes the longest")
    _add_judge_options(parser)
    add("--seed", type=int, default=0, help="of synthesis and intervals (default: 0)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("--out", type=Path, metavar="DIR", help="write results.json and utterances.tsv here")
    add("--json", action="store_true", help="print results as JSON")
    parser.set_defaults(run=_run_ceilings)


def _run_ceilings(args: argparse.Namespace) -> int:
    from valle.common.device import find_device
    from valle.common.files import check_folder
    from valle.eval.ceilings import evaluate_ceilings, stage_figures, stage_table
    from valle.eval.judges.judging import Judges
    from valle.eval.protocols import RECORDINGS, Recording, read_list
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
    names, device = _judge_names(args), str(find_device(args.device))
    judges = Judges.build(names, device)
    cloner = VoiceCloner.from_pretrained(args.model, device)
    rows = list(evaluate_ceilings(cloner, recordings, judges, not args.no_clone, args.seed))
    figures = stage_figures(rows, args.seed)
    stages = {stage: {name: figure.to_dict() for name, figure in of.items()} for stage, of in figures.items()}
    config = {"model": args.model or "embedded", "list": str(args.list or RECORDINGS.name), **vars(names)}
    results = results_head("ceilings", config, args.seed, len(rows)) | {"stages": stages}
    print(json.dumps(results, indent=2) if args.json else stage_table(figures))
    if args.out:
        write_results(args.out, results, rows)
        print(f"wrote {args.out / 'results.json'} and {args.out / 'utterances.tsv'}", file=sys.stderr)
    return 0
