"""VoCodec: causality, latency, independence of padding, local attention against a plain one, streaming, refusing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from valle.common.errors import UserError
from valle.tokenizers.codecs import SpeechCodes, build_codec, load_codec, save_codec
from valle.tokenizers.codecs.attention import LocalAttention
from valle.tokenizers.codecs.cost import measure_cost
from valle.tokenizers.codecs.vocodec import VoCodec

TINY: dict[str, Any] = {
    "dim": 32,
    "hidden": 48,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "heads": 2,
    "attention_frames": 7,
    "codebook_size": 64,
    "n_q": 3,
    "time_invariant_size": 16,
}


def tiny(**changes: Any) -> VoCodec:
    torch.manual_seed(0)
    codec = build_codec("vocodec", TINY | changes)
    assert isinstance(codec, VoCodec)
    torch.nn.init.normal_(codec.encoder.attention.bias)
    for _ in range(10):  # for codebooks near the data, and the statistics of TIRE's BatchNorm
        codec(torch.randn(4, 1, 4800) * torch.rand(4, 1, 1))
    return codec.eval()


@pytest.mark.parametrize("changes", [{}, {"causal": False, "time_invariant": True, "n_fft": 960}], ids=["causal", "ti"])
def test_a_padded_batch_equals_one_by_one(changes: dict[str, Any]) -> None:
    codec = tiny(**changes)
    lengths = [7200, 2401, 240, 1]
    alone = [torch.randn(1, 1, n) for n in lengths]
    batch = torch.randn(4, 1, 8000)  # noise beyond the lengths: it must not be heard
    for i, wav in enumerate(alone):
        batch[i, :, : lengths[i]] = wav
    together = codec.encode(batch, torch.tensor(lengths))
    decoded = codec.decode(together)
    assert together.lengths.tolist() == [30, 11, 1, 1] and together.codes[0].unique().numel() > 5
    for i, wav in enumerate(alone):
        single = codec.encode(wav)
        assert torch.equal(together[i].codes, single.codes)
        if single.time_invariant is not None:
            assert torch.equal(together[i].time_invariant, single.time_invariant)  # type: ignore[arg-type]
        expected = codec.decode(single)
        torch.testing.assert_close(decoded[i : i + 1, :, : expected.shape[-1]], expected, atol=1e-5, rtol=1e-4)
        assert not decoded[i, :, expected.shape[-1] :].any()


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_codec_is_as_late_as_one_window(causal: bool) -> None:
    codec = tiny(causal=causal)
    # In training mode the quantizer passes gradients, but its codebooks would move.
    wav = torch.randn(1, 1, 9600, requires_grad=True)
    codec(wav).wav[0, 0, :4800].sum().backward()
    assert wav.grad is not None
    heard = wav.grad[0, 0].nonzero()[:, 0]
    assert (int(heard.max()) < 4800 + 480) is causal
    assert heard.min() == 0


@pytest.mark.parametrize("causal", [True, False])
def test_a_stream_equals_decoding_all_at_once(causal: bool) -> None:
    codec = tiny(causal=causal)
    codes = SpeechCodes(torch.randint(64, (1, 3, 50)), torch.tensor([50]))
    expected = codec.decode(codes)[0, 0]
    stream = codec.decode_stream()
    pieces = [stream.push(piece) for piece in codes.codes[0].split([1, 2, 7, 1, 20, 19], 1)]
    late = 1 if causal else 10
    assert sum(p.shape[0] for p in pieces) == (50 - late) * 240
    actual = torch.cat((*pieces, stream.finish()))
    torch.testing.assert_close(actual, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(("past", "future"), [(3, 0), (2, 2), (0, 0), (40, 40)])
def test_local_attention_is_attention_with_a_mask(past: int, future: int) -> None:
    torch.manual_seed(0)
    layer = LocalAttention(8, 2, past, future)
    torch.nn.init.normal_(layer.bias)
    x, mask = torch.randn(2, 23, 8), torch.arange(23) < torch.tensor([[23], [9]])

    def plain(x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            y.reshape(1, -1, 2, 4).transpose(1, 2) for y in layer.project_in(layer.norm(x)).chunk(3, -1)
        )
        distance = torch.arange(x.shape[1])[None] - torch.arange(x.shape[1])[:, None]
        scores = query @ key.transpose(-1, -2) / 2
        for i, row in enumerate(distance.tolist()):
            for j, d in enumerate(row):
                near = -past <= d <= future and bool(mask[0, j])
                scores[0, :, i, j] += layer.bias[:, d + past] if near else float("-inf")
        y = (scores.softmax(-1) @ value).transpose(1, 2).reshape(1, -1, 8)
        return x + layer.scale * F.linear(y, layer.project_out.weight, layer.project_out.bias)

    with torch.no_grad():
        together = layer(x, mask)
        torch.testing.assert_close(together[:1], plain(x[:1], mask[:1]))
        torch.testing.assert_close(together[1:, :9], plain(x[1:, :9], mask[1:, :9]))
        assert together.isfinite().all()


def test_training_pass_reaches_every_weight() -> None:
    codec = tiny(time_invariant=True).train()
    out = codec(torch.randn(2, 1, 2400), torch.randn(2, 1, 2400), torch.tensor([True, False]), torch.tensor([1, 3]))
    (out.wav.square().mean() + out.commitment).backward()
    assert [name for name, weight in codec.named_parameters() if weight.grad is None] == []


def test_save_and_load_give_the_same_codes(tmp_path: Path) -> None:
    stored = tiny(time_invariant=True).half().float()
    save_codec(stored, tmp_path)
    again = load_codec(tmp_path)
    wav = torch.randn(1, 1, 2400)
    assert again.spec == stored.spec and torch.equal(again.encode(wav).codes, stored.encode(wav).codes)


def test_the_published_size_costs_what_the_paper_says() -> None:
    cost = measure_cost(VoCodec().eval())
    assert cost.encode_macs + cost.decode_macs == pytest.approx(349.29e6, rel=0.02)
    assert cost.decode_macs < cost.encode_macs


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_fft": 700}, "not 700 for 240"),
        ({"n_fft": 240}, "not 240 for 240"),
        ({"heads": 5}, "multiple of heads, got 32 and 5"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        build_codec("vocodec", TINY | changes)
