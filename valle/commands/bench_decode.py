"""`valle bench decode`: how fast speech is made, beside what the memory allows and what no cache would give."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError
from valle.common.files import check_folder
from valle.common.tables import plain_table

if TYPE_CHECKING:
    from valle.bench.decoding import Decoding

SIZES = ("model", "paper", "grouped")
_EPILOG = """examples:
  valle bench decode --batches 1 4 16 --out bench
  valle bench decode --sizes paper --precisions fp32 fp16 int8 --no-cache     # the paper's 12 x 1024, random weights"""


def configure(kinds: Any) -> None:
    """Add the subcommand to `valle bench`."""
    decode = kinds.add_parser(
        "decode",
        help="speed of decoding: tokens/s, latency, memory, share of the memory's limit",
        description="Speed of decoding, beside the limit of the memory and beside decoding without a cache.",
        epilog=_EPILOG,
    )
    decode.set_defaults(run=_run)
    add = decode.add_argument
    add("--model", metavar="M", help="folder or Hugging Face Hub id (default: embedded)")
    add(
        "--sizes",
        nargs="+",
        default=SIZES[:2],
        metavar="S",
        help="'model': its AR model; 'paper': 12 x 1024; 'grouped': that, two frames a step (default: model paper)",
    )
    add("--precisions", nargs="+", default=["fp32", "auto"], metavar="P", help="fp32, bf16, fp16, int8, auto")
    add("--batches", nargs="+", type=int, default=[1, 4, 16], metavar="N", help="texts at once (default: 1 4 16)")
    add("--prompt-seconds", nargs="+", type=float, default=[3.0], metavar="S", help="prompts (default: 3)")
    add("--seconds", type=float, default=10.0, metavar="S", help="speech for each text (default: 10)")
    add("--no-cache", action="store_true", help="also by recomputing everything in every step (slow)")
    add("--cold", action="store_true", help="also 'valle clone' from process start to file, stage by stage")
    add("--threads", type=int, metavar="N", help="of the CPU (default: what suits the model)")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps (default: auto)")
    add("--out", metavar="DIR", help="write decode.json and decode.png there")
    add("--json", action="store_true", help="print results as JSON")


def _run(args: argparse.Namespace) -> int:
    if args.seconds <= 0 or min(args.batches) < 1 or min(args.prompt_seconds) < 0 or (args.threads or 1) < 1:
        raise UserError("--seconds, --batches and --threads must be above 0, --prompt-seconds not below it")
    if unknown := set(args.sizes) - set(SIZES):
        raise UserError(f"--sizes: unknown size '{unknown.pop()}'; known: {', '.join(SIZES)}")
    folder = None if args.out is None else check_folder(args.out)

    import torch

    from valle.bench.cloning import cold_start, measure_cloning
    from valle.common.device import find_device
    from valle.synthesis.cloner import VoiceCloner

    device = find_device(args.device)
    machine = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "torch": torch.__version__,
    }
    result: dict[str, Any] = {"machine": machine}
    rows: list[Decoding] = []
    if args.cold:
        result["cold"] = cold_start(args.model, device.type)
    if "model" in args.sizes:
        cloner = VoiceCloner.from_pretrained(args.model, str(device), threads=args.threads)
        result["cloning"] = asdict(measure_cloning(cloner))
        rows += _measure_all(cloner.bundle.ar, "model", cloner.bundle.codec.spec.frame_rate, args)
    for size, group_size in (("paper", 1), ("grouped", 2)):
        if size in args.sizes:
            from valle.bench.decoding import PAPER_FRAME_RATE, paper_model

            rows += _measure_all(paper_model(device, group_size), size, PAPER_FRAME_RATE, args)
    result["decoding"] = [asdict(row) for row in rows]
    if folder is not None:
        from valle.bench.picture import draw

        (folder / "decode.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        draw(folder / "decode.png", rows)
    print(json.dumps(result, indent=2) if args.json else _report(result, rows))
    return 0


def _measure_all(model: Any, size: str, frame_rate: float, args: argparse.Namespace) -> list[Decoding]:
    from tqdm import tqdm

    from valle.bench.decoding import Case, measure
    from valle.common.device import computing_with, threads_to_speak

    cases = [
        Case(size, precision, batch, prompt, args.seconds)
        for precision in args.precisions
        for prompt in args.prompt_seconds
        for batch in args.batches
    ]
    # Recomputing is slow enough to be measured for one text only.
    with computing_with(args.threads or threads_to_speak(model)):
        return [
            measure(model, case, frame_rate, args.no_cache and case.batch == 1)
            for case in tqdm(cases, desc=size, disable=None, leave=False)
        ]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _report(result: dict[str, Any], rows: list[Decoding]) -> str:
    machine = result["machine"]
    lines = [f"{machine['device']}, torch {machine['torch']}, {machine['date']}"]
    if "cold" in result:
        lines.append("cold start, s: " + ", ".join(f"{name} {took:.2f}" for name, took in result["cold"].items()))
    if "cloning" in result:
        lines.append(
            "loaded model: " + ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in result["cloning"].items())
        )
    head = (
        "size",
        "precision",
        "threads",
        "batch",
        "prompt s",
        "prefill ms",
        "next text",
        "step ms",
        "tokens/s",
        "RTF",
        "of limit",
        "x no cache",
    )
    table = [head]
    for r in rows:
        facts = (r.size, r.precision, str(r.threads), str(r.batch), f"{r.prompt_seconds:g}")
        times = (f"{r.prefill_ms:.1f}", f"{r.next_prefill_ms:.1f}", f"{r.step_ms:.2f}")
        rates = (f"{r.tokens_per_second:.0f}", f"{r.real_time_factor:.3f}", f"{r.share_of_limit:.0%}")
        table.append((*facts, *times, *rates, "" if r.speedup is None else f"{r.speedup:.1f}"))
    return "\n".join([*lines, plain_table(table, ">")])
