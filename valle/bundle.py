"""A whole voice-cloning model as one folder: codec, language models, text tokenizer and what is known about them.

    config.json          everything but the weights (see `Bundle.to_dict`)
    codec.safetensors    weights, fp16 on disk, fp32 in memory
    ar.safetensors
    nar.safetensors      absent for codecs with one quantizer
    aligner.safetensors  optional: finds the durations of a transcribed prompt, for aligned models
    README.md            model card
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from valle.data.aligner import Aligner
from valle.lm.ar import ARModel
from valle.lm.config import LMConfig
from valle.lm.nar import NARModel
from valle.lm.sampling import Sampling
from valle.model_card import model_card
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodec
from valle.tokenizers.codecs.registry import build_codec, load_weights
from valle.tokenizers.errors import UserError
from valle.tokenizers.text.base import TextTokenizer, load_text_tokenizer

FORMAT = "valle-bundle"
FORMAT_VERSION = 1

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Bundle:
    """The parts of a model; they are checked against each other when the bundle is made."""

    codec: SpeechCodec
    text: TextTokenizer
    ar: ARModel
    nar: NARModel | None = None
    aligner: Aligner | None = None
    sampling: Sampling = field(default_factory=Sampling)
    """Defaults that suit this model."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Whatever is known: data, steps, date, licence."""

    def __post_init__(self) -> None:
        spec = self.codec.spec
        check_fits("ar", self.ar.config, spec, self.text)
        if self.nar is not None:
            check_fits("nar", self.nar.config, spec, self.text)
            if self.nar.config.aligned and not self.ar.config.aligned:
                raise UserError("nar does not fit ar: nar needs durations ('aligned'), which ar does not give")
        elif spec.n_q > 1:
            raise UserError(f"nar is missing: codec '{spec.name}' has {spec.n_q} quantizers and ar predicts only the first")

    def save(self, folder: str | Path) -> None:
        """Write the bundle; `folder` is created."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, module in (("codec", self.codec), ("ar", self.ar), ("nar", self.nar)):
                if module is not None:
                    _save_weights(module, folder / f"{name}.safetensors")
            if self.aligner is not None:
                self.aligner.save(folder / "aligner.safetensors")
            text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
            (folder / "config.json").write_text(text + "\n", encoding="utf-8")
            (folder / "README.md").write_text(model_card(self.to_dict()), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write the model to {folder}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "codec": {"spec": self.codec.spec.to_dict(), "config": self.codec.config},
            "ar": self.ar.config.to_dict(),
            "nar": None if self.nar is None else self.nar.config.to_dict(),
            "aligner": self.aligner is not None,
            "text_tokenizer": self.text.to_dict(),
            "sampling": asdict(self.sampling),
            "provenance": self.provenance,
        }

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Bundle:
        """Load a bundle in eval mode. Raises `UserError` when it is incomplete, damaged or does not fit together."""
        folder = Path(folder)
        config = read_config(folder)
        try:
            spec, codec = CodecSpec.from_dict(config["codec"]["spec"]), config["codec"]["config"]
            ar, nar = LMConfig.from_dict(config["ar"]), config["nar"] and LMConfig.from_dict(config["nar"])
            text = load_text_tokenizer(config["text_tokenizer"])
            sampling = Sampling(**config["sampling"])
            has_aligner, provenance = config["aligner"], config["provenance"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder}/config.json does not describe a model: {error!r}") from error
        bundle = cls(
            codec=_with_weights(build_codec(spec.name, codec), folder / "codec.safetensors", device),
            text=text,
            ar=_with_weights(ARModel(ar), folder / "ar.safetensors", device),
            nar=_with_weights(NARModel(nar), folder / "nar.safetensors", device) if nar else None,
            aligner=Aligner.load(folder / "aligner.safetensors") if has_aligner else None,
            sampling=sampling,
            provenance=provenance,
        )
        if bundle.codec.spec != spec:
            raise UserError(f"{folder}/config.json contradicts itself: {spec}, but its codec has {bundle.codec.spec}")
        return bundle


def check_fits(name: str, config: LMConfig, spec: CodecSpec, text: TextTokenizer) -> None:
    """Raise `UserError` when language model `name` was made for another codec or text tokenizer."""
    facts = (
        ("quantizers", config.n_q, spec.n_q),
        ("codes per codebook", config.codebook_size, spec.codebook_size),
        ("time-invariant codes", config.n_time_invariant, spec.n_time_invariant),
        ("codes per time-invariant codebook", config.time_invariant_size, spec.time_invariant_size),
    )
    for what, expected, given in facts:
        if expected != given:
            raise UserError(
                f"{name} does not fit codec '{spec.name}': {name} was made for {expected} {what}, the codec has {given}"
            )
    if config.text_vocab_size != len(text.vocab):
        raise UserError(
            f"{name} does not fit the text tokenizer: {name} was made for {config.text_vocab_size} symbols, "
            f"the tokenizer has {len(text.vocab)}"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a bundle, its format checked."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no model folder: it has no config.json") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; copy the model folder again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{path} does not describe a model for cloning; 'valle export' makes one from trained parts")
    if config.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {config.get('format_version')}, this program reads {FORMAT_VERSION}; "
            "use the version of valle that made it"
        )
    return config


def _with_weights(module: Module, path: Path, device: str | torch.device) -> Module:
    load_weights(module, path)
    return module.to(device).eval()


def _save_weights(module: nn.Module, path: Path) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file({name: t.half() if t.is_floating_point() else t for name, t in state.items()}, path)
