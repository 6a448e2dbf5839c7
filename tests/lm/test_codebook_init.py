"""Tables that start from a codec's codebooks."""

from __future__ import annotations

import pytest
import torch

from valle.common.errors import UserError
from valle.lm.codebook_init import start_from_codec, start_voice_from_codec
from valle.lm.config import ARConfig
from valle.lm.prefix import PrefixEmbedding
from valle.tokenizers.codecs.conv import HifiCodec
from valle.tokenizers.codecs.spectral import SpectralCodec

TINY = {"dim": 32, "hidden": 32, "encoder_layers": 2, "decoder_layers": (2, 1), "codebook_size": 64, "n_q": 2}


def alike(table: torch.Tensor, vectors: torch.Tensor) -> float:
    """Correlation of the distances between rows with those between vectors."""
    return float(torch.corrcoef(torch.stack([torch.pdist(table), torch.pdist(vectors)]))[0, 1])


@pytest.mark.parametrize("dim", [32, 96])
def test_codes_lie_as_in_the_codec_whatever_the_width(dim: int) -> None:
    torch.manual_seed(0)
    codec = SpectralCodec(**TINY)
    tables = torch.nn.Parameter(torch.zeros(2, 65, dim))
    start_from_codec(tables, codec)
    vectors = codec.code_vectors()
    for table, own, other in zip(tables, vectors, vectors.flip(0), strict=True):
        assert alike(table[:64], own) > 0.6 > 0.3 > alike(table[:64], other)
        assert table[:64].std().item() == pytest.approx(0.02, rel=0.2)
        assert not table[64].any()  # the row of "no code" is left alone


def test_voices_lie_as_in_the_codec() -> None:
    torch.manual_seed(0)
    codec = SpectralCodec(**TINY, time_invariant_groups=4, time_invariant_size=32)
    assert codec.time_invariant is not None
    for layer in codec.time_invariant.quantizer.layers:
        layer.codebook.normal_()
    vectors = codec.time_invariant_vectors()
    assert vectors is not None
    codes = torch.randint(32, (3, 4))
    parts = torch.cat([vectors[g][codes[:, g]] for g in range(4)], -1)
    torch.testing.assert_close(parts, codec.time_invariant.quantizer.decode(codes))
    config = ARConfig(text_vocab_size=9, codebook_size=64, n_time_invariant=4, time_invariant_size=32, dim=32, heads=2)
    prefix = PrefixEmbedding(config)
    start_voice_from_codec(prefix.voice_tables, codec)
    every_code = torch.arange(32)[:, None].expand(-1, 4)
    embedded = prefix.eval()(torch.ones(32, 1, dtype=torch.long), torch.ones(32, dtype=torch.long), every_code)
    for g in range(4):
        assert alike(embedded.x[:, g], vectors[g]) > 0.6 > 0.3 > alike(embedded.x[:, g], vectors[g - 1])


def test_vectors_of_codes_are_what_decoding_sums() -> None:
    torch.manual_seed(0)
    for codec in (SpectralCodec(**TINY), HifiCodec(channels=128, decoder_channels=128)):
        vectors = codec.code_vectors()
        n_q = codec.spec.n_q
        assert len(vectors) == n_q
        codes = torch.randint(codec.spec.codebook_size, (1, 5, n_q))
        summed = sum(vectors[q][codes[0, :, q]] for q in range(n_q))
        torch.testing.assert_close(summed, codec.quantizer.decode(codes)[0])


def test_another_codec_is_refused() -> None:
    codec = SpectralCodec(**TINY)
    for shape in ((3, 64, 32), (2, 50, 32)):
        with pytest.raises(UserError, match=r"model\.codec"):
            start_from_codec(torch.zeros(shape), codec)
