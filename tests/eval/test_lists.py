from __future__ import annotations

from pathlib import Path

import pytest

from valle.common.errors import UserError
from valle.eval.lists import (
    RECORDINGS,
    SENTENCES,
    SENTENCES_100,
    Recording,
    choose_prompts,
    read_list,
    read_sentences,
)

HEADER = "id\tpath\tspeaker\ttext\n"


def test_the_shipped_list_is_whole() -> None:
    recordings = read_list(RECORDINGS)
    speakers = {recording.speaker for recording in recordings}
    assert (len(recordings), len(speakers)) == (50, 5)


@pytest.mark.parametrize(
    ("path", "count", "shortest", "longest"), [(SENTENCES, 10, 5, 12), (SENTENCES_100, 100, 5, 25)]
)
def test_the_shipped_sentences_are_plain(path: Path, count: int, shortest: int, longest: int) -> None:
    sentences = read_sentences(path)
    assert len(set(sentences)) == count
    for sentence in sentences:
        assert shortest <= len(sentence.split()) <= longest
        # Anything that reads in more than one way would measure the reading, not the voice.
        assert set(sentence) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,'."), sentence


def test_one_prompt_a_speaker_of_a_useful_length() -> None:
    prompts = choose_prompts(read_list())
    assert len({prompt.speaker for prompt in prompts}) == len(prompts) == 5
    assert all(3 <= prompt.seconds <= 8 for prompt in prompts)
    assert prompts[0].id == "1688-142285-0003"  # 0000 and 0001 are too long, 0002 is too short


def test_a_speaker_without_a_prompt_is_named(recordings: dict[str, Recording]) -> None:
    short_only = [recordings["1688-142285-0003"], recordings["3005-163389-0007"]]
    with pytest.raises(UserError, match="librispeech-test-other/3005"):
        choose_prompts(short_only)


def test_paths_are_relative_to_the_list_and_other_columns_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").write_bytes(b"")
    (tmp_path / "list.tsv").write_text('speaker\tid\tage\tpath\ttext\nanna\ta1\t30\taudio/a.wav\tSay "so"\n')
    assert read_list(tmp_path / "list.tsv") == [Recording("a1", tmp_path / "audio/a.wav", "anna", 'Say "so"')]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("id\tpath\ttext\na\tx.wav\thello\n", "no column 'speaker'"),
        ("", "no column 'id'"),
        (HEADER, "lists no recordings"),
        (HEADER + "a\tx.wav\tanna\n", "line 2: 'text' is empty"),
        (HEADER + "a\tnone.wav\tanna\thello\n", "line 2: .*none.wav does not exist"),
        (HEADER + "a\tx.wav\tanna\thello\na\tx.wav\tanna\tworld\n", "line 3: id 'a' comes twice"),
        (HEADER + "../a\tx.wav\tanna\thello\n", "cannot be a file name"),
    ],
)
def test_a_bad_list_is_explained(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "x.wav").write_bytes(b"")
    (tmp_path / "list.tsv").write_text(content)
    with pytest.raises(UserError, match=complaint):
        read_list(tmp_path / "list.tsv")


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.tsv does not exist"):
        read_list(tmp_path / "nowhere.tsv")
    (tmp_path / "s.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"s\.txt as UTF-8"):
        read_sentences(tmp_path / "s.txt")
    (tmp_path / "s.txt").write_text("\n  \n")
    with pytest.raises(UserError, match="no sentences"):
        read_sentences(tmp_path / "s.txt")
    broken = Recording("a", tmp_path / "s.txt", "anna", "hello")
    with pytest.raises(UserError, match=r"cannot read .*s\.txt as audio"):
        choose_prompts([broken])
