"""Audio tokenizers of `transformers`: the library's own codes, alone and in a batch, from a folder and back."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from valle.cli import main
from valle.common.errors import UserError
from valle.tokenizers.codecs import load_codec
from valle.tokenizers.codecs.hf import HuggingFaceCodec

transformers = pytest.importorskip("transformers")

SMALL = {
    "MimiConfig": {
        "hidden_size": 32,
        "num_filters": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 32,
        "codebook_size": 64,
        "codebook_dim": 16,
        "num_quantizers": 8,
        "vector_quantization_hidden_dimension": 16,
        "upsample_groups": 32,
    },
    "DacConfig": {
        "encoder_hidden_size": 8,
        "downsampling_ratios": [2, 4, 5, 8],
        "decoder_hidden_size": 64,
        "n_codebooks": 4,
        "codebook_size": 64,
        "sampling_rate": 24000,
    },
    "EncodecConfig": {"num_filters": 4, "hidden_size": 32, "codebook_dim": 32, "num_lstm_layers": 1},
    "XcodecConfig": {
        "acoustic_model_config": {
            "encoder_hidden_size": 8,
            "decoder_hidden_size": 32,
            "hidden_size": 16,
            "codebook_dim": 8,
        },
        "semantic_model_config": {
            "model_type": "hubert",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_dim": [8] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2,
        },
        "codebook_dim": 32,
    },
}
CALLS = {"MimiConfig": {"num_quantizers": 2}, "DacConfig": {"n_quantizers": 2}, "EncodecConfig": {"bandwidth": 1.5}}
CALLS["XcodecConfig"] = {"bandwidth": 1}


def build(kind: str, n_q: int = 2) -> HuggingFaceCodec:
    torch.manual_seed(0)
    return HuggingFaceCodec(getattr(transformers, kind)(**SMALL[kind]).to_dict(), n_q).eval()


@pytest.mark.parametrize("kind", SMALL)
@torch.no_grad()
def test_codes_and_sound_are_the_library_s_own(kind: str) -> None:
    codec = build(kind)
    frames = max(13, -(-codec.spec.sample_rate // 2 // codec.spec.hop_length))
    wav = torch.randn(1, 1, frames * codec.spec.hop_length)
    theirs = codec.model.encode(wav, **CALLS[kind]).audio_codes
    ours = codec.encode(wav)
    assert ours.codes.shape == (1, 2, frames)
    assert torch.equal(ours.codes, theirs.reshape(1, 2, -1))
    scaled = "audio_scales" in inspect.signature(codec.model.decode).parameters
    spoken = codec.model.decode(theirs, [None]) if scaled else codec.model.decode(audio_codes=theirs)
    sound = spoken.audio_values.reshape(-1)[: frames * codec.spec.hop_length]
    torch.testing.assert_close(codec.decode(ours)[0, 0, : len(sound)], sound)


@pytest.mark.parametrize("kind", SMALL)
def test_a_batch_equals_one_by_one(kind: str) -> None:
    codec = build(kind)
    lengths = [9000, 24000, 100]
    batch = torch.randn(3, 1, 24000)
    together = codec.encode(batch, torch.tensor(lengths))
    sound = codec.decode(together)
    assert together.lengths.tolist() == [codec.spec.frames(n) for n in lengths]
    for row, length in enumerate(lengths):
        alone = codec.encode(batch[row : row + 1, :, :length])
        assert torch.equal(together[row].codes, alone.codes)
        end = alone.codes.shape[-1] * codec.spec.hop_length
        torch.testing.assert_close(sound[row : row + 1, :, :end], codec.decode(alone))
        assert not sound[row, :, end:].any()


def test_imported_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("MimiConfig").model.save_pretrained(tmp_path / "mimi")
    assert main(["import", "hf", str(tmp_path / "mimi"), str(tmp_path / "codec"), "--n-q", "3"]) == 0
    assert "12.5 frames/s, 3 codes" in capsys.readouterr().out
    imported, direct = load_codec(tmp_path / "codec"), load_codec(f"hf:{tmp_path / 'mimi'}")
    assert (imported.spec.n_q, direct.spec.n_q) == (3, 8)
    wav = torch.randn(1, 1, 24000)
    same = imported.encode(wav).codes == direct.encode(wav).codes[:, :3]
    assert same.float().mean() > 0.9, "half precision is all that is between them"


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="8 quantizers: n_q cannot be 9"):
        build("MimiConfig", 9)
    with pytest.raises(UserError, match=r"bandwidths for n_q = 2, 4, 8, 16, 32 alone: not 3"):
        build("EncodecConfig", 3)
    with pytest.raises(UserError, match="no model of type 'nope'"):
        HuggingFaceCodec({"model_type": "nope"})
    with pytest.raises(UserError, match="'bert' is no codec"):
        HuggingFaceCodec(transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).to_dict())
    with pytest.raises(UserError, match="no folder, and not to be had"):
        load_codec("hf:nobody/nothing-of-the-kind")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_codec(f"hf:{tmp_path}")
