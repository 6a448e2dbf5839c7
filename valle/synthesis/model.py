"""A whole voice-cloning model as one folder: a codec's folder with the language models beside it.

    config.json          what the codec's says, and under "model" all else but weights (see `Bundle.to_dict`)
    codec.safetensors    weights, fp16 on disk, fp32 in memory
    ar.safetensors
    nar.safetensors      optional: the other quantizers; without it, speech is made of the first quantizer alone
    flow.safetensors     optional, instead of nar
    aligner.safetensors  optional: finds the durations of a transcribed prompt, for aligned models
    README.md            model card

Whatever wants a codec folder takes a model folder, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.common.files import writing
from valle.data.aligner import Aligner
from valle.lm import ARModel, FlowModel, LMConfig, NARModel, Sampling, load_lm, save_lm
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodec
from valle.tokenizers.codecs.registry import load_codec, save_codec
from valle.tokenizers.text import TextTokenizer, resolve_language, text_tokenizer_from_dict
from valle.tokenizers.text.characters import MARKS

FORMAT_VERSION = 1
USUAL_ENDS = ".?"
"""Where a folder does not say in which marks the texts of its training end, as those of earlier versions do not."""

Model = TypeVar("Model", ARModel, NARModel, FlowModel)


@dataclass
class Bundle:
    """The parts of a model; they are checked against each other when the bundle is made."""

    codec: SpeechCodec
    text: TextTokenizer
    ar: ARModel
    refiner: NARModel | FlowModel | None = None
    """What fills in the quantizers after the first."""
    aligner: Aligner | None = None
    sampling: Sampling = field(default_factory=Sampling)
    """Defaults that suit this model."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Whatever is known: data, steps, date, license."""
    languages: Sequence[str] | None = None
    """What it was trained to speak, such as ["en-us"]; a variant counts for all of its language. None: not recorded."""
    ends: str = USUAL_ENDS
    """The marks in which the texts of the training end; "": those have none."""

    def __post_init__(self) -> None:
        spec = self.codec.spec
        check_fits("ar", self.ar.config, spec, self.text)
        if self.refiner is not None:
            name = "flow" if isinstance(self.refiner, FlowModel) else "nar"
            reads = name == "nar" or self.refiner.config.aligned
            check_fits(name, self.refiner.config, spec, self.text if reads else None)
            if self.refiner.config.aligned and not self.ar.config.aligned:
                raise UserError(f"{name} does not fit ar: {name} needs durations ('aligned'), which ar does not give")
        if self.aligner is not None:
            check_aligner(self.aligner, spec, self.text)

    @cached_property
    def parts(self) -> dict[str, str]:
        """What a voice depends on, by name: kind and hash of the codec and of the reading of its transcript."""
        reading = "aligned" if self.ar.config.aligned else "plain"
        return {
            "codec": f"{self.codec.spec.name} {self.codec.fingerprint}",
            "text tokenizer": f"{self.text.to_dict()['kind']} {self.text.fingerprint}, {reading}",
        }

    def check_language(self, language: str) -> None:
        """Raise `UserError` for a language that the model was not trained on; it would say something, but not that."""
        if self.languages is None or language in self.languages:
            return
        if resolve_language(language).split("-")[0] not in map(_family, self.languages):
            raise UserError(
                f"this model does not speak '{language}': it was trained on {', '.join(self.languages)}; "
                "--any-language lets it try"
            )

    def encode(self, text: str, language: str = "en-us") -> Tensor:
        """The text tokens [L] of something to say, or of what is said in a prompt, with an end that the model knows.

        Raises what `TextTokenizer.encode` raises.
        """
        return torch.tensor(self.text.encode(text, language, self.ends))

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds under "model"."""
        return {
            "format_version": FORMAT_VERSION,
            "ar": self.ar.config.to_dict(),
            "nar": self.refiner.config.to_dict() if isinstance(self.refiner, NARModel) else None,
            "flow": self.refiner.config.to_dict() if isinstance(self.refiner, FlowModel) else None,
            "aligner": self.aligner is not None,
            "text_tokenizer": self.text.to_dict(),
            "ends": self.ends,
            "sampling": asdict(self.sampling),
            "languages": self.languages,
        }

    def save(self, folder: str | Path) -> None:
        """Write the bundle; `folder` is created. Raises `UserError` if that fails."""
        folder = Path(folder)
        with writing(folder):
            save_codec(self.codec, folder, self.provenance)
            save_lm(self.ar, folder, "ar")
            if self.refiner is not None:
                save_lm(self.refiner, folder, "flow" if isinstance(self.refiner, FlowModel) else "nar")
            if self.aligner is not None:
                self.aligner.save(folder / "aligner.safetensors")
            path = folder / "config.json"
            config = json.loads(path.read_text(encoding="utf-8")) | {"model": self.to_dict()}
            path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            (folder / "README.md").write_text(model_card(config), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Bundle:
        """Load a bundle in eval mode. Raises `UserError` when it is incomplete, damaged or does not fit together."""
        folder = Path(folder)
        config = read_config(folder)
        try:
            model, provenance = config["model"], config["provenance"]
            text = text_tokenizer_from_dict(model["text_tokenizer"])
            sampling = Sampling(**model["sampling"])
            has_aligner = model["aligner"]
            ends = known_ends(config)
            ar_config, nar_config, flow_config = model["ar"], model["nar"], model.get("flow")
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder}/config.json does not describe a model: {error!r}") from error
        refiner: NARModel | FlowModel | None = None
        if nar_config is not None:
            refiner = _load_lm(folder, "nar", NARModel, nar_config, device)
        elif flow_config is not None:
            refiner = _load_lm(folder, "flow", FlowModel, flow_config, device)
        return cls(
            codec=load_codec(folder, device),
            text=text,
            ar=_load_lm(folder, "ar", ARModel, ar_config, device),
            refiner=refiner,
            aligner=Aligner.load(folder / "aligner.safetensors") if has_aligner else None,
            sampling=sampling,
            provenance=provenance,
            languages=model.get("languages"),
            ends=ends,
        )


def _family(language: str) -> str:
    """What the variants of a language have in common: "en" of "en-us" and "en-gb"."""
    try:
        return resolve_language(language).split("-")[0]
    except UserError:
        return language  # of a corpus in word pieces, which espeak-ng need not know


def check_fits(name: str, config: LMConfig, spec: CodecSpec, text: TextTokenizer | None = None) -> None:
    """Raise `UserError` when model `name` was made for another codec or text tokenizer (None: not looked at)."""
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
    if text is None:
        return
    if config.text_vocab_size != len(text.vocab):
        raise UserError(
            f"{name} does not fit the text tokenizer: {name} was made for {config.text_vocab_size} symbols, "
            f"the tokenizer has {len(text.vocab)}"
        )
    if config.aligned and set(config.boundary_ids) != text.boundary_ids:
        raise UserError(f"{name} does not fit the text tokenizer: they differ in which symbols stand between words")


def check_aligner(aligner: Aligner, spec: CodecSpec, text: TextTokenizer) -> None:
    """Raise `UserError` when the aligner counts other frames or other symbols."""
    rates = (aligner.sample_rate, aligner.frame_rate)
    if rates != (spec.sample_rate, spec.frame_rate):
        raise UserError(
            f"aligner does not fit codec '{spec.name}': it was made for {rates[0]} Hz and {rates[1]:g} frames per "
            f"second, the codec has {spec.sample_rate} Hz and {spec.frame_rate:g}"
        )
    if aligner.vocab != text.vocab:
        raise UserError("aligner does not fit the text tokenizer: it was made for other symbols")


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a bundle, its format checked."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = config["model"]["format_version"]
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no model folder: it has no config.json") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not that of a whole model; 'valle export' makes one from trained parts") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; copy the model folder again") from error
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}; use the valle that made it"
        )
    return config


def known_ends(config: dict[str, Any]) -> str:
    """The marks in which the texts of a bundle's training end, from its `config.json`."""
    ends = config["model"].get("ends", USUAL_ENDS)
    if not isinstance(ends, str) or not set(ends) <= set(MARKS):
        raise UserError(f"config.json: model.ends must be some of {MARKS} in one string, got {ends!r}")
    return ends


