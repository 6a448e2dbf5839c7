from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from valle.common.errors import UserError
from valle.data.corpus import parse_where
from valle.data.prepare import Limits, prepare_folder

RATE = 16000


def write_tone(path: Path, seconds: float, peak: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, peak * np.sin(np.arange(int(seconds * RATE)) / 20), RATE)
    return path


def write_table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(("id path speaker text split".replace(" ", "\t"), *rows)) + "\n")
    return path


def dropped(out: Path) -> dict[str, str]:
    rows = [line.split("\t") for line in (out / "dropped.tsv").read_text().splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def test_folder_with_texts_beside_the_audio(recordings: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    rows = [line.split("\t") for line in recordings.read_text().splitlines()[1:4]]
    for name, path, _, _, text in rows:
        (corpus / "anna" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(recordings.parent / path, corpus / "anna" / path)
        (corpus / "anna" / f"{name}.txt").write_text(f"\ufeff{text}\n")
    report = prepare_folder(corpus, tmp_path / "out", language="en-gb")
    cuts = list(CutSet.from_file(report.cuts))
    assert [c.id for c in cuts] == [f"anna/{row[0]}" for row in rows]
    assert [c.supervisions[0].text for c in cuts] == [row[4] for row in rows]
    assert {(c.supervisions[0].speaker, c.supervisions[0].language) for c in cuts} == {("anna", "en-gb")}
    assert len(report.kept) == 3 and report.dropped == []
    assert sum(k.seconds for k in report.kept) == pytest.approx(sum(c.load_audio().shape[1] / RATE for c in cuts))


def test_table_keeps_what_the_filter_lets_through(tmp_path: Path) -> None:
    for name in "abc":
        write_tone(tmp_path / "wavs" / f"{name}.wav", 1.0)
    table = write_table(
        tmp_path / "list.tsv", "a\twavs/a.wav\tx\tone\ttrain", "b\twavs/b.wav\t\ttwo\teval", "c\twavs/c.wav\t\tsix\tval"
    )
    report = prepare_folder(table, tmp_path / "out", where=parse_where(["split=train,val"]))
    cuts = list(CutSet.from_file(report.cuts))
    assert [(c.id, c.supervisions[0].speaker) for c in cuts] == [("a", "x"), ("c", "wavs")]
    assert cuts[1].supervisions[0].custom == {"split": "val"}
    assert (report.listed, report.selected, len(report.kept)) == (3, 2, 2)


def test_every_reason_to_drop_is_written_down(tmp_path: Path) -> None:
    write_tone(tmp_path / "good.wav", 1.0)
    write_tone(tmp_path / "short.wav", 0.2)
    write_tone(tmp_path / "long.wav", 3.0)
    write_tone(tmp_path / "loud.wav", 1.0, peak=3.0)
    write_tone(tmp_path / "quiet.wav", 1.0, peak=0.0)
    (tmp_path / "noise.wav").write_bytes(b"RIFF this is no audio")
    whole = write_tone(tmp_path / "cut_off.flac", 1.0).read_bytes()
    (tmp_path / "cut_off.flac").write_bytes(whole[: len(whole) // 2])
    expected = {
        "short.wav": "too short",
        "long.wav": "too long",
        "loud.wav": "clipped",
        "quiet.wav": "silent",
        "noise.wav": "unreadable",
        "cut_off.flac": "unreadable",
        "gone.wav": "missing",
    }
    rows = [f"{name}\t{name}\ts\ttext\t" for name in ("good.wav", *expected)]
    table = write_table(tmp_path / "list.tsv", *rows, "mute\tgood.wav\ts\t\t", "good.wav\tgood.wav\ts\tagain\t")
    report = prepare_folder(table, tmp_path / "out", limits=Limits(max_seconds=2.0))
    assert [c.id for c in CutSet.from_file(report.cuts)] == ["good.wav"]
    assert dropped(tmp_path / "out") == {**expected, "mute": "no text", "good.wav": "duplicate id"}
    assert "clipped" in report.table()


def test_a_bad_file_does_not_take_the_id_of_a_good_one(tmp_path: Path) -> None:
    write_tone(tmp_path / "good.wav", 1.0)
    table = write_table(tmp_path / "list.tsv", "a\tgone.wav\ts\ttext\t", "a\tgood.wav\ts\ttext\t")
    report = prepare_folder(table, tmp_path / "out")
    assert [d.reason for d in report.dropped] == ["missing"] and len(report.kept) == 1


def test_text_can_be_optional(tmp_path: Path) -> None:
    write_tone(tmp_path / "corpus" / "a.wav", 1.0)
    report = prepare_folder(tmp_path / "corpus", tmp_path / "out", limits=Limits(allow_no_text=True))
    assert len(report.kept) == 1
    with pytest.raises(UserError, match=r"every utterance was dropped.*no text"):
        prepare_folder(tmp_path / "corpus", tmp_path / "out2")


def test_a_failed_run_leaves_no_manifest_behind(tmp_path: Path) -> None:
    write_tone(tmp_path / "corpus" / "a.wav", 1.0)
    with pytest.raises(UserError):
        prepare_folder(tmp_path / "corpus", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["dropped.tsv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"line 1: column 'id' is missing; it must name id path speaker text"),
        ("a\ta.wav\ts\thello\n", r"line 1: column 'id' is missing; it must name id path speaker text"),
        ("id\tpath\tspeaker\n", r"line 1: column 'text' is missing"),
        ("id\tpath\tspeaker\ttext\n", r"no rows"),
        ("id\tpath\tspeaker\ttext\n\na\ta.wav\ts\n", r"line 3: 3 columns, but the header has 4"),
        ("id\tpath\tspeaker\ttext\n\ta.wav\ts\thello\n", r"line 2: column 'id' is empty"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "list.tsv"
    table.write_text(content)
    with pytest.raises(UserError, match=rf"list\.tsv.*{message}"):
        prepare_folder(table, tmp_path / "out")


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no audio"):
        prepare_folder(tmp_path / "empty", tmp_path / "out")
    write_table(tmp_path / "empty" / "list.tsv")
    with pytest.raises(UserError, match=r"give .*list\.tsv instead"):
        prepare_folder(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        prepare_folder(tmp_path / "nothing", tmp_path / "out")


def test_a_filter_that_fits_nothing_says_what_there_is(tmp_path: Path) -> None:
    table = write_table(tmp_path / "list.tsv", "a\ta.wav\ts\thello\ttrain")
    with pytest.raises(UserError, match=r"split=test: no row has it; there are: train"):
        prepare_folder(table, tmp_path / "out", where=parse_where(["split=test"]))
    with pytest.raises(UserError, match=r"there is no such column; there are: id path speaker text split"):
        prepare_folder(table, tmp_path / "out", where={"corpus": {"x"}})
    with pytest.raises(UserError, match="column=value"):
        parse_where(["split"])
