"""`valle import`: codec folders that every other command can use, from files of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from valle.cli import main
from valle.tokenizers.codecs import build_codec, load_codec
from valle.tokenizers.codecs.released import released_name

SHAPE = {
    "upsample_rates": [5, 2],
    "upsample_kernel_sizes": [11, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "sampling_rate": 16000,
    "n_code_groups": 1,
    "residul_layer": 1,
    "n_codes": 16,
    "global_code_num": 4,
}


@pytest.fixture
def released(tmp_path: Path) -> tuple[str, str]:
    """A small TiCodec with random weights, as its authors release it: checkpoint and configuration."""
    torch.manual_seed(0)
    codec = build_codec(
        "ticodec",
        {
            "n_q": 1,
            "upsample_rates": (5, 2),
            "upsample_kernels": (11, 4),
            "residual_kernels": (3,),
            "residual_dilations": ((1,),),
            "codebook_size": 16,
            "time_invariant_size": 16,
            "time_invariant_groups": 4,
        },
    )
    parts: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "quantizer": {}, "generator": {}}
    for name, tensor in codec.state_dict().items():
        part, _, rest = released_name(name, 1).partition(".")
        parts[part][rest] = tensor
    torch.save(parts, tmp_path / "ticodec")
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    return str(tmp_path / "ticodec"), str(tmp_path / "config.json")


def test_ticodec_becomes_a_codec_folder(
    released: tuple[str, str], tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "codec")
    assert main(["import", "ticodec", *released, out]) == 0
    assert capsys.readouterr().out.endswith("ticodec, 16000 Hz, 1600 frames/s, 1 codes, 4 time-invariant codes\n")
    assert json.loads((tmp_path / "codec" / "config.json").read_text())["provenance"]["imported_from"] == "ticodec"
    spec = load_codec(out).spec
    assert (spec.name, spec.sample_rate, spec.hop_length, spec.n_time_invariant) == ("ticodec", 16000, 10, 4)
    assert main(["info", out]) == 0


def test_files_that_do_not_fit_are_one_line(
    released: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "hificodec", *released, str(tmp_path / "codec")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "lacks 1 tensors (quantizer.quantizer_modules2.0.embedding.weight)" in message
    assert main(["import", "encodec", str(tmp_path / "codec"), "--bandwidth", "5"]) == 2
    assert capsys.readouterr().err.startswith("valle: EnCodec's bandwidth must be one of 1.5")
