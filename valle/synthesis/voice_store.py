"""Voices on disk by name: a folder for each, which `valle clone` and several servers may share.

    DIR/<id>/voice.json    name, transcript, language, consent, …
    DIR/<id>/prompt.flac   the recording, at the model's sample rate
    DIR/.<id>.new          a voice on its way in; left behind only by a kill

A voice appears at once or not at all: its folder is written beside and then renamed. Ids are made here, and checked
before any path is made of them. The recordings that come with the package are voices, too, which nobody can delete.
"""

from __future__ import annotations

import json
import math
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
from valle.common.audio import save_audio
from valle.common.errors import UserError
from valle.common.tables import read_table

CONSENT = (
    "I am the person in this recording, or have that person's permission to clone this voice, and I will not use it to "
    "deceive anybody."
)
"""What the uploader agrees to; stored with the voice."""

OPENAI_NAMES = {
    **dict.fromkeys(("alloy", "nova", "shimmer"), "libri-1998"),
    **dict.fromkeys(("coral", "marin", "sage"), "libri-3331"),
    **dict.fromkeys(("ash", "cedar", "onyx"), "libri-1688"),
    **dict.fromkeys(("ballad", "fable"), "libri-2414"),
    **dict.fromkeys(("echo", "verse"), "libri-3005"),
}
"""Clients written for OpenAI's voices ask for these: each always gives the same recording of the package."""

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_STALE_SECONDS = 3600
_SHOWN = 20
"""Stored voices that an error names, the newest."""
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

    @property
    def builtin(self) -> bool:
        """Whether it comes with the package."""
        return self.consent is None

    def to_dict(self) -> dict[str, Any]:
        """Without the path and the consent: what clients see."""
        names = [name for name, id_ in OPENAI_NAMES.items() if id_ == self.id]
        facts = asdict(self) | {"object": "voice", "builtin": self.builtin, "openai_names": names}
        return {name: value for name, value in facts.items() if name not in ("recording", "consent")}


class VoiceError(UserError):
    """What a store refuses; `code` (unknown_voice, builtin_voice, voices_full) is what programs look at."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def default_folder() -> Path:
    """Where a user's voices are unless another folder is named."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "valle" / "voices"


class VoiceStore:
    """The voices in `folder` (by default the user's), which need not be there yet, and those of the package.

    most: so many voices are stored; one more is refused
    """

    def __init__(self, folder: str | Path | None = None, most: float = math.inf) -> None:
        self.folder, self.most = Path(folder or default_folder()), most
        self._builtin = {voice.id: voice for voice in _builtin_voices()}
        self._remove_stale()

    def list(self) -> list[StoredVoice]:
        """All voices: those of the package first, then the oldest first."""
        stored = [self._read(path.name) for path in self.folder.glob("[!.]*")]
        return [*self._builtin.values(), *sorted((v for v in stored if v), key=lambda v: (v.created, v.id))]

    def get(self, voice_id: str) -> StoredVoice:
        """By its id, or a name of OpenAI's. Raises `VoiceError` where there is no such voice."""
        voice_id = OPENAI_NAMES.get(voice_id, voice_id)
        voice = self._builtin.get(voice_id) or self._read(voice_id)
        if voice is None:
            known = f"{', '.join(self._builtin)}, OpenAI's names ({', '.join(OPENAI_NAMES)}), and ids of stored voices"
            raise VoiceError("unknown_voice", f"there is no voice '{voice_id[:64]}'; known are {known}")
        return voice

    def find(self, name: str) -> StoredVoice:
        """By its id, a name of OpenAI's, or the name that it was stored under. Raises `VoiceError`."""
        try:
            return self.get(name)
        except VoiceError:
            voices = self.list()
        found = [voice for voice in voices if voice.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(voice.id for voice in found)
            raise VoiceError("unknown_voice", f"several voices are called '{name}'; give the id of one: {ids}")
        stored = [f"'{voice.name}'" for voice in voices if not voice.builtin][-_SHOWN:]
        known = ", ".join([*self._builtin, *stored])
        raise VoiceError("unknown_voice", f"there is no voice '{name}' in {self.folder}; known are {known}")

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
        if sum(1 for _ in self.folder.glob("*")) >= self.most:
            raise VoiceError("voices_full", "no more voices can be stored here; delete one first")
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
        new.mkdir(parents=True)
        save_audio(new / "prompt.flac", wav, sample_rate)
        facts = {key: value for key, value in asdict(voice).items() if key not in ("id", "recording")}
        (new / "voice.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for path in (new / "prompt.flac", new / "voice.json", new):
            _flush(path)
        new.rename(folder)
        _flush(self.folder)
        return voice

    def delete(self, voice_id: str) -> None:
        """Raises `VoiceError` where there is no such voice, and for a voice of the package."""
        if self.get(voice_id).builtin:
            raise VoiceError("builtin_voice", f"voice '{voice_id}' comes with the package and stays")
        # First out of sight, at once for all servers; then file by file.
        gone = self.folder / f".{voice_id}.{secrets.token_hex(4)}.new"
        try:
            (self.folder / voice_id).rename(gone)
        except FileNotFoundError as error:
            raise VoiceError("unknown_voice", f"there is no voice '{voice_id}' any more") from error
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
    for _, row in read_table(_RECORDINGS / "list.tsv", ("path", "speaker", "gender")):
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
