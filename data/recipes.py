"""The named corpora: what lies where on disk, and which text belongs to which recording.

Lhotse has recipes for all of these but ESD; the tests check that both list the same. They are not called here, because
they read every header in one thread, pass over missing files in silence and stop at the first damaged one, where
`prepare_entries` reads with many threads and writes down what it drops and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from valle.common.errors import UserError
from valle.data.corpus import Entry

_PROSODY = re.compile(r"#[1-5]")
_GENDERS = {"m": "m", "male": "m", "f": "f", "female": "f"}


def libritts(root: Path) -> Iterator[Entry]:
    """LibriTTS and LibriTTS-R: `PART/SPEAKER/BOOK/SPEAKER_BOOK.trans.tsv` (id, original and normalised text)."""
    genders = _libri_genders(root / "SPEAKERS.txt")
    for table in _found(root, "*/*/*/*.trans.tsv"):
        part = table.relative_to(root).parts[0]
        for line in _lines(table):
            name, _, text = _columns(line, "\t", 3, table)
            speaker = name.split("_")[0]
            path = table.parent / f"{name}.wav"
            yield _entry(name, path, speaker, text, "en-us", genders.get(speaker, ""), part)


def librispeech(root: Path) -> Iterator[Entry]:
    """LibriSpeech: `PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` (id, text in capitals, which are made small)."""
    genders = _libri_genders(root / "SPEAKERS.TXT")
    for table in _found(root, "*/*/*/*.trans.txt"):
        part = table.relative_to(root).parts[0]
        for line in _lines(table):
            name, text = _columns(line, " ", 2, table)
            speaker = name.split("-")[0]
            path = table.parent / f"{name}.flac"
            yield _entry(name, path, speaker, text.lower(), "en-us", genders.get(speaker, ""), part)


def vctk(root: Path) -> Iterator[Entry]:
    """VCTK 0.80 (`wav48/`) and 0.92 (`wav48_silence_trimmed/`: microphone 2, or 1 where 2 is missing)."""
    info = [line.split() for line in _lines(root / "speaker-info.txt")]
    # 0.80 leaves out the p of p225.
    genders = {row[0] if row[0][0].isalpha() else f"p{row[0]}": row[2] for row in info[1:] if len(row) > 2}
    audio = _found(root, "wav48_silence_trimmed/*/*.flac", "wav48/*/*.wav")
    paths: dict[str, Path] = {}
    for path in audio:  # in the order of names, so mic2 replaces mic1
        paths[re.sub(r"_mic[12]$", "", path.stem)] = path
    texts = {path.stem: path for path in sorted((root / "txt").glob("*/*.txt"))}
    for name in sorted(paths.keys() | texts.keys()):
        speaker = name.split("_")[0]
        text = " ".join(_lines(texts[name])) if name in texts else ""
        yield _entry(
            name, paths.get(name, audio[0].parents[1] / speaker / name), speaker, text, "en", genders.get(speaker, "")
        )


def aishell3(root: Path) -> Iterator[Entry]:
    """AISHELL-3: `train/content.txt` and `test/content.txt` (file name, then characters and pinyin in turns)."""
    info = [line.split("\t") for line in _lines(root / "spk-info.txt") if not line.startswith("#")]
    genders = {row[0]: row[2] for row in info if len(row) > 2}
    for table in _found(root, "*/content.txt"):
        for line in _lines(table):
            file, text = _columns(line, "\t", 2, table)
            speaker = file[:7]
            path = table.parent / "wav" / speaker / file
            characters = "".join(text.split()[::2])
            yield _entry(path.stem, path, speaker, characters, "cmn", genders.get(speaker, ""), table.parent.name)


def ljspeech(root: Path) -> Iterator[Entry]:
    """LJSpeech: `metadata.csv` (id | text | text with numbers in words), one speaker."""
    table = _found(root, "metadata.csv")[0]
    for line in _lines(table):
        name, _, text = _columns(line, "|", 3, table)
        yield _entry(name, root / "wavs" / f"{name}.wav", "ljspeech", text, "en-us", "f")


def baker(root: Path) -> Iterator[Entry]:
    """BakerZH (DataBaker CSMSC): `ProsodyLabeling/000001-010000.txt`, two lines each: text with #1..#4, pinyin."""
    for line in _lines(_found(root, "ProsodyLabeling/*.txt")[0]):
        name, _, text = line.partition("\t" if "\t" in line else " ")
        if name.isdecimal():
            yield _entry(name, root / "Wave" / f"{name}.wav", "baker", _PROSODY.sub("", text), "cmn", "f")


def esd(root: Path) -> Iterator[Entry]:
    """Emotional Speech Dataset: `SPEAKER/SPEAKER.txt` (id, text, emotion); 0001 to 0010 Mandarin, the others English.

    The audio lies in `SPEAKER/EMOTION/`, or in folders for training, evaluation and test below it. These hold the same
    speakers, so they are no split.
    """
    for table in _found(root, "[0-9]*/[0-9]*.txt"):
        speaker = table.parent.name
        paths = {path.stem: path for path in sorted(table.parent.rglob("*.wav"))}
        language = "cmn" if int(speaker) <= 10 else "en-us"
        for line in _lines(table):
            name, text, emotion = _columns(line, "\t", 3, table)
            path = paths.get(name, table.parent / emotion / f"{name}.wav")
            yield _entry(name, path, speaker, text, language, emotion=path.relative_to(table.parent).parts[0])


RECIPES: dict[str, Callable[[Path], Iterable[Entry]]] = {
    "libritts": libritts,
    "librispeech": librispeech,
    "vctk": vctk,
    "aishell3": aishell3,
    "ljspeech": ljspeech,
    "baker": baker,
    "esd": esd,
}


def read_corpus(name: str, root: Path) -> list[Entry]:
    """The utterances of the corpus `name` that lies in `root`. Raises `UserError` when it is another folder."""
    if not root.is_dir():
        raise UserError(f"{root} is no folder; give the one that {name} was unpacked into")
    entries = list(RECIPES[name](root))
    if not entries:
        raise UserError(f"{root} holds no utterance of {name}; its tables are empty")
    return entries


def _entry(
    name: str, path: Path, speaker: str, text: str, language: str, gender: str = "", split: str = "", emotion: str = ""
) -> Entry:
    gender = _GENDERS.get(gender.lower(), "")
    fields = {"id": name, "speaker": speaker, "language": language, "gender": gender, "split": split}
    if emotion:
        fields["emotion"] = emotion
    return Entry(name, path.absolute(), speaker, text.strip(), language, gender, split, fields)


def _found(root: Path, *patterns: str) -> list[Path]:
    """What the first pattern finds that finds any, in order; Mac archives add `._` files, which are no data."""
    for pattern in patterns:
        paths = sorted(path for path in root.glob(pattern) if not path.name.startswith("._"))
        if paths:
            return paths
    # Whoever gives the parent of the right folder is told the right one.
    below = next((path for pattern in patterns for path in sorted(root.glob(f"*/{pattern}"))), None)
    hint = f"; did you mean {root / below.relative_to(root).parts[0]}?" if below else ""
    raise UserError(f"{root} does not hold {' or '.join(patterns)}, so it is not this corpus{hint}")


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty. ESD has files in UTF-8, UTF-16 and GBK."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}; is the corpus complete?") from error
    encodings = ["utf-16"] if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            return [line.strip() for line in raw.decode(encoding).split("\n") if line.strip()]
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path} is neither UTF-8, UTF-16 nor GBK text; the file is damaged")


def _libri_genders(path: Path) -> dict[str, str]:
    """Gender of each speaker in `SPEAKERS.txt`: ` 14 | F | train-clean-360 | …`; {} without the file."""
    if not path.is_file():
        return {}
    rows = [line.split("|") for line in _lines(path) if not line.startswith(";")]
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}


def _columns(line: str, separator: str, count: int, table: Path) -> list[str]:
    columns = line.split(separator, count - 1)
    if len(columns) != count:
        raise UserError(f"{table} has a line of {len(columns)} columns instead of {count}: '{line[:60]}'")
    return columns
