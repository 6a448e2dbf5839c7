"""Audio tokenizers of the package `transformers` behind our interface: Mimi, DAC, EnCodec, X-Codec and what comes next.

What a model calls its quantizers, its rate and its codes is read from its configuration and from the signatures of its
`encode` and `decode`; there is no list of models here. Shapes: B utterances, S samples, T frames.
"""

from __future__ import annotations

import inspect
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.common.errors import UserError
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodec, SpeechCodes, frame_mask

SHORTEST = 0.5
"""Seconds that a model is given at least, silence behind: many fail on less than their windows."""


class HuggingFaceCodec(SpeechCodec):
    """A model of `transformers`; every utterance is encoded and decoded alone, so that none depends on its batch.

    A last frame that is partly filled is filled up with silence. Whole frames have the codes that the model's own
    `encode` gives.
    """

    model: Any

    def __init__(self, model: dict[str, Any], n_q: int | None = None) -> None:
        """
        Args:
            model: the model's configuration, as its `to_dict()` gives it.
            n_q: quantizers to use (default: all that the model's configuration speaks of).
        """
        super().__init__()
        self.model, facts = _build(model)
        most = int(_fact(facts, ("num_quantizers", "n_codebooks"), 1))
        levels = getattr(facts, "quantization_levels", None)
        size = int(math.prod(levels) if levels else _fact(facts, ("codebook_size",)))
        rate = int(_fact(facts, ("output_sampling_rate", "sampling_rate", "sample_rate")))
        hop = getattr(facts, "hop_length", None) or rate / _fact(facts, ("frame_rate",))
        if n_q is not None and not 1 <= n_q <= most:
            raise UserError(f"{facts.model_type} has {most} quantizers: n_q cannot be {n_q}")
        self.config = {"model": model, "n_q": n_q or most}
        self.spec = CodecSpec("hf", sample_rate=rate, hop_length=int(hop), n_q=n_q or most, codebook_size=size)
        takes = inspect.signature(self.model.encode).parameters
        if "input_features" in takes:
            raise UserError(f"{facts.model_type} hears features besides the waveform, which is not supported")
        self._options: dict[str, float] = {}
        if "bandwidth" in takes:
            self._options["bandwidth"] = self._bandwidth(facts.target_bandwidths)
        elif most > 1:
            self._options["num_quantizers" if "num_quantizers" in takes else "n_quantizers"] = self.spec.n_q
        self._scaled = "audio_scales" in inspect.signature(self.model.decode).parameters

    def _bandwidth(self, offered: list[float]) -> float:
        """In kbit/s, where a model is told that instead of how many quantizers."""
        one = self.spec.frame_rate * math.log2(self.spec.codebook_size) / 1000
        depths = {int(bandwidth / one + 1e-3): bandwidth for bandwidth in offered}
        if self.spec.n_q not in depths:
            raise UserError(
                f"this model has bandwidths for n_q = {', '.join(map(str, depths))} alone: not {self.spec.n_q}"
            )
        return depths[self.spec.n_q]

    @classmethod
    def pretrained(cls, name: str, n_q: int | None = None) -> HuggingFaceCodec:
        """The model of a folder, of the local cache, or of the Hub, in eval mode.

        Raises `UserError` when there is none, or it gives no codes.
        """
        transformers = _package()
        try:
            facts = transformers.AutoConfig.from_pretrained(name)
            codec = cls(facts.to_dict(), n_q)
            loaded = type(codec.model).from_pretrained(name)
        except (OSError, ValueError, RuntimeError) as error:
            where = "" if Path(name).is_dir() else " (no folder, and not to be had from the Hugging Face Hub)"
            raise UserError(f"{name} cannot be loaded{where}: {str(error).strip().splitlines()[0]}") from error
        codec.model.load_state_dict(loaded.state_dict())
        return codec.eval()

    @torch.no_grad()
    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> SpeechCodes:
        samples = [wav.shape[-1]] * len(wav) if lengths is None else lengths.tolist()
        frames = torch.tensor([self.spec.frames(n) for n in samples], device=wav.device)
        codes = wav.new_zeros(len(wav), self.spec.n_q, self.spec.frames(wav.shape[-1]), dtype=torch.long)
        for row, (size, length) in enumerate(zip(samples, frames.tolist(), strict=True)):
            codes[row, :, :length] = self._encode(wav[row : row + 1, :, :size], length)
        return SpeechCodes(codes, frames)

    def _encode(self, wav: Tensor, frames: int) -> Tensor:
        """Codes [n_q, frames] of one utterance `wav` [1, 1, S]."""
        shortest = math.ceil(SHORTEST * self.spec.frame_rate)
        size = max(frames, shortest) * self.spec.hop_length
        given = self.model.encode(F.pad(wav, (0, size - wav.shape[-1])), **self._options)
        codes = given.audio_codes.reshape(-1, given.audio_codes.shape[-1])[: self.spec.n_q, :frames]
        # Models without padding in their convolutions give a frame less than there is audio for.
        return F.pad(codes, (0, frames - codes.shape[1]), mode="replicate") if codes.shape[1] < frames else codes

    @torch.no_grad()
    def decode(self, codes: SpeechCodes) -> Tensor:
        self.check_codes(codes)
        hop, size = self.spec.hop_length, codes.codes.shape[-1]
        out = torch.zeros(len(codes.codes), 1, size * hop, device=codes.codes.device)
        for row, length in enumerate(codes.lengths.tolist()):
            if not length:
                continue
            shortest = max(length, math.ceil(SHORTEST * self.spec.frame_rate))
            known = F.pad(codes.codes[row : row + 1, :, :length], (0, shortest - length))
            given = self.model.decode(known[None], [None]) if self._scaled else self.model.decode(audio_codes=known)
            wav = given.audio_values.reshape(-1)[: length * hop]
            out[row, 0, : len(wav)] = wav
        return out * frame_mask(codes.lengths * hop, size * hop)[:, None]


def _package() -> Any:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise UserError("codecs of Hugging Face need transformers: pip install transformers") from error
    return transformers


def _build(config: dict[str, Any]) -> tuple[Any, Any]:
    """The model of a configuration, untrained, and the configuration."""
    transformers = _package()
    kind = str(config.get("model_type"))
    try:
        facts = transformers.AutoConfig.for_model(**config)
        model = transformers.AutoModel.from_config(facts)
    except (ValueError, KeyError, ImportError) as error:
        raise UserError(f"transformers has no model of type '{kind}': {str(error).strip().splitlines()[0]}") from error
    if not (hasattr(model, "encode") and hasattr(model, "decode")):
        raise UserError(f"a model of type '{kind}' is no codec: it cannot encode and decode")
    return model, facts


def _fact(config: Any, names: tuple[str, ...], default: float | None = None) -> float:
    """The first of these attributes that a configuration has."""
    for name in names:
        if (value := getattr(config, name, None)) is not None:
            return value
    if default is None:
        raise UserError(f"the configuration of '{config.model_type}' does not tell its {names[0]}: it is no codec")
    return default