def _load_lm(
    folder: Path, kind: str, model_class: type[Model], config: dict[str, Any], device: str | torch.device
) -> Model:
    model = load_lm(folder, kind)
    assert isinstance(model, model_class)
    if model.config != model.config_class.from_dict(config):
        raise UserError(f"{folder}/{kind}.safetensors is not the model that config.json describes; copy both again")
    return model.to(device)


_TEMPLATE = """---
license: {license}
pipeline_tag: text-to-speech
library_name: valle
---
# A voice-cloning model for `valle`

```
valle clone --model THIS_FOLDER --prompt me.wav --text "Any sentence." --out out.wav
```

| part | |
|---|---|
| codec | {codec} |
| AR | {ar} |
| NAR | {nar} |
| flow | {flow} |
| text | {text} |
| languages | {languages} |
| aligner | {aligner} |

## Origin
{provenance}

## Use
The model imitates a voice from a recording. Use it only with the consent of the person whose voice it is,
and say that the result is synthetic.
"""


def model_card(config: dict[str, Any]) -> str:
    """The card of a bundle with this `config.json`."""
    spec, model, provenance = config["spec"], config["model"], config["provenance"]
    invariant = ""
    if spec["n_time_invariant"]:
        invariant = f" + {spec['n_time_invariant']} × {spec['time_invariant_size']} time-invariant codes"
    rate = spec["sample_rate"] / spec["hop_length"]
    return _TEMPLATE.format(
        license=provenance.get("license", "unknown"),
        codec=f"{spec['name']}, {spec['sample_rate']} Hz, {rate:g} frames per second, "
        f"{spec['n_q']} × {spec['codebook_size']} codes{invariant}",
        ar=_transformer(model["ar"]),
        nar=_transformer(model["nar"]) if model["nar"] else "none",
        flow=_transformer(model["flow"]) if model.get("flow") else "none",
        text=f"{model['text_tokenizer']['kind']}, {model['ar']['text_vocab_size']} symbols; its texts end in "
        + (f"`{' '.join(model['ends'])}`" if model["ends"] else "no mark"),
        languages=", ".join(model["languages"] or ["not recorded"]),
        aligner="yes" if model["aligner"] else "none",
        provenance="\n".join(f"- {name}: {value}" for name, value in provenance.items()) or "Not recorded.",
    )


def _transformer(config: dict[str, Any]) -> str:
    kind = "aligned, " if config["aligned"] else ""
    return f"{kind}{config['layers']} layers of width {config['dim']}, {config['heads']} heads"
