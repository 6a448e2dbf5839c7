"""What is evaluated on: lists of recordings with their texts, lists of sentences, and the ones that are shipped."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

import valle
from valle.common.errors import UserError

_ASSETS = Path(valle.__file__).parent / "assets" / "eval"
RECORDINGS = _ASSETS / "list.tsv"
"""50 utterances of 5 speakers of LibriSpeech test-other."""
SENTENCES = _ASSETS / "sentences.txt"
"""10 plain sentences of 5 to 12 words."""
SENTENCES_100 = _ASSETS / "sentences100.txt"
"""100 plain sentences of 5 to 25 words."""
SENTENCES_ENDS = _ASSETS / "sentences_ends.txt"
"""50 short texts: 5 for each of . ! ? , ; : — … and for none, and 5 headings and items of lists."""

_COLUMNS = ("id", "path", "speaker", "text")


@dataclass(frozen=True)
class Recording:
    """A real recording of a known speaker and text."""

    id: str
    path: Path
    speaker: str
    text: str

    @property
    def seconds(self) -> float:
        """Read from the file's header."""
        try:
            return soundfile.info(str(self.path)).duration
        except (soundfile.LibsndfileError, OSError) as error:
            raise UserError(f"cannot read {self.path} as audio ({error}); mend or remove it from the list") from error


def read_list(path: str | Path = RECORDINGS) -> list[Recording]:
    """Read a tab-separated list with a header line that names `id path speaker text` (other columns are ignored).

    Paths are relative to the list's folder. Raises `UserError` for a missing file or column, an incomplete row, an id
    that comes twice or could not be a file name, and a recording that is not there.
    """
    path = Path(path)
    recordings = [
        Recording(row["id"], find_listed(where, path.parent / row["path"]), row["speaker"], row["text"])
        for where, row in check_rows(path, read_rows(path, _COLUMNS), _COLUMNS)
    ]
    if not recordings:
        raise UserError(f"{path} lists no recordings")
    return recordings


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a tab-separated table, with their line numbers; its first line must name `columns`."""
    reader = csv.DictReader(read_text(path).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    if missing := [column for column in columns if column not in (reader.fieldnames or [])]:
        raise UserError(f"{path} has no column '{missing[0]}'; its first line must name: {' '.join(columns)}")
    for row in reader:
        yield reader.line_num, {name: (cell or "").strip() for name, cell in row.items() if name}


def check_rows(
    path: Path, rows: Iterable[tuple[int, dict[str, str]]], columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """`rows` with where they stand in `path`. Raises `UserError` for an empty cell of `columns`, and for a bad id."""
    seen: set[str] = set()
    for number, row in rows:
        where = f"{path}, line {number}"
        if empty := [column for column in columns if not row.get(column)]:
            raise UserError(f"{where}: '{empty[0]}' is empty; fill it in or remove the line")
        if row["id"] in seen or Path(row["id"]).name != row["id"]:
            raise UserError(f"{where}: id '{row['id']}' comes twice or cannot be a file name; choose another")
        seen.add(row["id"])
        yield where, row


def find_listed(where: str, path: Path) -> Path:
    """`path`, which the list names at `where`. Raises `UserError` if it is not there."""
    if not path.is_file():
        raise UserError(f"{where}: {path} does not exist; paths are relative to the list's folder")
    return path


def read_sentences(path: str | Path = SENTENCES) -> list[str]:
    """Sentences of a UTF-8 text file, one on a line; empty lines are ignored. Raises `UserError` if there are none."""
    sentences = [line.strip() for line in read_text(Path(path)).splitlines() if line.strip()]
    if not sentences:
        raise UserError(f"{path} has no sentences; write one on each line")
    return sentences


def choose_prompts(recordings: list[Recording], min_seconds: float = 3.0, max_seconds: float = 8.0) -> list[Recording]:
    """One prompt for each speaker, in the order of the list: the first recording of `min_seconds` to `max_seconds`.

    Raises `UserError` naming a speaker who has none.
    """
    prompts: dict[str, Recording | None] = {}
    for recording in recordings:
        if prompts.get(recording.speaker) is None:
            fits = min_seconds <= recording.seconds <= max_seconds
            prompts[recording.speaker] = recording if fits else None
    for speaker, prompt in prompts.items():
        if prompt is None:
            raise UserError(
                f"speaker {speaker} has no recording of {min_seconds:g} to {max_seconds:g} s to use as prompt; add one"
            )
    return [prompt for prompt in prompts.values() if prompt]


def read_text(path: Path) -> str:
    """The content of a UTF-8 file. Raises `UserError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} as UTF-8 text: {error}") from error
