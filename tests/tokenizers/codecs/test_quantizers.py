"""Quantizers: look-up, codes <-> vectors, dropout, and codebooks that follow the data and revive dead codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from valle.tokenizers.codecs.quantizers import (
    GroupedResidualQuantizer,
    GroupQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

ROOT = Path(__file__).parents[3]


def test_nearest_code_is_the_brute_force_one() -> None:
    quantizer = VectorQuantizer(6, 50).eval()
    x = torch.randn(30, 6)
    distance = (x[:, None] - quantizer.codebook[None]).norm(dim=-1)
    assert torch.equal(quantizer(x).codes, distance.argmin(1))


@pytest.mark.parametrize("code_dim", [None, 4])
def test_codes_decode_to_the_quantized_vectors(code_dim: int | None) -> None:
    quantizer = ResidualQuantizer(16, 3, 32, code_dim).eval()
    quantized = quantizer(torch.randn(2, 7, 16))
    torch.testing.assert_close(quantizer.decode(quantized.codes), quantized.vectors, atol=1e-5, rtol=1e-5)


def test_group_codes_decode_to_the_quantized_vectors() -> None:
    quantizer = GroupQuantizer(32, 4, 16).eval()
    quantized = quantizer(torch.randn(5, 32))
    assert quantized.codes.shape == (5, 4)
    torch.testing.assert_close(quantizer.decode(quantized.codes), quantized.vectors)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="cannot be cut into 3"):
        GroupQuantizer(32, 3, 16)


def test_residual_error_falls_with_every_quantizer_once_trained() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(8, 3, 64)
    x = torch.randn(1, 2000, 8)
    for _ in range(60):
        quantizer(x)
    codes = quantizer.eval()(x).codes
    errors = [(quantizer.decode(codes[..., :n]) - x).square().mean().item() for n in (1, 2, 3)]
    assert errors[0] < 0.6 and errors[1] < 0.7 * errors[0] and errors[2] < 0.7 * errors[1]


def test_depth_drops_later_quantizers_from_output_and_learning() -> None:
    quantizer = ResidualQuantizer(8, 2, 16)
    x = torch.randn(2, 5, 8)
    before = quantizer.layers[1].codebook.clone()
    out = quantizer(x, depth=torch.tensor([1, 1]))
    torch.testing.assert_close(out.vectors.detach(), quantizer.layers[0].codebook[out.codes[..., 0]], rtol=0, atol=2.0)
    assert torch.equal(quantizer.layers[1].codebook, before)
    full = quantizer.eval()(x)
    first = quantizer(x, depth=torch.tensor([1, 2]))
    torch.testing.assert_close(first.vectors[1], full.vectors[1])
    torch.testing.assert_close(first.vectors[0], quantizer.layers[0].decode(full.codes[0, :, 0]))


def test_masked_frames_do_not_teach_the_codebook() -> None:
    quantizer = ResidualQuantizer(4, 1, 8)
    x = torch.zeros(1, 6, 4)
    x[:, 3:] = 100.0
    for _ in range(30):
        quantizer(x, mask=torch.tensor([[True] * 3 + [False] * 3]))
    assert quantizer.layers[0].codebook.abs().max() < 50


def test_dead_codes_are_revived() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 64, decay=0.9)
    quantizer.codebook += 1000.0  # every code but the luckiest is far from the data
    for _ in range(60):
        quantizer(torch.randn(256, 4))
    used = quantizer.eval()(torch.randn(4096, 4)).codes.unique()
    assert len(used) >= 60


@pytest.mark.parametrize("code_dim", [None, 4])
def test_a_vector_that_is_not_finite_moves_nothing(code_dim: int | None) -> None:
    quantizer = VectorQuantizer(4, 8, code_dim)
    quantizer(torch.randn(64, 4))
    before = [b.clone() for b in quantizer.buffers()]
    for bad in (torch.nan, torch.inf):
        x = torch.randn(64, 4)
        x[5, 2] = bad
        quantizer(x)
        assert all(torch.equal(a, b) for a, b in zip(before, quantizer.buffers(), strict=True))
    quantizer(torch.randn(64, 4))
    assert not torch.equal(before[0], quantizer.codebook)


def test_gradient_passes_straight_through() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    VectorQuantizer(4, 8).eval()(x).vectors.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.ones(3, 4))


def test_groups_are_quantized_apart_layer_by_layer() -> None:
    quantizer = GroupedResidualQuantizer(8, 2, 2, 16).eval()
    x = torch.randn(3, 5, 8)
    residual, expected = x, []
    for layer in range(2):
        step = []
        for group, part in enumerate(residual.chunk(2, -1)):
            codebook = quantizer.groups[group].layers[layer].codebook
            codes = torch.cdist(part, codebook.expand(3, -1, -1)).argmin(-1)
            expected.append(codes)
            step.append(codebook[codes])
        residual = residual - torch.cat(step, -1)
    out = quantizer(x)
    assert torch.equal(out.codes, torch.stack(expected, -1))
    torch.testing.assert_close(out.vectors, x - residual)
    torch.testing.assert_close(quantizer.decode(out.codes), out.vectors)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_depth_of_grouped_codes_is_that_of_decoding_the_first_ones(n: int) -> None:
    quantizer = GroupedResidualQuantizer(8, 2, 2, 16).eval()
    out = quantizer(torch.randn(1, 5, 8), depth=torch.tensor([n]))
    torch.testing.assert_close(quantizer.decode(out.codes[..., :n]), out.vectors)


def test_processes_with_different_numbers_of_vectors_share_a_codebook(tmp_path: Path) -> None:
    """With quantizer dropout a process may have none: it must not leave the others waiting."""
    code = """
import sys, torch, torch.distributed as dist
from valle.tokenizers.codecs.quantizers import VectorQuantizer
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(0)
quantizer = VectorQuantizer(4, 32)
torch.manual_seed(rank)
for mine in (6, 0, 2):
    quantizer(torch.randn(6, 4), torch.arange(6) < (mine if rank else 6))
quantizer(torch.full((6, 4), torch.nan if rank else 1.0))  # nobody learns from what is not finite for one
torch.save(quantizer.codebook, f"{folder}/{rank}.pt")
dist.barrier()  # one that leaves while the other still listens makes it abort
dist.destroy_process_group()
"""
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(rank), str(tmp_path)], cwd=ROOT) for rank in (0, 1)]
    assert [job.wait(timeout=300) for job in jobs] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, second) and first.isfinite().all()
