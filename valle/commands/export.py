"""`valle export`: trained parts to a model folder, or a trained codec to a codec folder."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle import __version__
from valle.common.errors import UserError
from valle.common.files import check_folder
from valle.common.hub import find_model

if TYPE_CHECKING:
    from valle.lm import Sampling
    from valle.tokenizers.codecs.base import SpeechCodec

_EPILOG = """A model is its folder, its Hugging Face Hub id, or 'embedded'.

examples:
  valle export --codec runs/codec --out codec         # after 'train codec', before 'tokenize'
  valle export --codec codec --ar runs/ar --nar runs/nar --aligner aligner.safetensors --out model
  valle export --codec embedded --ar runs/finetuned --flow embedded --aligner embedded --out model"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.description = "Put trained parts together as a model. Without --ar: make a codec folder from a codec's run."
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--codec", required=True, metavar="X", help="codec or model, or run folder or checkpoint of 'train codec'")
    add("--ar", metavar="X", help="run folder (its newest checkpoint) or checkpoint of 'train ar', or a model")
    add("--nar", metavar="X", help="the same of 'train nar'")
    add("--flow", metavar="X", help="the same of 'train flow', instead of --nar")
    add("--aligner", metavar="X", help="aligner that the tokens were made with, or the model that holds it")
    add("--reusable-prompt", action="store_true", help="read a voice's prompt once, though the AR was not trained so")
    add("--out", required=True, metavar="DIR", help="folder to write")
    add("--sampling", action="append", default=[], metavar="KEY=VAL", help="default of the model: temperature=0.9")
    add("--about", action="append", default=[], metavar="KEY=VAL", help="for the model card: license=Apache-2.0")


def run(args: argparse.Namespace) -> int:
    """Write the folder."""
    about = dict(_pair("--about", text) for text in args.about)
    if args.ar is None and (args.nar or args.flow or args.aligner or args.sampling or args.reusable_prompt):
        raise UserError(
            "--nar, --flow, --aligner, --reusable-prompt and --sampling are for whole models: give --ar, too"
        )
    if args.nar and args.flow:
        raise UserError("--nar and --flow do the same: give one of them")
    check_folder(args.out)

    from valle.tokenizers.codecs.registry import save_codec

    codec, origin = _codec(args.codec)
    about = {"made_with": f"valle {__version__}", "date": date.today().isoformat(), **origin, **about}
    if args.ar is None:
        save_codec(codec, args.out, about)
    else:
        _export_model(args, codec, about)
    print(f"wrote {args.out}")
    return 0


def _export_model(args: argparse.Namespace, codec: SpeechCodec, about: dict[str, Any]) -> None:
    from valle.data.aligner import Aligner
    from valle.lm import ARModel, FlowModel, NARModel, from_checkpoint
    from valle.synthesis.model import USUAL_ENDS, Bundle
    from valle.tokenizers.text import text_tokenizer_from_dict
    from valle.training.checkpoints import load_checkpoint

    models: dict[str, Any] = {}
    tokens: dict[str, dict[str, Any]] = {}
    for kind, source in (("ar", args.ar), ("nar", args.nar), ("flow", args.flow)):
        if source is None:
            continue
        place = find_model(source)
        if (place / "config.json").is_file():
            models[kind], tokens[kind] = _of_model(kind, place)
            continue
        checkpoint = load_checkpoint(place)
        if checkpoint.get("lm_kind") != kind:
            raise UserError(f"--{kind} {source} is no checkpoint of 'valle train {kind}'")
        models[kind], tokens[kind] = from_checkpoint(checkpoint), {"ends": USUAL_ENDS, **checkpoint["valle"]["tokens"]}
        about[f"{kind}_steps"] = checkpoint["global_step"]
    made_with = tokens["ar"]
    facts = [("nar", "codec_hash"), ("nar", "text_tokenizer_hash"), ("flow", "codec_hash")]
    if "flow" in models and models["flow"].config.aligned:
        facts.append(("flow", "text_tokenizer_hash"))
    for kind, fact in facts:
        if kind in tokens and tokens[kind][fact] != made_with[fact]:
            raise UserError(f"ar and {kind} do not fit: their training data differ in {fact.removesuffix('_hash')}")
    _check_codec(args.codec, codec, made_with["codec_hash"])
    aligner = None if args.aligner is None else Aligner.load(args.aligner)
    if aligner is not None and aligner.fingerprint != made_with["aligner_hash"]:
        raise UserError(f"{args.aligner} is not the aligner that ar's training data were made with")
    ar, nar = models["ar"], models.get("nar") or models.get("flow")
    assert isinstance(ar, ARModel)
    if ar.config.aligned and aligner is None:
        lack = "without the --aligner that its tokens were made with, this model cannot follow a prompt's transcript"
        if not codec.spec.n_time_invariant:
            raise UserError(f"{lack}, from which alone it would know the voice: give --aligner")
        print(f"note: {lack}", file=sys.stderr)
    if args.reusable_prompt:
        ar.config = replace(ar.config, reusable_prompt=True)
    assert nar is None or isinstance(nar, NARModel | FlowModel)
    text = text_tokenizer_from_dict(made_with["text_tokenizer"])
    languages = made_with.get("languages")
    Bundle(codec, text, ar, nar, aligner, _sampling(args.sampling), about, languages, made_with["ends"]).save(args.out)


