"""`valle import`: codecs that others have trained, as codec folders."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from valle import __version__
from valle.common.files import check_folder

if TYPE_CHECKING:
    from valle.tokenizers.codecs.base import SpeechCodec

_EPILOG = """examples:
  valle import ticodec ticodec_1g2r config_24k_320d_conv_1g2r_8g3k1s.json codecs/ticodec
  valle import encodec codecs/encodec --bandwidth 6
  valle import hf kyutai/mimi codecs/mimi --n-q 8
  valle codec reconstruct in.wav out.wav --model codecs/ticodec"""
_RELEASED = {"hificodec": "HiFi-Codec", "ticodec": "TiCodec"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.epilog = _EPILOG
    kinds = parser.add_subparsers(dest="kind", metavar="CODEC", required=True)
    for kind, title in _RELEASED.items():
        summary = f"{title}, from the files that its authors release"
        released = kinds.add_parser(kind, help=summary, description=f"Import {summary}.", epilog=_EPILOG)
        released.add_argument("checkpoint", metavar="CHECKPOINT", help="file of weights")
        released.add_argument("config", metavar="CONFIG", help="its configuration (.json)")
    encodec = kinds.add_parser(
        "encodec", help="EnCodec for 24 kHz", description="Import EnCodec for 24 kHz.", epilog=_EPILOG
    )
    encodec.add_argument(
        "--bandwidth", type=float, default=6.0, metavar="K", help="kbit/s: 1.5, 3, 6, 12 or 24 (default: 6)"
    )
    encodec.add_argument("--weights", metavar="FILE", help="file of weights (default: torch.hub's cache, or download)")
    summary = "an audio tokenizer of transformers: Mimi, DAC, EnCodec, X-Codec …"
    hf = kinds.add_parser("hf", help=summary, description=f"Import {summary}.", epilog=_EPILOG)
    hf.add_argument("name", metavar="NAME", help="its folder, or its id on the Hugging Face Hub")
    hf.add_argument("--n-q", type=int, metavar="N", help="use the first N quantizers (default: all)")
    for command in kinds.choices.values():
        command.add_argument("out", metavar="OUT", help="codec folder to write")


def run(args: argparse.Namespace) -> int:
    """Write the codec folder."""
    check_folder(args.out)

    from valle.tokenizers.codecs.registry import save_codec

    codec, source = _read(args)
    about = {"made_with": f"valle {__version__}", "date": date.today().isoformat(), "imported_from": source}
    save_codec(codec, args.out, about)
    spec = codec.spec
    voice = f", {spec.n_time_invariant} time-invariant codes" if spec.n_time_invariant else ""
    print(
        f"wrote {args.out}: {spec.name}, {spec.sample_rate} Hz, {spec.frame_rate:g} frames/s, {spec.n_q} codes{voice}"
    )
    return 0


def _read(args: argparse.Namespace) -> tuple[SpeechCodec, str]:
    """The codec and where it came from."""
    if args.kind == "encodec":
        from valle.tokenizers.codecs.encodec import WEIGHTS_URL, Encodec

        return Encodec.pretrained(args.bandwidth, args.weights), Path(args.weights or WEIGHTS_URL).name
    if args.kind == "hf":
        from valle.tokenizers.codecs.hf import HuggingFaceCodec

        return HuggingFaceCodec.pretrained(args.name, args.n_q), args.name
    from valle.tokenizers.codecs.released import read_released

    return read_released(args.kind, args.checkpoint, args.config), Path(args.checkpoint).name
