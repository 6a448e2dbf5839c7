"""Codecs by name; a codec on disk is `config.json` + `codec.safetensors`, never a pickle."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from valle.common.errors import UserError
from valle.common.files import writing
from valle.common.hub import find_model
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodec

_BUILT_IN = {
    "spectral": "valle.tokenizers.codecs.spectral:SpectralCodec",
    "hificodec": "valle.tokenizers.codecs.conv:HifiCodec",
    "ticodec": "valle.tokenizers.codecs.conv:TiCodec",
    "vocodec": "valle.tokenizers.codecs.vocodec:VoCodec",
    "encodec": "valle.tokenizers.codecs.encodec:Encodec",
    "hf": "valle.tokenizers.codecs.hf:HuggingFaceCodec",
}
FORMAT_VERSION = 1


def codec_names() -> list[str]:
    """Names of all codecs: built in, and those of installed packages (entry point group `valle.codecs`)."""
    return sorted({*_BUILT_IN, *(e.name for e in entry_points(group="valle.codecs"))})


def codec_class(name: str) -> type[SpeechCodec]:
    """The class registered under `name`. Raises `UserError` listing the known names."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        return getattr(import_module(module), attribute)
    for entry in entry_points(group="valle.codecs"):
        if entry.name == name:
            return entry.load()
    raise UserError(f"unknown codec '{name}'; known codecs: {', '.join(codec_names())}")


def build_codec(name: str, config: dict[str, Any] | None = None) -> SpeechCodec:
    """An untrained codec of this name; `config` are the keyword arguments of its class."""
    try:
        return codec_class(name)(**(config or {}))
    except TypeError as error:
        raise UserError(f"codec '{name}' does not accept this configuration: {error}") from error


def save_codec(codec: SpeechCodec, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
    """Write `config.json` and `codec.safetensors` (fp16) into `folder`. Raises `UserError` if that fails."""
    folder = Path(folder)
    config = {
        "format_version": FORMAT_VERSION,
        "spec": codec.spec.to_dict(),
        "config": codec.config,
        "provenance": provenance or {},
    }
    state = {k: v.half() if v.is_floating_point() else v for k, v in codec.state_dict().items()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().cpu() for k, v in state.items()}, folder / "codec.safetensors")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_codec(folder: str | Path, device: str | torch.device = "cpu") -> SpeechCodec:
    """Load a codec saved by `save_codec`, or that of a model (see `find_model`), in eval mode and fp32.

    "hf:NAME" is a model of `transformers`, with all its quantizers: of a folder or an id of the Hugging Face Hub.
    """
    if str(folder).startswith("hf:"):
        from valle.tokenizers.codecs.hf import HuggingFaceCodec

        return HuggingFaceCodec.pretrained(str(folder).removeprefix("hf:")).to(device)
    folder = find_model(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        spec = CodecSpec.from_dict(config["spec"])
        version = config["format_version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} is no codec: it has no config.json; train one with 'valle train codec'") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json does not describe a codec: {error!r}") from error
    if version != FORMAT_VERSION:
        raise UserError(f"{folder}/config.json has format version {version}; this program reads {FORMAT_VERSION}")
    codec = build_codec(spec.name, config["config"])
    if codec.spec != spec:
        raise UserError(
            f"{folder}/config.json contradicts itself: spec {spec} but the configuration gives {codec.spec}"
        )
    load_weights(codec, folder / "codec.safetensors")
    return codec.to(device).eval()


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a safetensors file into `module`, naming tensors that are missing, unexpected or of another shape."""
    try:
        module.load_state_dict(_read_weights(path))
    except RuntimeError as error:
        raise UserError(f"{path} does not fit its config.json: {error}") from error


def start_decoder(codec: SpeechCodec, path: Path) -> list[str]:
    """Load the weights of a codec whose decoder may be another one; gives the decoder's tensors that start anew.

    Raises `UserError` if anything else does not fit.
    """
    state, own = _read_weights(path), codec.state_dict()
    fit = {k: v for k, v in state.items() if not k.startswith("decoder.") or (k in own and v.shape == own[k].shape)}
    anew = [name for name in own if name.startswith("decoder.") and name not in fit]
    try:
        codec.load_state_dict(fit | {name: own[name] for name in anew})
    except RuntimeError as error:
        raise UserError(f"{path} does not fit this codec in more than its decoder: {error}") from error
    return anew


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, in fp32."""
    try:
        state = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: the model folder is incomplete, copy it again") from error
    except Exception as error:  # safetensors raises its own type for every kind of damage
        raise UserError(f"{path} cannot be read ({error}): the file is damaged, copy it again") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
