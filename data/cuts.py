"""Reading lhotse cuts: manifests, speakers, audio. The only place that knows how a cut becomes a waveform."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from valle.common.audio import resample
from valle.common.errors import UserError

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.cut import DataCut


def load_cuts(path: str | Path) -> CutSet:
    """The cuts of a manifest (`.jsonl.gz`, `.jsonl`, `.json`, `.yaml`). Raises `UserError` when it is none."""
    from lhotse import CutSet

    path = Path(path)
    if not path.is_file():
        raise UserError(f"cut manifest not found: {path}; make one with 'valle prepare'")
    try:
        cuts = CutSet.from_file(path).to_eager()
    except Exception as error:  # lhotse raises whatever its parsers raise
        raise UserError(f"{path} cannot be read as a lhotse cut manifest: {error}") from error
    if len(cuts) == 0:
        raise UserError(f"{path} holds no cuts; prepare the corpus again")
    twice = [cut_id for cut_id, count in Counter(c.id for c in cuts).items() if count > 1]
    if twice:
        raise UserError(f"{path} has the cut id '{twice[0]}' more than once; ids must be unique")
    return cuts


def file_cut(path: Path, cut_id: str) -> DataCut:
    """A cut of a whole audio file. Reads its header only; raises `UserError` when it has none."""
    from lhotse import Recording

    try:
        cut = Recording.from_file(path, recording_id=cut_id).to_cut()
    except Exception as error:  # each of lhotse's backends raises its own types
        raise UserError(f"{path} cannot be read as audio: {_first_line(error)}") from error
    cut.id = cut_id
    return cut


def cut_speaker(cut: DataCut) -> str:
    """The speaker of the cut's first supervision; the cut's own id where none is named (a speaker of its own)."""
    speaker = cut.supervisions[0].speaker if cut.supervisions else None
    return speaker or cut.id


def cut_text(cut: DataCut) -> str:
    """The transcript of the cut's first supervision; "" where there is none."""
    return (cut.supervisions[0].text or "").strip() if cut.supervisions else ""


def cut_language(cut: DataCut) -> str:
    """The language code of the cut's first supervision, US English where it says none."""
    return (cut.supervisions[0].language if cut.supervisions else None) or "en-us"


def cut_audio(cut: DataCut, sample_rate: int, speed: float = 1.0) -> Tensor:
    """Waveform of a cut: [S], mono float32 in [-1, 1] at `sample_rate` Hz, played at `speed`.

    Raises `UserError` naming the cut when its audio is missing, unreadable, empty or not finite.
    """
    try:
        samples = cut.load_audio()
    except Exception as error:  # each of lhotse's backends raises its own types
        raise UserError(f"audio of '{cut.id}' cannot be read: {_first_line(error)}") from error
    mono = np.asarray(samples, dtype=np.float32).reshape(-1, samples.shape[-1]).mean(axis=0)
    if mono.size == 0:
        raise UserError(f"audio of '{cut.id}' is empty")
    if not np.isfinite(mono).all():
        raise UserError(f"audio of '{cut.id}' holds samples that are not finite numbers")
    return torch.from_numpy(resample(mono, round(cut.sampling_rate * speed), sample_rate))


def manifest_hash(path: str | Path) -> str:
    """Hash of a manifest's content, the same for every compression of it (gzip writes its time of making)."""
    raw = Path(path).read_bytes()
    return hashlib.sha256(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).hexdigest()[:16]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
