"""`valle bench codec`: encode and decode speed of all codecs, side by side in one run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError
from valle.common.tables import plain_table

if TYPE_CHECKING:
    from valle.bench.codecs import CodecSpeed

_EPILOG = """example:
  valle bench codec --threads 1"""


def configure(kinds: Any) -> None:
    """Add the subcommand to `valle bench`."""
    codec = kinds.add_parser(
        "codec",
        help="encode and decode speed of all codecs, at their published sizes",
        description="Encode and decode speed of all codecs, at their published sizes, side by side in one run.",
        epilog=_EPILOG,
    )
    codec.add_argument("--codecs", nargs="+", metavar="C", help="only these (default: all)")
    codec.add_argument("--seconds", type=float, default=5.0, metavar="S", help="length of the audio (default: 5)")
    codec.add_argument("--rounds", type=int, default=3, metavar="N", help="the best of so many (default: 3)")
    codec.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what torch finds best)")
    codec.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda, ... (default: cpu)")
    codec.add_argument("--json", action="store_true", help="print results as JSON")
    codec.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.seconds < 0.2 or args.rounds < 1 or (args.threads or 1) < 1:
        raise UserError("--seconds must be at least 0.2, --rounds and --threads at least 1")

    import torch

    from valle.bench.codecs import PUBLISHED, bench_codecs, speedup
    from valle.common.device import find_device

    if args.threads:
        torch.set_num_threads(args.threads)
    device = str(find_device(args.device))
    speeds = bench_codecs(args.codecs or tuple(PUBLISHED), args.seconds, args.rounds, device)
    threads = torch.get_num_threads()
    faster = speedup(speeds)
    if args.json:
        rows = [_row(s) | {"decode_speedup": faster.get(s.name)} for s in speeds]
        print(json.dumps({"device": device, "threads": threads, "seconds": args.seconds, "codecs": rows}, indent=2))
    else:
        print(f"{device}, {threads} threads, {args.seconds:g} s of audio, best of {args.rounds}")
        print(_table(speeds, faster))
    return 0


def _row(speed: CodecSpeed) -> dict[str, object]:
    row = {name: getattr(speed, name) for name in ("name", "sample_rate", "frame_rate", "n_q")}
    times = {"encode_rtf": speed.encode_rtf, "decode_rtf": speed.decode_rtf}
    return row | times | (asdict(speed.cost) if speed.cost else {})


def _table(speeds: list[CodecSpeed], faster: dict[str, float]) -> str:
    from valle.bench.codecs import YARDSTICK

    head = ("codec", "kHz", "Hz", "n_q", "M par.", "GMAC/s enc", "dec", "RTF enc", "dec", f"x {YARDSTICK}")
    lines = [head]
    for s in speeds:
        cost = ("", "", "")
        if s.cost:
            cost = (
                f"{s.cost.parameters / 1e6:.1f}",
                f"{s.cost.encode_macs / 1e9:.2f}",
                f"{s.cost.decode_macs / 1e9:.2f}",
            )
        facts = (s.name, f"{s.sample_rate / 1000:g}", f"{s.frame_rate:g}", str(s.n_q))
        times = (f"{s.encode_rtf:.4f}", f"{s.decode_rtf:.4f}", f"{faster[s.name]:.1f}" if faster else "")
        lines.append((*facts, *cost, *times))
    return plain_table(lines)
