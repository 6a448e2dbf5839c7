"""A model with random weights, really built: it says nothing intelligible, but goes through every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

import valle
from valle.common.audio import load_audio
from valle.lm import ARConfig, ARModel, NARConfig, NARModel, Sampling
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle
from valle.tokenizers.codecs import SpeechCodec, build_codec
from valle.tokenizers.text import PhonemeTokenizer

RECORDINGS = Path(valle.__file__).parent / "assets" / "eval"
CODEC = {
    "dim": 16,
    "hidden": 16,
    "encoder_layers": 2,
    "decoder_layers": (2, 1),
    "n_q": 2,
    "codebook_size": 16,
    "time_invariant_groups": 2,
    "time_invariant_size": 8,
    "early_layers": 1,
}


def tiny_codec(**changes: Any) -> SpeechCodec:
    torch.manual_seed(0)
    return build_codec("spectral", CODEC | changes).eval()


def tiny_bundle(aligned: bool = True, codec: dict[str, Any] | None = None, **changes: Any) -> Bundle:
    built = tiny_codec(**(codec or {}))
    text = PhonemeTokenizer()
    values: dict[str, Any] = {
        "text_vocab_size": len(text.vocab),
        "codebook_size": built.spec.codebook_size,
        "n_q": built.spec.n_q,
        "n_time_invariant": built.spec.n_time_invariant,
        "time_invariant_size": built.spec.time_invariant_size,
        "aligned": aligned,
        "boundary_ids": tuple(sorted(text.boundary_ids)),
        "dim": 16,
        "layers": 1,
        "heads": 2,
        "ff": 32,
    }
    values |= changes
    ar = ARModel(ARConfig(**values)).eval()
    nar = NARModel(NARConfig.from_dict(values)).eval() if values["n_q"] > 1 else None
    # As they come, all weights are so small that the text and the past hardly matter.
    for weight in (ar.prefix.text.weight, ar.code.weight, ar.code_head.weight):
        torch.nn.init.normal_(weight)
    # A random model knows no end; short limits keep the tests fast.
    sampling = Sampling(max_phone_frames=3, max_boundary_frames=3, max_frames_per_token=4.0)
    provenance = {"data": "none", "license": "Apache-2.0"}
    return Bundle(built, text, ar, nar, sampling=sampling, provenance=provenance)


@pytest.fixture(scope="session")
def make_codec() -> Callable[..., SpeechCodec]:
    """A codec with random weights; arguments are changes of its config."""
    return tiny_codec


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    """A model with random weights: aligned or not, changes of the codec's config, changes of the LM config."""
    return tiny_bundle


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return tiny_bundle()


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings that come with the package."""
    return RECORDINGS


@pytest.fixture(scope="session")
def model(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the bundle."""
    folder = tmp_path_factory.mktemp("model")
    bundle.save(folder)
    return folder


@pytest.fixture(scope="session")
def cloner(model: Path) -> VoiceCloner:
    return VoiceCloner.from_pretrained(model, device="cpu")


@pytest.fixture(scope="session")
def speech() -> torch.Tensor:
    """Real speech, [S] at 16 kHz, 6 seconds."""
    return load_audio(RECORDINGS / "1688-142285-0000.opus", 16000)[: 6 * 16000]


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Writes samples as an audio file and gives its path."""

    def write(wav: torch.Tensor, rate: int = 16000, name: str = "prompt.wav") -> Path:
        soundfile.write(tmp_path / name, wav.T.numpy() if wav.dim() == 2 else wav.numpy(), rate)
        return tmp_path / name

    return write
