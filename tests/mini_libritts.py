"""A LibriTTS of a few minutes: the shipped recordings in LibriTTS' layout, to try training jobs on.

python -m tests.mini_libritts out/LibriTTS
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import valle
from valle.common.audio import load_audio, save_audio

RECORDINGS = Path(valle.__file__).parent / "assets" / "eval"


def build(root: Path, utterances: int = 10) -> None:
    """Write `utterances` of each of the five speakers: one speaker in dev-clean, one in test-clean, three to train."""
    with (RECORDINGS / "list.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    speakers = sorted({row["speaker"].rpartition("/")[2] for row in rows})
    parts = dict(zip(speakers, ["dev-clean", "test-clean", *["train-clean-100"] * 3], strict=True))
    genders = {row["speaker"].rpartition("/")[2]: row["gender"].upper() for row in rows}
    root.mkdir(parents=True, exist_ok=True)
    lines = [f"{speaker} | {genders[speaker]} | {parts[speaker]} | 1.0 | unknown" for speaker in speakers]
    (root / "SPEAKERS.txt").write_text("\n".join([";ID | SEX | SUBSET | MINUTES | NAME", *lines]) + "\n")
    for speaker in speakers:
        mine = [row for row in rows if row["id"].startswith(f"{speaker}-")][:utterances]
        for chapter in {row["id"].split("-")[1] for row in mine}:
            folder = root / parts[speaker] / speaker / chapter
            folder.mkdir(parents=True, exist_ok=True)
            texts, books = [], []
            for row in mine:
                _, of, number = row["id"].split("-")
                if of == chapter:
                    name = f"{speaker}_{chapter}_{int(number):06d}_000000"
                    save_audio(folder / f"{name}.wav", load_audio(RECORDINGS / row["path"], 24000), 24000)
                    text = row["text"].capitalize() + "."
                    texts.append(f"{name}\t{text}\t{text}")
                    books.append(f"{name}\t{text}\t0\t0\t20.0")
            for kind, content in (("trans", texts), ("book", books)):
                (folder / f"{speaker}_{chapter}.{kind}.tsv").write_text("\n".join(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.mini_libritts", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write it")
    build(parser.parse_args().folder)
