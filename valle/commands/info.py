"""`valle info`: what a file or folder of this program holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError
from valle.common.tables import plain_table

if TYPE_CHECKING:
    from torch import nn

    from valle.tokenizers.codecs.base import SpeechCodec

_EPILOG = """examples:
  valle info                # the embedded model
  valle info runs/ar --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.epilog = _EPILOG
    parser.add_argument("path", nargs="?", metavar="PATH", help="default: the embedded model; a Hub id is fine, too")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    facts = describe(args.path)
    if args.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print(plain_table(_flat(facts)))
    return 0


def describe(path: str | None) -> dict[str, Any]:
    """Facts about a model, codec, token, run or code path. Raises `UserError` for anything else."""
    from valle.common.hub import find_model

    place = find_model(path)
    if place.is_dir():
        if (place / "config.json").is_file():
            return _codec_or_model(place)
        if (place / "header.json").is_file():
            return _tokens(place)
        if any(place.glob("step=*.ckpt")):
            return _checkpoint(place)
    elif place.suffix == ".ckpt":
        return _checkpoint(place)
    elif place.is_file():
        return _codes(place)
    raise UserError(f"{place} is no model, codec, token folder, run, checkpoint or code file of valle")


def _codec_or_model(folder: Path) -> dict[str, Any]:
    from valle.tokenizers.codecs.registry import load_codec

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "model" not in config:
        codec = load_codec(folder)
        return {"kind": "codec", **_codec_facts(codec), "provenance": config["provenance"]}

    from valle.lm import FlowModel
    from valle.synthesis.model import Bundle

    bundle = Bundle.load(folder)
    facts: dict[str, Any] = {"kind": "model", "path": str(folder), "codec": _codec_facts(bundle.codec)}
    for name, model in (("ar", bundle.ar), ("nar", bundle.refiner)):
        if model is not None:
            name = "flow" if isinstance(model, FlowModel) else name
            shape = {key: getattr(model.config, key) for key in ("aligned", "layers", "dim", "heads")}
            facts[name] = {**shape, "parameters": _parameters(model)}
    facts["text_tokenizer"] = {"kind": config["model"]["text_tokenizer"]["kind"], "symbols": len(bundle.text.vocab)}
    facts["languages"] = bundle.languages
    facts["ends"] = bundle.ends
    facts["aligner"] = bundle.aligner is not None
    return {**facts, "sampling": config["model"]["sampling"], "provenance": bundle.provenance}


def _tokens(folder: Path) -> dict[str, Any]:
    from valle.data.shards import TokenHeader

    header = TokenHeader.read(folder)
    return {
        "kind": "tokens",
        "utterances": header.utterances,
        "shards": header.shards,
        "codec": {**header.codec.to_dict(), "hash": header.codec_hash},
        "text_tokenizer": {"kind": header.text_tokenizer["kind"], "hash": header.text_tokenizer_hash},
        "aligner": header.aligner_hash,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from valle.training.checkpoints import find_checkpoint, load_checkpoint

    checkpoint = load_checkpoint(path)
    origin = checkpoint.get("valle")
    if origin is None:
        raise UserError(f"{path} is no checkpoint of 'valle train'")
    facts = {
        "kind": f"checkpoint of 'valle train {origin['kind']}'",
        "path": str(find_checkpoint(path)),
        "steps": checkpoint["global_step"],
        "epoch": checkpoint["epoch"],
    }
    return facts | (origin["codec"] if origin["kind"] == "codec" else {"config": checkpoint["lm_config"]})


def _codes(path: Path) -> dict[str, Any]:
    from valle.tokenizers.codecs.code_file import CodeFile

    stored = CodeFile.load(path)
    return {
        "kind": "codes",
        "seconds": round(stored.samples / stored.spec.sample_rate, 3),
        "quantizers": stored.codes.codes.shape[1],
        "codec": {**stored.spec.to_dict(), "hash": stored.codec_hash},
    }


def _codec_facts(codec: SpeechCodec) -> dict[str, Any]:
    return {**codec.spec.to_dict(), "frame_rate": codec.spec.frame_rate, "parameters": _parameters(codec)}


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows
