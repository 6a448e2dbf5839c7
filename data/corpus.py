"""What a corpus gives before anything is checked: a list of `Entry`, from a folder of audio or from a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from valle.common.audio import READ_SUFFIXES
from valle.common.errors import UserError
from valle.common.tables import read_table

REQUIRED_COLUMNS = ("id", "path", "speaker", "text")


@dataclass(frozen=True)
class Entry:
    """One utterance as the corpus lists it; the audio may not even exist."""

    id: str
    path: Path
    speaker: str
    text: str = ""
    language: str = ""
    gender: str = ""
    split: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Every column of the table, for filters."""


def read_folder(root: Path) -> list[Entry]:
    """Every audio file below `root` with the text of the `.txt` of the same name beside it.

    The id is the path below `root` without its ending; the speaker is the name of the file's folder.
    """
    entries = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in READ_SUFFIXES and p.is_file()):
        beside = path.with_suffix(".txt")
        try:
            text = " ".join(beside.read_text(encoding="utf-8-sig").split()) if beside.is_file() else ""
        except UnicodeDecodeError as error:
            raise UserError(f"{beside} is not UTF-8 text; save it as UTF-8") from error
        entry_id, speaker = (path.relative_to(root).with_suffix("").as_posix(), path.resolve().parent.name)
        fields = {"id": entry_id, "speaker": speaker}
        entries.append(Entry(entry_id, path.resolve(), speaker, text, fields=fields))
    if not entries:
        hint = ""
        if tables := sorted(root.glob("*.tsv")):
            hint = f"; to use its table, give {tables[0]} instead of the folder"
        raise UserError(f"{root} holds no audio ({' '.join(READ_SUFFIXES)}){hint}")
    return entries


def read_corpus(table: Path, text_required: bool = True) -> list[Entry]:
    """The rows of a tab-separated table with a header line.

    Columns `id path speaker text`, in any order, and optionally `language gender split`; more columns are allowed
    and can be filtered by. A path is relative to the table. An empty speaker means the name of the file's folder.
    """
    entries = []
    for number, row in read_table(table, [c for c in REQUIRED_COLUMNS if text_required or c != "text"]):
        for column in ("id", "path"):
            if not row[column]:
                raise UserError(f"{table}, line {number}: column '{column}' is empty")
        path = (table.parent / row["path"]).resolve()
        optional = {c: row.get(c, "") for c in ("text", "language", "gender", "split")}
        entries.append(Entry(row["id"], path, row["speaker"] or path.parent.name, fields=row, **optional))
    return entries


def parse_where(conditions: Iterable[str]) -> dict[str, set[str]]:
    """`["split=train,codec", "gender=f"]` -> `{"split": {"train", "codec"}, "gender": {"f"}}`."""
    where: dict[str, set[str]] = {}
    for condition in conditions:
        column, equals, values = condition.partition("=")
        if not equals or not column.strip():
            raise UserError(f"--where '{condition}': write it as column=value or column=value1,value2")
        where.setdefault(column.strip(), set()).update(v.strip() for v in values.split(","))
    return where


def select(entries: list[Entry], where: Mapping[str, Collection[str]]) -> list[Entry]:
    """Entries whose columns have one of the given values. Raises `UserError` when nothing is left, saying why."""
    for column, values in where.items():
        if unknown := next((e for e in entries if column not in e.fields), None):
            raise UserError(f"--where {column}: there is no such column; there are: {' '.join(unknown.fields)}")
        kept = [e for e in entries if e.fields[column] in values]
        if not kept:
            present = sorted({e.fields[column] for e in entries})
            shown = ", ".join(present[:10]) + (", …" if len(present) > 10 else "")
            raise UserError(f"--where {column}={','.join(sorted(values))}: no row has it; there are: {shown}")
        entries = kept
    return entries