def _of_model(kind: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A language model of a finished model, and what it was made for, named as in the header of tokens."""
    from valle.data.aligner import Aligner
    from valle.lm import load_lm
    from valle.synthesis.model import known_ends, read_config
    from valle.tokenizers.codecs.registry import load_codec
    from valle.tokenizers.text import text_tokenizer_from_dict

    whole = read_config(folder)
    config = whole["model"]
    text = text_tokenizer_from_dict(config["text_tokenizer"])
    aligner = Aligner.load(folder) if config["aligner"] else None
    return load_lm(folder, kind), {
        "codec_hash": load_codec(folder).fingerprint,
        "text_tokenizer": config["text_tokenizer"],
        "text_tokenizer_hash": text.fingerprint,
        "aligner_hash": aligner.fingerprint if aligner else None,
        "languages": config.get("languages"),
        "ends": known_ends(whole),
    }


def _codec(source: str) -> tuple[SpeechCodec, dict[str, Any]]:
    """The codec of a codec folder, of a run folder or of a checkpoint, and what is known of it."""
    from valle.tokenizers.codecs.registry import build_codec, load_codec
    from valle.training.checkpoints import load_checkpoint

    place = find_model(source)
    config = place / "config.json"
    if config.is_file():
        return load_codec(place), json.loads(config.read_text(encoding="utf-8"))["provenance"]
    checkpoint = load_checkpoint(place)
    if checkpoint.get("valle", {}).get("kind") != "codec":
        raise UserError(f"--codec {source} is neither a codec folder nor a checkpoint of 'valle train codec'")
    made = checkpoint["valle"]["codec"]
    codec = build_codec(made["name"], made["config"])
    prefix = "codec."
    weights = {n.removeprefix(prefix): w for n, w in checkpoint["state_dict"].items() if n.startswith(prefix)}
    codec.load_state_dict(weights)
    return codec.eval(), {"codec_steps": int(checkpoint["global_step"])}


def _check_codec(source: str, codec: SpeechCodec, expected: str) -> None:
    """Raise `UserError` unless this codec makes the codes that the language models know."""
    if codec.fingerprint != expected:
        raise UserError(f"codec {source} is not the one that ar's training data were made with")


def _sampling(settings: list[str]) -> Sampling:
    from valle.lm import Sampling

    defaults = Sampling()
    known = {f.name: type(getattr(defaults, f.name)) for f in fields(Sampling)}
    values: dict[str, Any] = {}
    for name, text in (_pair("--sampling", setting) for setting in settings):
        if name not in known:
            raise UserError(f"--sampling {name}: unknown; known are {', '.join(known)}")
        try:
            values[name] = text == "true" if known[name] is bool else known[name](text)
        except ValueError as error:
            raise UserError(f"--sampling {name}={text}: not a number") from error
    return Sampling(**values)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"{option} '{text}': write it as key=value")
    return name, value
