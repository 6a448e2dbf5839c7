"""The convolutional codecs: shapes, independence of padding, fewer codes, the voice, training, saving and refusing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from valle.common.errors import UserError
from valle.tokenizers.codecs import SpeechCodec, SpeechCodes, build_codec, load_codec, save_codec
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
from valle.tokenizers.codecs.conv_layers import MaskedGroupNorm

TINY: dict[str, Any] = {
    "upsample_rates": (5, 4, 2),
    "upsample_kernels": (11, 8, 4),
    "channels": 64,
    "decoder_channels": 32,
    "residual_kernels": (3, 7),
    "residual_dilations": ((1, 3), (1, 3)),
    "codebook_size": 64,
    "time_invariant_size": 16,
    "time_invariant_groups": 4,
}


def tiny(name: str, **changes: Any) -> AutoencoderCodec:
    torch.manual_seed(0)
    codec = build_codec(name, TINY | changes)
    assert isinstance(codec, AutoencoderCodec)
    if codec.time_invariant is not None:
        codec.time_invariant.encoder.norm.momentum = None  # averages all batches, from the first on
    for _ in range(5):  # for the statistics of TIRE's BatchNorm, and codebooks near the data
        codec(torch.randn(4, 1, 1600) * torch.rand(4, 1, 1))
    return codec.eval()


@pytest.fixture(scope="module")
def hificodec() -> AutoencoderCodec:
    return tiny("hificodec")


@pytest.fixture(scope="module")
def ticodec() -> AutoencoderCodec:
    return tiny("ticodec")


def test_the_defaults_are_the_published_models() -> None:
    small = {"channels": 128, "decoder_channels": 128}
    hificodec, ticodec = build_codec("hificodec", small).spec, build_codec("ticodec", small | {"n_q": 1}).spec
    assert (hificodec.n_q, hificodec.hop_length, hificodec.n_time_invariant) == (4, 320, 0)
    assert (ticodec.n_q, ticodec.hop_length, ticodec.n_time_invariant, ticodec.time_invariant_size) == (1, 320, 8, 1024)


@pytest.mark.parametrize("rates", [((5, 4, 2), (11, 8, 4)), ((5, 3, 2), (11, 7, 4))])
def test_shapes_follow_the_spec(rates: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    codec = build_codec("ticodec", TINY | {"upsample_rates": rates[0], "upsample_kernels": rates[1], "n_q": 4}).eval()
    hop = codec.spec.hop_length
    codes = codec.encode(torch.randn(2, 1, 10 * hop + 1))
    assert codes.codes.shape == (2, 4, 11) and codes.lengths.tolist() == [11, 11]
    assert codes.time_invariant is not None and codes.time_invariant.shape == (2, 4)
    assert codec.decode(codes).shape == (2, 1, 11 * hop)


@pytest.mark.parametrize("name", ["hificodec", "ticodec"])
def test_a_padded_batch_equals_one_by_one(name: str, request: pytest.FixtureRequest) -> None:
    codec: SpeechCodec = request.getfixturevalue(name)
    torch.manual_seed(1)
    lengths = [2000, 700, 401]
    alone = [torch.randn(1, 1, n) for n in lengths]
    # Noise beyond the lengths: it must not be heard.
    batch = torch.randn(3, 1, 2200)
    for i, wav in enumerate(alone):
        batch[i, :, : lengths[i]] = wav
    together = codec.encode(batch, torch.tensor(lengths))
    together.codes += ~(torch.arange(55) < together.lengths[:, None])[:, None] * 3
    decoded = codec.decode(together)
    for i, wav in enumerate(alone):
        single = codec.encode(wav)
        assert torch.equal(together[i].codes, single.codes)
        if single.time_invariant is not None:
            assert torch.equal(together[i].time_invariant, single.time_invariant)  # type: ignore[arg-type]
        expected = codec.decode(single)
        torch.testing.assert_close(decoded[i : i + 1, :, : expected.shape[-1]], expected, atol=1e-5, rtol=1e-4)
        assert not decoded[i, :, expected.shape[-1] :].any()


def test_masked_group_norm_is_group_norm_of_each_utterance() -> None:
    torch.manual_seed(0)
    norm = MaskedGroupNorm(4, 32, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    lengths = torch.tensor([9, 5])
    mask = (torch.arange(9) < lengths[:, None])[:, None]
    x = (torch.randn(2, 32, 9) + 3) * mask
    out = norm(x, mask)
    for i, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(out[i : i + 1, :, :length], norm(x[i : i + 1, :, :length]))
        assert not out[i, :, length:].any()


def test_fewer_codes_decode_to_something_else(hificodec: AutoencoderCodec) -> None:
    codes = hificodec.encode(torch.randn(1, 1, 1600))
    outputs = [hificodec.decode(SpeechCodes(codes.codes[:, :n], codes.lengths)) for n in (1, 2, 3, 4)]
    for fewer, more in itertools.pairwise(outputs):
        assert fewer.shape == more.shape and not torch.allclose(fewer, more)


def test_time_invariant_codes_change_the_output(ticodec: AutoencoderCodec) -> None:
    codes = ticodec.encode(torch.randn(1, 1, 1600))
    assert codes.time_invariant is not None
    other = SpeechCodes(codes.codes, codes.lengths, (codes.time_invariant + 1) % 16)
    assert not torch.allclose(ticodec.decode(other), ticodec.decode(codes))


def test_training_pass_reaches_every_weight() -> None:
    codec = tiny("ticodec").train()
    out = codec(torch.randn(2, 1, 800), torch.randn(2, 1, 1200), torch.tensor([True, False]), torch.tensor([1, 2]))
    assert out.wav.shape == (2, 1, 800) and out.representation is not None and out.reference is not None
    (out.wav.square().mean() + out.commitment).backward()
    assert [name for name, weight in codec.named_parameters() if weight.grad is None] == []


def test_the_reference_segment_lends_its_voice(ticodec: AutoencoderCodec) -> None:
    wav, reference = torch.randn(2, 1, 1600), torch.sin(torch.arange(2400.0) / 5).expand(2, 1, -1)
    own = ticodec(wav, reference, torch.tensor([False, False])).time_invariant_codes
    mixed = ticodec(wav, reference, torch.tensor([False, True])).time_invariant_codes
    lent = ticodec(reference).time_invariant_codes
    assert torch.equal(mixed[0], own[0]) and torch.equal(mixed[1], lent[1])
    assert not torch.equal(own[1], lent[1])


def test_save_and_load_give_the_same_codes(tmp_path: Path) -> None:
    stored = tiny("ticodec").half().float()
    save_codec(stored, tmp_path)
    again = load_codec(tmp_path)
    wav = torch.randn(1, 1, 1600)
    assert again.spec == stored.spec and again.fingerprint == stored.fingerprint
    assert torch.equal(again.encode(wav).codes, stored.encode(wav).codes)
    torch.testing.assert_close(again.decode(again.encode(wav)), stored.decode(stored.encode(wav)))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"upsample_kernels": (11, 8)}, "as many upsample_kernels as _rates"),
        ({"upsample_kernels": (11, 8, 3)}, "not 3 for 2"),
        ({"residual_kernels": (3, 4)}, "must be odd"),
        ({"n_q": 3, "groups": 2}, "multiple of groups, got 3 and 2"),
        ({"channels": 96}, "multiple of 64, got 96"),
        ({"decoder_channels": 64}, "joins 16 channels of the encoder to 32 of the decoder"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        build_codec("ticodec", TINY | changes)
