"""Voices on disk: a folder for each, which several servers may share.

    DIR/<id>/voice.json    name, transcript, language, consent, …
    DIR/<id>/prompt.flac   the recording, at the model's sample rate
    DIR/.<id>.new          a voice on its way in; left behind only by a kill

A voice appears at once or not at all: its folder is written beside and then renamed. Ids are made here, and checked
before any path is made of them. The recordings that come with the package are voices, too, which nobody can delete.
"""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import soundfile
from torch import Tensor

import valle
from valle.outputs import check_folder
from valle.serve.errors import ApiError, unknown_voice
from valle.tokenizers.audio import save_audio

CONSENT = (
    "I am the person in this recording, or have that person's permission to clone this voice, and I will not use it to "
    "deceive anybody."
)
"""What the uploader agrees to; stored with the voice."""

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_STALE_SECONDS = 3600
_RECORDINGS = Path(valle.__file__).parent / "assets" / "eval"


@dataclass(frozen=True)
class StoredVoice:
    """What is known of a voice."""

    id: str
    name: str
    created: int
    """Seconds since 1970."""
    seconds: float
    """Length of the recording."""
    language: str
    transcript: str | None
    consent: dict[str, Any] | None
    """statement, time and by: the name of the API key; None for the recordings of the package."""
    recording: Path

    def to_dict(self) -> dict[str, Any]:
        """Without the path and the consent: what clients see."""
        facts = asdict(self) | {"object": "voice", "builtin": self.consent is None}
        return {name: value for name, value in facts.items() if name not in ("recording", "consent")}


class VoiceStore:
    """The voices in `folder`, and those of the package."""

    def __init__(self, folder: str | Path, most: int) -> None:
        self.folder, self.most = check_folder(folder), most
        self._builtin = {voice.id: voice for voice in _builtin_voices()}
        self._remove_stale()

    def list(self) -> list[StoredVoice]:
        """All voices: those of the package first, then the oldest first."""
        stored = [self._read(path.name) for path in self.folder.iterdir() if _ID.fullmatch(path.name)]
        return [*self._builtin.values(), *sorted((v for v in stored if v), key=lambda v: (v.created, v.id))]

    def get(self, voice_id: str) -> StoredVoice:
        """Raises `ApiError` 404 where there is no such voice."""
        voice = self._builtin.get(voice_id) or self._read(voice_id)
        if voice is None:
            raise unknown_voice(voice_id)
        return voice

    def add(
        self,
        voice_id: str,
        wav: Tensor,
        sample_rate: int,
        name: str,
        transcript: str | None,
        language: str,
        by: str | None = None,
    ) -> StoredVoice:
        """Store a recording [S] under an id of `new_voice_id`. Only with the consent of who uploads it."""
        if sum(1 for _ in self.folder.iterdir()) >= self.most:
            raise ApiError(409, "voices_full", "no more voices can be stored here; delete one first")
        folder, new = self.folder / voice_id, self.folder / f".{voice_id}.new"
        voice = StoredVoice(
            id=voice_id,
            name=name,
            created=int(time.time()),
            seconds=round(len(wav) / sample_rate, 2),
            language=language,
            transcript=transcript,
            consent={"statement": CONSENT, "time": int(time.time()), "by": by},
            recording=folder / "prompt.flac",
        )
        new.mkdir()
        save_audio(new / "prompt.flac", wav, sample_rate)
        facts = {key: value for key, value in asdict(voice).items() if key not in ("id", "recording")}
        (new / "voice.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for path in (new / "prompt.flac", new / "voice.json", new):
            _flush(path)
        new.rename(folder)
        _flush(self.folder)
        return voice

    def delete(self, voice_id: str) -> None:
        """Raises `ApiError`: 404 where there is no such voice, 403 for a voice of the package."""
        if voice_id in self._builtin:
            raise ApiError(403, "builtin_voice", f"voice '{voice_id}' comes with the package and stays", "voice")
        self.get(voice_id)
        # First out of sight, at once for all servers; then file by file.
        gone = self.folder / f".{voice_id}.{secrets.token_hex(4)}.new"
        try:
            (self.folder / voice_id).rename(gone)
        except FileNotFoundError as error:
            raise unknown_voice(voice_id) from error
        shutil.rmtree(gone, ignore_errors=True)

    def _read(self, voice_id: str) -> StoredVoice | None:
        if not _ID.fullmatch(voice_id):
            return None
        folder = self.folder / voice_id
        try:
            facts = json.loads((folder / "voice.json").read_text(encoding="utf-8"))
            return StoredVoice(id=voice_id, recording=folder / "prompt.flac", **facts)
        except (OSError, ValueError, TypeError):
            return None

    def _remove_stale(self) -> None:
        """Another server may be writing right now: only what is old was left behind."""
        for path in self.folder.glob(".*.new"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def new_voice_id() -> str:
    """An id that no voice has, on any server."""
    return f"voice_{secrets.token_hex(8)}"


def _builtin_voices() -> list[StoredVoice]:
    """One recording of each speaker in the package: the first of 6 to 12 seconds."""
    voices: dict[str, StoredVoice] = {}
    with (_RECORDINGS / "list.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            speaker, path = row["speaker"].rpartition("/")[2], _RECORDINGS / row["path"]
            seconds = soundfile.info(path).duration
            if speaker not in voices and 6 <= seconds <= 12:
                name = f"LibriSpeech reader {speaker} ({row['gender']})"
                voices[speaker] = StoredVoice(f"libri-{speaker}", name, 0, round(seconds, 2), "en-us", None, None, path)
    return list(voices.values())


def _flush(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
