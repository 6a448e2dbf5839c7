from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.eval.judges.measure import UnmeasurableError
from valle.eval.judges.naturalness import build_naturalness

RATE = 16_000
CLEAR = "1688-142285-0002"


def test_dnsmos_hears_noise(speech: Callable[[str], Tensor]) -> None:
    pytest.importorskip("speechmos.dnsmos")
    wav = speech(CLEAR)
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0)) * wav.std()
    judge = build_naturalness("dnsmos")
    clean, noisy = judge.score(wav, RATE), judge.score(wav + noise, RATE)
    assert set(clean) == {"dnsmos", "dnsmos_sig", "dnsmos_bak"}
    assert clean["dnsmos"] > noisy["dnsmos"] + 0.5
    assert clean["dnsmos_bak"] > noisy["dnsmos_bak"] + 0.5
    with pytest.raises(UnmeasurableError, match="silence"):
        judge.score(wav * 0, RATE)
    with pytest.raises(UnmeasurableError, match="shorter than"):
        judge.score(wav[:4000], RATE)


class Loudest(torch.nn.Module):
    """In the place of UTMOS: its score is the largest of the 16-bit samples."""

    def forward(self, wav: Tensor) -> Tensor:
        assert wav.dtype == torch.int16
        return wav.amax(dim=1).float() / 10_000


def test_utmos_gets_what_its_file_wants(tmp_path: Path) -> None:
    torch.jit.script(Loudest()).save(tmp_path / "utmos.jit")
    wav = torch.full((24_000,), 0.5)
    assert build_naturalness("utmos", str(tmp_path / "utmos.jit")).score(wav, RATE) == {
        "utmos": pytest.approx(1.638, abs=1e-3)
    }
    (tmp_path / "utmos.jit").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot be read as TorchScript; fetch it with"):
        build_naturalness("utmos", str(tmp_path / "utmos.jit"))


@pytest.mark.parametrize(
    ("name", "weights", "complaint"),
    [
        ("mosnet", None, "known ones: dnsmos, utmos, nisqa"),
        ("dnsmos", "x", "built in"),
        ("utmos", None, "needs its weights: utmos=FILE; fetch it with: hf download"),
        ("nisqa", "none.tar", "are not at none.tar; fetch nisqa.tar from"),
    ],
)
def test_what_is_missing_is_explained(name: str, weights: str | None, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build_naturalness(name, weights)
