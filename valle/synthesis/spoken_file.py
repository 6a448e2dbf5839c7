"""A file of speech that grows while it is spoken, and beside it what was said so far: `SpokenFile`.

`book.mp3.pieces` is there while `book.mp3` is not complete, or has faulty pieces. From it alone the same command makes
the same file again up to where it was stopped, and goes on; or speaks the faulty pieces again. It holds lines of JSON:
what the speech depends on; then each piece, as the number of its place, text, fault, "takes" (candidates) and codes
(base64 of little-endian 16-bit numbers, frame after frame); and "complete" behind the last. It is only ever added to:
of a place that is there twice the later line counts, and a line that breaks off does not.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from valle.common.audio import FORMATS
from valle.common.errors import UserError
from valle.common.files import writing
from valle.synthesis.result import SpokenPiece


class SpokenFile:
    """An audio file of any length: mono, of 16 bits where it is not compressed. The old one stays until samples come.

    with SpokenFile(path, rate, pieces) as file:
        file.add(samples, piece)

    Raises `UserError` for a rate that the format cannot have, and where it cannot be written.
    """

    def __init__(self, path: Path, sample_rate: int, pieces: Pieces) -> None:
        self.path, self.pieces, self.sample_rate = path, pieces, sample_rate
        self._file: soundfile.SoundFile | None = None
        self._place = self._samples = 0
        self._open(io.BytesIO()).close()

    @property
    def seconds(self) -> float:
        """Written so far."""
        return self._samples / self.sample_rate

    def add(self, wav: Tensor, piece: SpokenPiece | None = None) -> None:
        """Add samples [S]; with the last of a piece comes how it was spoken."""
        if len(wav):
            self._file = self._file or self._open(self.path)
            try:
                self._file.write(wav.clamp(-1, 1).numpy())
            except (AssertionError, soundfile.LibsndfileError) as error:  # soundfile asserts that all was taken
                raise UserError(f"cannot write {self.path}: not all of it was taken; make room") from error
            self._samples += len(wav)
        if piece is not None:
            self.pieces.keep(self._place, piece)
            self._place += 1

    def _open(self, where: Path | io.BytesIO) -> soundfile.SoundFile:
        container, coding = FORMATS[self.path.suffix[1:].lower()]
        try:
            return soundfile.SoundFile(where, "w", self.sample_rate, 1, coding, format=container)
        except soundfile.LibsndfileError as error:
            raise UserError(f"cannot write {self.path} at {self.sample_rate} Hz: {error}") from error

    def __enter__(self) -> SpokenFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()


class Pieces:
    """The pieces of one file that were spoken so far.

    made_with: what the speech depends on; the pieces of another command do not count
    """

    def __init__(self, path: Path, made_with: Mapping[str, Any], spoken: list[SpokenPiece], size: int) -> None:
        self.path, self.made_with, self.spoken = path, made_with, spoken
        self._size = size
        """Of what is whole in the file."""

    @classmethod
    def read(cls, audio: Path, made_with: Mapping[str, Any], needed: bool = False) -> Pieces:
        """Those of the audio file `audio`.

        needed: there must be some
        Raises `UserError` where the pieces of another, stopped command would be lost.
        """
        path = audio.with_name(f"{audio.name}.pieces")
        lines, size = _whole_lines(path)
        if not lines:
            if needed:
                raise UserError(f"nothing in {audio} is known to be faulty: there is no {path.name} beside it")
            return cls(path, made_with, [], 0)
        found = {int(line["piece"]): _from_json(line) for line in lines[1:] if "piece" in line}
        spoken = [found[place] for place in range(len(found)) if place in found]
        if differing := [name for name, value in made_with.items() if lines[0].get(name) != value]:
            if needed or not any("complete" in line for line in lines):
                raise UserError(
                    f"{path} holds what a command with another {differing[0]} has spoken; "
                    "give that command again to go on, delete the file to begin anew, or choose another --out"
                )
            return cls(path, made_with, [], 0)
        return cls(path, made_with, spoken, size)

    def keep(self, place: int, piece: SpokenPiece) -> None:
        """Write down the piece at `place`, unless it is what was known of it."""
        if place < len(self.spoken) and self.spoken[place].candidates == piece.candidates:
            return
        self.spoken[place : place + 1] = [piece]
        if not self._size:
            self._append(dict(self.made_with))
        self._append({"piece": place, **_to_json(piece)})

    def complete(self) -> None:
        """The text has been spoken to its end: where nothing is left to do, the file goes."""
        if any(piece.fault not in ("", "unreadable") for piece in self.spoken):
            self._append({"complete": True})
        else:
            self.path.unlink(missing_ok=True)

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        with writing(self.path), self.path.open("r+b" if self._size else "wb") as file:
            file.seek(self._size)
            file.truncate()
            file.write(data)
        self._size += len(data)


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines up to the first that is not whole, and their size in bytes."""
    lines, size = [], 0
    if path.exists():
        with writing(path), path.open("rb") as file:
            for data in file:
                try:
                    line = json.loads(data)
                except ValueError:
                    break
                if not data.endswith(b"\n") or not isinstance(line, dict):
                    break
                lines.append(line)
                size += len(data)
    return lines, size


def _to_json(piece: SpokenPiece) -> dict[str, Any]:
    codes = piece.codes.T.contiguous().numpy().astype("<u2")
    return {
        "text": piece.text,
        "fault": piece.fault,
        "takes": piece.candidates,
        "start": round(piece.start, 3),
        "quantizers": piece.codes.shape[0],
        "codes": base64.b64encode(codes.tobytes()).decode(),
    }


def _from_json(line: dict[str, Any]) -> SpokenPiece:
    codes = np.frombuffer(base64.b64decode(line["codes"]), "<u2").astype(np.int64)
    frames = torch.from_numpy(codes.reshape(-1, line["quantizers"]))
    facts = {name: line[name] for name in ("text", "fault", "start")}
    return SpokenPiece(codes=frames.T, candidates=line["takes"], **facts)
