from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.eval.judges.measure import UnmeasurableError
from valle.eval.judges.similarity import (
    SpeakerEmbedding,
    SpeakerModel,
    build_speaker_model,
    embed_all,
    likeness,
    voice_spread,
)

Speech = Callable[[str], Tensor]
RATE = 16_000
TWO_EACH = {
    "1688": ["1688-142285-0009", "1688-142285-0005"],
    "1998": ["1998-15444-0007", "1998-15444-0001"],
    "3331": ["3331-159605-0005", "3331-159605-0007"],
}


@pytest.fixture(scope="module")
def resemblyzer() -> SpeakerModel:
    return build_speaker_model("resemblyzer")


def test_real_speakers_are_more_like_themselves(resemblyzer: SpeakerModel, speech: Speech) -> None:
    speakers = [speaker for speaker, ids in TWO_EACH.items() for _ in ids]
    voices = embed_all(resemblyzer, [speech(id_) for ids in TWO_EACH.values() for id_ in ids], RATE)
    spread = voice_spread(voices, speakers)
    for same, different in zip(spread.same_speaker, spread.different_speakers, strict=True):
        assert same is not None
        assert different is not None
        assert same > different + 0.1


def test_the_same_recording_is_the_same_voice_at_any_level(resemblyzer: SpeakerModel, speech: Speech) -> None:
    wav = speech("1688-142285-0009")
    a, b, quiet = embed_all(resemblyzer, [wav, wav.clone(), wav * 0.3], RATE)
    assert likeness(a, b).value == pytest.approx(1, abs=1e-6)
    assert likeness(a, quiet).value == pytest.approx(1, abs=0.02)


def test_where_there_is_no_voice_there_is_a_reason(resemblyzer: SpeakerModel, speech: Speech) -> None:
    wav = speech("1688-142285-0009")
    voice, silent, short, no_samples = embed_all(resemblyzer, [wav, wav * 0, wav[:4000], wav[:0]], RATE)
    assert likeness(voice, silent).reason == "recording: silence"
    assert likeness(short, voice).reason == "recording: shorter than 0.5 s"
    assert likeness(voice, no_samples).value is None
    with pytest.raises(UnmeasurableError):
        resemblyzer.embed(wav * 0, RATE)


def test_spread_by_hand() -> None:
    def voice(degrees: float) -> SpeakerEmbedding:
        angle = torch.deg2rad(torch.tensor(degrees))
        return SpeakerEmbedding(torch.stack([angle.cos(), angle.sin()]))

    spread = voice_spread([voice(0), voice(60), voice(90), SpeakerEmbedding(None, "silence")], ["a", "a", "b", "b"])
    assert spread.same_speaker == [pytest.approx(0.5), pytest.approx(0.5), None, None]
    assert spread.different_speakers[:3] == [
        pytest.approx(0, abs=1e-6),
        *[pytest.approx(3**0.5 / 2)],
        pytest.approx(3**0.5 / 4),
    ]


def test_wavlm_gives_what_its_model_gives(tmp_path: Path, speech: Speech) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(20, 16),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(8, 8),
        tdnn_kernel=(3, 1),
        tdnn_dilation=(1, 1),
        xvector_output_dim=12,
    )
    model = transformers.WavLMForXVector(config).eval()
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    wav = speech("3005-163389-0007")
    embedding = build_speaker_model("wavlm", str(tmp_path)).embed(wav, RATE)
    normalised = (wav - wav.mean()) / (wav.var(correction=0) + 1e-7).sqrt()
    with torch.inference_mode():
        expected = model(normalised[None]).embeddings[0]
    assert torch.allclose(embedding, expected / expected.norm(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "model", "complaint"),
    [
        ("ecapa", None, "unknown speaker model 'ecapa'; known speaker models: resemblyzer, wavlm"),
        ("resemblyzer", "x", "leave out --speaker-weights x"),
    ],
)
def test_a_wrong_choice_is_explained(name: str, model: str | None, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build_speaker_model(name, model)


def test_missing_weights_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"speaker model 'wavlm' cannot be loaded from '{tmp_path}'") as caught:
        build_speaker_model("wavlm", str(tmp_path))
    assert "\n" not in str(caught.value)
