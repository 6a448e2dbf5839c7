"""Released checkpoints: what the authors' code computes from the same weights; files that do not belong together."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from valle.common.errors import UserError
from valle.tokenizers.codecs import SpeechCodes, build_codec
from valle.tokenizers.codecs.released import read_released, released_name

GOLDEN = Path(__file__).parent / "golden"
CONFIG: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [8, 5, 4, 2],
    "upsample_kernel_sizes": [16, 11, 8, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "hop_size": 240,
    "sampling_rate": 24000,
    "n_code_groups": 2,
    "n_codes": 1024,
}
TICODEC = {"n_code_groups": 1, "residul_layer": 2, "global_code_num": 8}
SMALL = {
    "upsample_rates": [2],
    "upsample_kernel_sizes": [4],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "n_codes": 4,
}
Files = tuple[Path, Path]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Files]:
    """Writes a checkpoint and its configuration."""

    def write(parts: Any, **changes: Any) -> Files:
        checkpoint, config = tmp_path / "released", tmp_path / "config.json"
        torch.save(parts, checkpoint)
        config.write_text(json.dumps(CONFIG | changes))
        return checkpoint, config

    return write


def small_parts() -> dict[str, dict[str, torch.Tensor]]:
    """A small HiFi-Codec in the released format."""
    codec = build_codec(
        "hificodec",
        {
            "upsample_rates": (2,),
            "upsample_kernels": (4,),
            "decoder_channels": 16,
            "residual_kernels": (3,),
            "residual_dilations": ((1,),),
            "codebook_size": 4,
        },
    )
    parts: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "quantizer": {}, "generator": {}}
    for name, tensor in codec.state_dict().items():
        part, _, rest = released_name(name, 1).partition(".")
        parts[part][rest] = tensor
    return parts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "released", "changes"),
    [("ticodec", "ticodec_24k_320d_1g2r", TICODEC), ("hificodec", "hificodec_24k_320d", {})],
)
def test_the_authors_code_computes_the_same(
    kind: str, released: str, changes: dict[str, Any], write: Callable[..., Files]
) -> None:
    parts = runpy.run_path(str(GOLDEN / "released_checkpoint.py"))["state_dict"](released)
    codec = read_released(kind, *write(parts, **changes))
    with np.load(GOLDEN / f"{released}.npz", allow_pickle=False) as stored:
        golden = {name: torch.from_numpy(stored[name]) for name in stored}
    wav = torch.from_numpy(soundfile.read(GOLDEN / "input.flac", dtype="float32")[0])[None, None]

    with torch.no_grad():
        latent = codec.encoder(codec.encoder.early_features(wav[:, 0]))[0, :20].T
    expected = golden["latent"] * golden["latent_scale"]
    assert (latent - expected).abs().max() < 1e-4 * expected.abs().max()

    codes = codec.encode(wav)
    expected_codes = golden["codes"].long().T[None]
    assert codes.codes.shape == expected_codes.shape
    assert (codes.codes != expected_codes).float().mean() <= 0.005  # ties
    voice = None
    if kind == "ticodec":
        voice = golden["time_invariant_codes"].long()[None]
        assert codes.time_invariant is not None and torch.equal(codes.time_invariant, voice)

    decoded = codec.decode(SpeechCodes(expected_codes, codes.lengths, voice))[0, 0]
    assert decoded.shape == (48000,)
    assert (decoded[:24000] - golden["waveform"] * golden["waveform_scale"]).abs().max() < 1e-4


def test_every_tensor_of_the_released_files_has_its_place() -> None:
    """Also those of four residual layers, of which there is no golden file."""
    shapes = json.loads((GOLDEN / "ticodec_24k_320d_1g2r.shapes.json").read_text())
    given = {f"{part}.{name}" for part, tensors in shapes.items() for name in tensors}
    given -= {"encoder.linear.0.weight", "encoder.linear.0.bias"}  # which the authors' code never uses
    given |= {f"quantizer.quantizer_modules{i}.0.embedding.weight" for i in (3, 4)}
    codec = build_codec("ticodec", {"n_q": 4, "channels": 128, "decoder_channels": 128, "codebook_size": 2})
    assert {released_name(name, 3) for name in codec.state_dict()} == given


def test_tensors_that_do_not_fit_are_named(write: Callable[..., Files]) -> None:
    parts = small_parts()
    read_released("hificodec", *write(parts, **SMALL))
    bias = parts["encoder"].pop("conv_pre.bias")
    with pytest.raises(UserError, match=r"it lacks 1 tensors \(encoder.conv_pre.bias\)$"):
        read_released("hificodec", *write(parts, **SMALL))
    parts["encoder"]["pre.bias"] = bias
    with pytest.raises(UserError, match=r"\(encoder.conv_pre.bias\) and has 1 tensors \(encoder.pre.bias\) that are"):
        read_released("hificodec", *write(parts, **SMALL))
    parts = small_parts()
    parts["generator"]["conv_post.bias"] = torch.zeros(2)
    with pytest.raises(UserError, match=r"size mismatch for decoder.last.bias"):
        read_released("hificodec", *write(parts, **SMALL))
    with pytest.raises(UserError, match=r"it lacks \d+ tensors \(encoder.normalize.1.bias"):
        read_released("hificodec", *write(small_parts()))


def test_files_that_are_something_else_are_named(write: Callable[..., Files], tmp_path: Path) -> None:
    checkpoint, config = write(small_parts(), **SMALL)
    with pytest.raises(UserError, match="absent does not exist"):
        read_released("hificodec", tmp_path / "absent", config)
    with pytest.raises(UserError, match="cannot read .*absent"):
        read_released("hificodec", checkpoint, tmp_path / "absent")
    with pytest.raises(UserError, match="has no 'residul_layer'"):
        read_released("ticodec", checkpoint, config)
    with pytest.raises(UserError, match="is no released codec: it must hold"):
        read_released("hificodec", *write({"model": {}}, **SMALL))
    with pytest.raises(UserError, match="residual blocks of kind '2'"):
        read_released("hificodec", *write(small_parts(), **(SMALL | {"resblock": "2"})))
    checkpoint.write_bytes(b"not weights")
    config.write_text(json.dumps(CONFIG | SMALL))
    with pytest.raises(UserError, match="released cannot be read as a checkpoint"):
        read_released("hificodec", checkpoint, config)
    config.write_text("[]")
    with pytest.raises(UserError, match="is no JSON configuration"):
        read_released("hificodec", checkpoint, config)
