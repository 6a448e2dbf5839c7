"""`valle bench train`: training speed of a config here, and what it means for large corpora."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError
from valle.common.tables import plain_table

if TYPE_CHECKING:
    from valle.bench.training import TrainSpeed

CORPORA = {"LibriTTS": 585.0, "LibriLight": 60_000.0}
"""Hours of speech."""
_EPILOG = """examples:
  valle bench train --config configs/ar/libritts.yaml --device cuda
  valle bench train --config configs/ar/libritts.yaml --seconds 5 --peak-tflops 312 --mfu 0.35     # an A100, say"""


def configure(kinds: Any) -> None:
    """Add the subcommand to `valle bench`."""
    train = kinds.add_parser(
        "train",
        help="training speed, memory and MFU of a config; hours and memory for large corpora on many GPUs",
        description="Training speed of a config on this device, and what follows for large corpora on many GPUs.",
        epilog=_EPILOG,
    )
    train.set_defaults(run=_run, trains=True)
    add = train.add_argument
    add("--config", "-c", required=True, metavar="YAML", help="config of 'train ar' or 'train nar'")
    add("--tokens", metavar="DIR", help="tokens whose codec and text tokenizer count (default: 75 Hz, 4 x 1024)")
    add(
        "--faster",
        type=float,
        default=20.0,
        metavar="X",
        help="with --tokens: is data there at X times the speed? (20)",
    )
    add("--seconds", type=float, metavar="S", help="speech in a batch (default: as the config says)")
    add("--steps", type=int, default=5, metavar="N", help="steps measured (default: 5)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: what torch finds best)")
    add("--device", default="cpu", metavar="D", help="cpu, cuda, ... (default: cpu)")
    add("--peak-tflops", type=float, metavar="X", help="predict for devices with this speed instead")
    add("--mfu", type=float, metavar="X", help="and with this share of it in use (default: as measured here)")
    add("--gpus", type=int, nargs="+", default=[1, 8, 64], metavar="N", help="numbers of devices (default: 1 8 64)")
    add("--json", action="store_true", help="print results as JSON")


def _run(args: argparse.Namespace) -> int:
    given = [value for value in (args.seconds, args.peak_tflops, args.mfu) if value is not None]
    if args.steps < 1 or min(args.gpus) < 1 or any(value <= 0 for value in given):
        raise UserError("--steps, --gpus, --seconds, --peak-tflops and --mfu must be above 0")

    import torch

    from valle.bench.training import BYTES_PER_WEIGHT, measure
    from valle.common.device import find_device

    if args.threads:
        torch.set_num_threads(args.threads)
    device = str(find_device(args.device))
    kind, settings, values = _read(args.config)
    config, frame_rate = _model(kind, values, args.tokens)
    bf16 = str(settings.get("trainer", {}).get("precision", "")).startswith("bf16")
    full_seconds = float(settings.get("data", {}).get("max_seconds", 160.0))
    recompute = bool(settings.get("model", {}).get("start", {}).get("recompute_activations", False))
    seconds = args.seconds or full_seconds
    speed = measure(kind, config, seconds, frame_rate, device=device, bf16=bf16, recompute=recompute, steps=args.steps)
    achieved = (1e12 * args.peak_tflops if args.peak_tflops else speed.matmul) * (args.mfu or speed.mfu)
    hours = {name: {n: speed.epoch_hours(h, n, achieved) for n in args.gpus} for name, h in CORPORA.items()}
    # What backward needs grows with the batch; the config's batch is what a GPU must hold.
    scale = full_seconds / speed.batch_seconds
    memory = {
        stage: {n: speed.gpu_bytes(n, stage) + (scale - 1) * speed.activation_bytes for n in args.gpus}
        for stage in BYTES_PER_WEIGHT
    }
    wait = None if args.tokens is None else _data_wait(settings, args.tokens, scale * speed.step_seconds / args.faster)
    if args.json:
        measured = asdict(speed) | {"mfu": speed.mfu, "frames_per_second": speed.frames_per_second}
        result = {"config": args.config, "device": device, "threads": torch.get_num_threads(), "bf16": bf16}
        print(
            json.dumps(
                {**result, "measured": measured, "hours_per_epoch": hours, "gpu_bytes": memory, "data_wait": wait},
                indent=2,
            )
        )
    else:
        print(_report(speed, hours, memory, full_seconds, device))
        if wait is not None:
            print(f"\nwaiting for data: {wait:.1%} of the time, if steps were {args.faster:g} times as fast")
    return 0


def _data_wait(settings: dict[str, Any], tokens: str, step_seconds: float) -> float:
    from valle.bench.training import data_wait
    from valle.data.lm_data import LMDataModule

    options = {name: value for name, value in settings.get("data", {}).items() if name != "val_shards"}
    data = LMDataModule(**{**options, "shards": [tokens], "val_fraction": 0.0})
    data.setup()
    return data_wait(data.train_dataloader(), step_seconds, 50)


def _read(path: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Kind, all settings, and those of the model's shape."""
    import yaml

    from valle.commands.train import find_config

    found = find_config(path)
    settings = yaml.safe_load(found.read_text(encoding="utf-8"))
    kind = found.parent.name
    if kind not in ("ar", "nar"):
        raise UserError(f"--config {path}: a config of a language model is wanted, from a folder named ar or nar")
    return kind, settings, dict(settings.get("model", {}).get("config", {}))


def _model(kind: str, values: dict[str, Any], tokens: str | None) -> tuple[Any, float]:
    from valle.data.shards import TokenHeader
    from valle.lm.weights import MODELS
    from valle.training.run import FACTS

    if tokens is not None:
        header = TokenHeader.read(Path(tokens))
        facts = {name: fact(header) for name, fact in FACTS.items()}
        return MODELS[kind].config_class(**{**values, **facts}), header.codec.frame_rate
    facts = {
        "text_vocab_size": 120,
        "codebook_size": 1024,
        "n_q": 4,
        "n_time_invariant": 8,
        "time_invariant_size": 1024,
    }
    return MODELS[kind].config_class(**{**values, **facts, "boundary_ids": (2, 3)}), 75.0


def _report(
    speed: TrainSpeed,
    hours: dict[str, dict[int, float]],
    memory: dict[int, dict[int, float]],
    seconds: float,
    device: str,
) -> str:
    passes = [
        [name, f"{CORPORA[name]:,.0f} h", *(f"{n} x: {h:,.1f}" for n, h in row.items())] for name, row in hours.items()
    ]
    sizes = [
        [f"ZeRO {stage}" if stage else "one / DDP", *(f"{n} x: {size / 1e9:.1f}" for n, size in row.items())]
        for stage, row in memory.items()
    ]
    lines = [
        f"measured on {device}: {speed.parameters / 1e6:.1f} M parameters, {speed.batch_seconds:.0f} s a step",
        f"  {speed.step_seconds:.3f} s a step, {speed.frames_per_second:,.0f} frames/s, {speed.realtime:,.1f} x time",
        f"  {speed.achieved / 1e12:.3f} TFLOP/s, MFU {speed.mfu:.0%} of {speed.matmul / 1e12:.3f} TFLOP/s",
        f"  peak memory {speed.peak_bytes / 1e9:.2f} GB, of which backward needs {speed.activation_bytes / 1e9:.2f} GB",
        "",
        "predicted hours for one pass, by number of devices",
        indent(plain_table(passes, "<>"), "  "),
        "",
        f"predicted GB of a GPU with {seconds:g} s of speech a step, by number of GPUs",
        indent(plain_table(sizes, "<>"), "  "),
    ]
    return "\n".join(lines)
