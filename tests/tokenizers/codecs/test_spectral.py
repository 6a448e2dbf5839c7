"""The spectral TiCodec: shapes, independence of padding, time-invariant codes, saving and refusing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from valle.common.errors import UserError
from valle.tokenizers.codecs import CodecSpec, SpeechCodes, build_codec, load_codec, save_codec
from valle.tokenizers.codecs.spectral import SpectralCodec

TINY = {
    "dim": 32,
    "hidden": 64,
    "encoder_layers": 3,
    "decoder_layers": (2, 2),
    "codebook_size": 64,
    "time_invariant_size": 16,
}


@pytest.fixture
def codec() -> SpectralCodec:
    torch.manual_seed(0)
    codec = SpectralCodec(**TINY)  # type: ignore[arg-type]
    for _ in range(30):  # for the statistics of TIRE's BatchNorm, and codebooks near the data
        codec(torch.randn(8, 1, 3200) * torch.rand(8, 1, 1))
    return codec.eval()


def test_shapes_follow_the_spec(codec: SpectralCodec) -> None:
    codes = codec.encode(torch.randn(2, 1, 16001))
    assert codes.codes.shape == (2, 4, 51) and codes.lengths.tolist() == [51, 51]
    assert codes.time_invariant is not None and codes.time_invariant.shape == (2, 8)
    assert codec.decode(codes).shape == (2, 1, 51 * 320)


def test_a_padded_batch_equals_one_by_one(codec: SpectralCodec) -> None:
    lengths = [16000, 7000, 3201]
    alone = [torch.randn(1, 1, n) for n in lengths]
    # Noise beyond the lengths: it must not be heard.
    batch = torch.randn(3, 1, 16000)
    for i, wav in enumerate(alone):
        batch[i, :, : lengths[i]] = wav
    together = codec.encode(batch, torch.tensor(lengths))
    decoded = codec.decode(together)
    for i, wav in enumerate(alone):
        single = codec.encode(wav)
        assert torch.equal(together[i].codes, single.codes)
        assert torch.equal(together[i].time_invariant, single.time_invariant)  # type: ignore[arg-type]
        expected = codec.decode(single)
        torch.testing.assert_close(decoded[i : i + 1, :, : expected.shape[-1]], expected, atol=1e-5, rtol=1e-4)
        assert not decoded[i, :, expected.shape[-1] :].any()


def test_few_lengths_reach_the_convolutions(codec: SpectralCodec) -> None:
    """Of each length that they meet something is kept: a process that speaks for hours must not meet all of them."""
    met = set()
    for block in (codec.decoder.coarse[0], codec.encoder.blocks[0]):
        block.register_forward_pre_hook(lambda _, inputs: met.add(inputs[0].shape[1]))
    for frames in range(1, 70, 3):
        codec.representation(torch.randn(1, 1, 320 * frames + 7))
        codes, voice = torch.zeros(1, 4, frames, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long)
        codec.decode(SpeechCodes(codes, torch.tensor([frames]), voice))
    assert met == {32, 64, 96}


def test_fewer_quantizers_decode_to_something_else(codec: SpectralCodec) -> None:
    codes = codec.encode(torch.randn(1, 1, 6400))
    one = codec.decode(SpeechCodes(codes.codes[:, :1], codes.lengths, codes.time_invariant))
    assert one.shape == codec.decode(codes).shape
    assert not torch.allclose(one, codec.decode(codes))


def test_time_invariant_codes_change_the_output(codec: SpectralCodec) -> None:
    codes = codec.encode(torch.randn(1, 1, 6400))
    assert codes.time_invariant is not None
    other = SpeechCodes(codes.codes, codes.lengths, (codes.time_invariant + 1) % 16)
    assert not torch.allclose(codec.decode(other), codec.decode(codes))


def test_the_reference_segment_lends_its_voice(codec: SpectralCodec) -> None:
    wav, reference = torch.randn(2, 1, 6400), 0.01 * torch.randn(2, 1, 9600)
    own = codec(wav, reference, torch.tensor([False, False])).time_invariant_codes
    mixed = codec(wav, reference, torch.tensor([False, True])).time_invariant_codes
    lent = codec(reference).time_invariant_codes
    assert torch.equal(mixed[0], own[0]) and torch.equal(mixed[1], lent[1])
    assert not torch.equal(own[1], lent[1])


def test_without_the_time_invariant_part() -> None:
    codec = build_codec("spectral", {**TINY, "time_invariant": False}).eval()
    codes = codec.encode(torch.randn(1, 1, 3200))
    assert codes.time_invariant is None and codec.spec.n_time_invariant == 0
    assert codec.decode(codes).shape == (1, 1, 3200)


def test_an_early_layer_feeds_tire_and_takes_its_gradient() -> None:
    torch.manual_seed(0)
    codec = SpectralCodec(**TINY)  # type: ignore[arg-type]
    out = codec(torch.randn(4, 1, 3200))
    out.representation.square().sum().backward()
    assert codec.encoder.blocks[0].up.weight.grad is not None
    assert codec.encoder.blocks[2].up.weight.grad is None


def test_codes_of_another_codec_are_refused(codec: SpectralCodec) -> None:
    frames = torch.tensor([3])
    ti = torch.zeros(1, 8, dtype=torch.long)
    with pytest.raises(ValueError, match="has 4 quantizers, got codes of 5"):
        codec.decode(SpeechCodes(torch.zeros(1, 5, 3, dtype=torch.long), frames, ti))
    with pytest.raises(ValueError, match=r"0\.\.63"):
        codec.decode(SpeechCodes(torch.full((1, 4, 3), 64), frames, ti))
    with pytest.raises(ValueError, match="needs 8 time-invariant codes, got 0"):
        codec.decode(SpeechCodes(torch.zeros(1, 4, 3, dtype=torch.long), frames))


def test_save_and_load_give_the_same_codes(codec: SpectralCodec, tmp_path: Path) -> None:
    codec.half().float()  # what is stored
    save_codec(codec, tmp_path, {"data": "noise"})
    again = load_codec(tmp_path)
    wav = torch.randn(1, 1, 6400)
    assert again.spec == codec.spec
    assert torch.equal(again.encode(wav).codes, codec.encode(wav).codes)
    torch.testing.assert_close(again.decode(again.encode(wav)), codec.decode(codec.encode(wav)))


def test_broken_codec_folders_are_named(codec: SpectralCodec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config.json"):
        load_codec(tmp_path)
    (tmp_path / "me.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"me\.wav is no codec"):
        load_codec(tmp_path / "me.wav")
    save_codec(codec, tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match="does not describe a codec"):
        load_codec(tmp_path)
    save_codec(codec, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def refuses(match: str, **changes: object) -> None:
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError, match=match):
            load_codec(tmp_path)

    refuses("format version 99", format_version=99)
    refuses("contradicts itself", spec={**config["spec"], "n_q": 2})
    refuses("unknown codec 'opus'; known codecs: .*spectral", spec={**config["spec"], "name": "opus"})
    refuses("does not accept this configuration", config={"colour": "red"})
    refuses("does not fit its config.json", config={**config["config"], "hidden": 65})
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "codec.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="is damaged"):
        load_codec(tmp_path)
    (tmp_path / "codec.safetensors").unlink()
    with pytest.raises(UserError, match="is missing"):
        load_codec(tmp_path)


def test_spec_arithmetic() -> None:
    spec = CodecSpec("x", 16000, 320, 4, 1024)
    assert spec.frame_rate == 50 and spec.frames(0) == 0 and spec.frames(1) == 1 and spec.frames(640) == 2
    assert CodecSpec.from_dict(spec.to_dict()) == spec
