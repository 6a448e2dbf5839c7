"""Miniatures of the named corpora as they lie on disk, made of shipped recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from lhotse import CutSet
from lhotse.recipes import (
    prepare_aishell3,
    prepare_baker_zh,
    prepare_librispeech,
    prepare_libritts,
    prepare_ljspeech,
    prepare_vctk,
)

from valle.common.errors import UserError
from valle.data.prepare import prepare_entries
from valle.data.recipes import RECIPES, read_corpus

ENGLISH = ["There's iron, they say.", "A grain or two, perhaps.", "Good night!", "He makes me feel it."]
CHINESE = ["卡尔普陪外孙玩滑梯", "假语村言别再拥抱我", "宝马配挂跛骡鞍"]
PINYIN = "ka2 er2 pu3 pei2 wai4 sun1 wan2 hua2 ti1"


@pytest.fixture
def speak(recordings: Path) -> Callable[[Path, int], None]:
    """Writes a second of a shipped recording, number `index`, as whatever the name asks for."""
    opus = sorted(recordings.parent.glob("*.opus"))

    def write(path: Path, index: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        wav, rate = soundfile.read(opus[index], stop=16000 + 100 * index)
        soundfile.write(path, wav, rate)

    return write


def text_file(path: Path, *lines: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


def libritts(root: Path, speak: Any) -> dict[str, Any]:
    text_file(
        root / "SPEAKERS.txt",
        ";ID |SEX| SUBSET | MINUTES | NAME",
        "84 | F | dev-clean | 8.02 | X",
        "14 | M | train-clean-360 | 25 | Y",
    )
    for number, (part, speaker) in enumerate([("dev-clean", "84"), ("train-clean-360", "14")]):
        book = root / part / speaker / "121123"
        names = [f"{speaker}_121123_000007_00000{i}" for i in range(2)]
        rows = [f"{n}\t{ENGLISH[i]}\t{ENGLISH[i]}" for i, n in enumerate(names)]
        text_file(book / f"{speaker}_121123.trans.tsv", *rows)
        text_file(book / f"{speaker}_121123.book.tsv", *(f"{n}\tx\t1\t2\t20.5" for n in names))
        text_file(book / f"._{speaker}_121123.trans.tsv", "no data")
        for i, name in enumerate(names):
            speak(book / f"{name}.wav", 2 * number + i)
    return prepare_libritts(root, dataset_parts=["dev-clean", "train-clean-360"])


def librispeech(root: Path, speak: Any) -> dict[str, Any]:
    text_file(root / "SPEAKERS.TXT", "; comment", "121  | F | test-clean | 8.1 | X")
    chapter = root / "test-clean" / "121" / "121726"
    text_file(chapter / "121-121726.trans.txt", *(f"121-121726-000{i} {t.upper()}" for i, t in enumerate(ENGLISH[:2])))
    for i in range(2):
        speak(chapter / f"121-121726-000{i}.flac", i)
    return prepare_librispeech(root, normalize_text="lower")


def vctk(root: Path, speak: Any) -> dict[str, Any]:
    text_file(
        root / "speaker-info.txt",
        "ID  AGE  GENDER  ACCENTS  REGION",
        "225  23  F    English    Southern  England",
        "226  22  M  English  Surrey",
    )
    for i, name in enumerate(["p225_001", "p225_002", "p226_001"]):
        text_file(root / "txt" / name[:4] / f"{name}.txt", ENGLISH[i])
        speak(root / "wav48" / name[:4] / f"{name}.wav", i)
    return prepare_vctk(root)


def vctk_092(root: Path, speak: Any) -> dict[str, Any]:
    info = [
        "ID  AGE  GENDER  ACCENTS  REGION COMMENTS",
        "p225  23  F    English    Southern  England",
        "p226  22  M  English  Surrey",
    ]
    text_file(root / "speaker-info.txt", *info)
    for i, name in enumerate(["p225_001", "p225_002", "p226_001"]):
        text_file(root / "txt" / name[:4] / f"{name}.txt", ENGLISH[i])
        for mic in (1, 2):
            speak(root / "wav48_silence_trimmed" / name[:4] / f"{name}_mic{mic}.flac", i + mic)
    return prepare_vctk(root, use_edinburgh_vctk_url=True)


def aishell3(root: Path, speak: Any) -> dict[str, Any]:
    text_file(
        root / "spk-info.txt", "# speaker\tage\tgender\taccent", "SSB0005\tB\tfemale\tnorth", "SSB0009\tB\tmale\tsouth"
    )
    text_file(root / "train" / "label_train-set.txt", "# a", f"SSB00050001|{PINYIN}|{CHINESE[0]}")
    for part, speaker in (("train", "SSB0005"), ("test", "SSB0009")):
        words = " ".join(f"{c} {p}" for c, p in zip(CHINESE[0], PINYIN.split(), strict=True))
        text_file(root / part / "content.txt", f"{speaker}0001.wav\t{words}")
        speak(root / part / "wav" / speaker / f"{speaker}0001.wav", part == "test")
    parts = prepare_aishell3(root).values()
    # In lhotse 1.33 the two have each other's name.
    return {str(i): {"supervisions": p["recordings"], "recordings": p["supervisions"]} for i, p in enumerate(parts)}


def ljspeech(root: Path, speak: Any) -> dict[str, Any]:
    text_file(root / "metadata.csv", *(f"LJ001-000{i}|{t}|{t}" for i, t in enumerate(ENGLISH)))
    for i in range(len(ENGLISH)):
        speak(root / "wavs" / f"LJ001-000{i}.wav", i)
    return prepare_ljspeech(root)


def baker(root: Path, speak: Any) -> dict[str, Any]:
    rows = [row for i, t in enumerate(CHINESE) for row in (f"00000{i + 1}\t{t}", f"\t{PINYIN}")]
    text_file(root / "ProsodyLabeling" / "000001-010000.txt", *rows)
    for i in range(len(CHINESE)):
        speak(root / "Wave" / f"00000{i + 1}.wav", i)
    return prepare_baker_zh(root)


MINIATURES = {
    "libritts": libritts,
    "librispeech": librispeech,
    "vctk": vctk,
    "vctk_092": vctk_092,
    "aishell3": aishell3,
    "ljspeech": ljspeech,
    "baker": baker,
}


@pytest.mark.parametrize("name", MINIATURES)
def test_lists_what_the_recipe_of_lhotse_lists(name: str, speak: Callable[[Path, int], None], tmp_path: Path) -> None:
    known = MINIATURES[name](tmp_path / "corpus", speak)
    parts = [known] if "recordings" in known else list(known.values())
    recipe = name.partition("_")[0]
    entries = read_corpus(recipe, tmp_path / "corpus")
    single = {"ljspeech", "baker"}
    found = {e.id: (e.text, None if recipe in single else e.speaker, e.path) for e in entries}
    expected = {}
    for part in parts:
        paths = {r.id: Path(r.sources[0].source) for r in part["recordings"]}
        for s in part["supervisions"]:
            expected[s.id.removesuffix("_mic2")] = (s.text, s.speaker, paths[s.recording_id])
    assert found == expected
    genders = {s.id.removesuffix("_mic2"): s.gender for part in parts for s in part["supervisions"] if s.gender}
    assert {e.id: e.gender for e in entries if e.id in genders} == {i: g[0].lower() for i, g in genders.items()}

    report = prepare_entries(entries, tmp_path / "out", jobs=1)
    assert {k.id for k in report.kept} == set(expected) and not report.dropped
    speakers = {
        role: {k.speaker for k, r in zip(report.kept, report.roles, strict=True) if r == role}
        for role in ("train", "dev", "test")
    }
    if recipe == "libritts":
        assert speakers == {"train": {"14"}, "dev": {"84"}, "test": set()} and report.split_by == "as the corpus says"
        assert [c.id for c in CutSet.from_file(tmp_path / "out" / "dev.jsonl.gz")] == sorted(
            i for i in expected if i.startswith("84")
        )
    assert "hours" in report.table() and (tmp_path / "out" / "durations.png").stat().st_size > 5000


def test_esd_in_both_layouts_and_its_encodings(speak: Callable[[Path, int], None], tmp_path: Path) -> None:
    text_file(
        tmp_path / "0001" / "0001.txt",
        f"0001_000001\t{CHINESE[0]}\t中立",
        f"0001_000002\t{CHINESE[1]}\t快乐",
        encoding="gb18030",
    )
    text_file(
        tmp_path / "0011" / "0011.txt",
        f"0011_000001\t{ENGLISH[0]}\tNeutral",
        f"0011_000351\t{ENGLISH[1]}\tAngry",
        encoding="utf-16",
    )
    speak(tmp_path / "0001" / "Neutral" / "train" / "0001_000001.wav", 0)
    speak(tmp_path / "0001" / "Happy" / "evaluation" / "0001_000002.wav", 1)
    speak(tmp_path / "0011" / "Neutral" / "0011_000001.wav", 2)
    report = prepare_entries(read_corpus("esd", tmp_path), tmp_path / "out", jobs=1)
    said = [c.supervisions[0] for c in CutSet.from_file(report.cuts)]
    assert [(s.id, s.text, s.language, s.custom["emotion"]) for s in said] == [
        ("0001_000001", CHINESE[0], "cmn", "Neutral"),
        ("0001_000002", CHINESE[1], "cmn", "Happy"),
        ("0011_000001", ENGLISH[0], "en-us", "Neutral"),
    ]
    assert [(d.id, d.reason) for d in report.dropped] == [("0011_000351", "missing")]


def test_what_vctk_lacks_is_accounted_for(speak: Callable[[Path, int], None], tmp_path: Path) -> None:
    vctk_092(tmp_path, speak)
    audio = tmp_path / "wav48_silence_trimmed"
    (audio / "p225" / "p225_001_mic2.flac").unlink()  # as for p280: the other microphone is there
    for mic in (1, 2):
        (audio / "p226" / f"p226_001_mic{mic}.flac").unlink()  # as for some of p362
    (tmp_path / "txt" / "p225" / "p225_002.txt").unlink()  # as for p315
    report = prepare_entries(read_corpus("vctk", tmp_path), tmp_path / "out", jobs=1)
    assert [k.id for k in report.kept] == ["p225_001"]
    assert {d.id: d.reason for d in report.dropped} == {"p225_002": "no text", "p226_001": "missing"}


@pytest.mark.parametrize("name", RECIPES)
def test_another_folder_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        read_corpus(name, tmp_path)


def test_the_folder_below_is_suggested(speak: Callable[[Path, int], None], tmp_path: Path) -> None:
    libritts(tmp_path / "LibriTTS", speak)
    with pytest.raises(UserError, match=r"did you mean .*/LibriTTS\?"):
        read_corpus("libritts", tmp_path)
