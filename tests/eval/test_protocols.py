from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import soundfile
import torch

from valle.common.audio import load_audio, save_audio
from valle.common.errors import UserError
from valle.eval.protocols import (
    RECORDINGS,
    SENTENCES,
    SENTENCES_100,
    Clip,
    Recording,
    Word,
    WordTimer,
    choose_prompts,
    continuation,
    cross_sentence,
    open_list,
    read_list,
    read_seed_tts,
    read_sentences,
    read_trials,
)
from valle.tokenizers.text.characters import final_mark

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
        ("id\tpath\ttext\na\tx.wav\thello\n", "line 1: column 'speaker' is missing"),
        ("", "line 1: column 'id' is missing"),
        (HEADER, "has no rows below its header"),
        (HEADER + "a\tx.wav\tanna\n", "line 2: 3 columns, but the header has 4"),
        (HEADER + "a\tx.wav\tanna\t\n", "line 2: 'text' is empty"),
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
    with pytest.raises(UserError, match=r"nowhere\.tsv cannot be read: No such file"):
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


def test_every_shipped_voice_says_every_sentence_or_its_share() -> None:
    plain50, plain100, ends50 = open_list("plain50"), open_list("plain100"), open_list("ends50")
    assert len(plain50.trials) == len(ends50.trials) == 50 and len(plain100.trials) == 100
    for listed, per_voice in ((plain50, 10), (plain100, 20), (ends50, 10)):
        voices = [trial.prompt_id for trial in listed.trials]
        assert {voices.count(voice) for voice in voices} == {per_voice}
        assert len(set(voices)) == 5
        assert len({trial.id for trial in listed.trials}) == len(voices)
    assert len({trial.text for trial in plain100.trials}) == 100
    marks = Counter(final_mark(trial.text) for trial in ends50.trials)
    assert marks == {**dict.fromkeys(".!?,;:—…", 5), "": 10}
    assert len({(trial.prompt_id, final_mark(trial.text)) for trial in ends50.trials}) == 5 * 9


def even_words(recording: Recording) -> list[Word]:
    """Words of half a second each, with pauses of a tenth."""
    return [Word(word, 0.6 * i + 0.1, 0.6 * i + 0.6) for i, word in enumerate(recording.text.split())]


def speaker(folder: Path, name: str, seconds: list[float]) -> list[Recording]:
    found = []
    for i, length in enumerate(seconds):
        path = folder / f"{name}{i}.wav"
        save_audio(path, torch.linspace(0, 0.5, round(16_000 * length)), 16_000)
        words = " ".join(f"w{i}x{n}" for n in range(round(length / 0.6)))
        found.append(Recording(f"{name}{i}", path, name, words))
    return found


def test_continuation_cuts_between_words(tmp_path: Path) -> None:
    corpus = speaker(tmp_path, "anna", [6.0, 2.0, 12.0])
    (trial,) = continuation(corpus, even_words)
    assert trial.prompt_text == "w0x0 w0x1 w0x2 w0x3 w0x4"  # the fifth word ends at 3.0 s
    assert trial.text == "w0x5 w0x6 w0x7 w0x8 w0x9"
    assert (trial.prompt.start, trial.prompt.end) == (0.0, 3.0)
    assert trial.reference is not None
    whole = load_audio(corpus[0].path, 16_000)
    assert torch.equal(torch.cat((trial.prompt.load(16_000), trial.reference.load(16_000))), whole)


def test_cross_sentence_takes_another_utterance_of_the_same_speaker(tmp_path: Path) -> None:
    corpus = speaker(tmp_path, "anna", [5.0, 6.0]) + speaker(tmp_path, "bert", [5.0, 4.5, 1.0])
    trials = cross_sentence(corpus, even_words, sample=4, seed=3)
    texts = {recording.id: recording.text for recording in corpus}
    for trial in trials:
        assert trial.text == texts[trial.id]
        source = trial.prompt.path.stem
        assert source != trial.id and source[:4] == trial.speaker == trial.id[:4]
        assert trial.prompt_text == " ".join(texts[source].split()[:5])
        assert trial.reference == Clip(tmp_path / f"{trial.id}.wav")
    assert cross_sentence(corpus, even_words, sample=2, seed=3) == cross_sentence(corpus, even_words, sample=2, seed=3)
    draws = {tuple(t.id for t in cross_sentence(corpus, even_words, sample=2, seed=seed)) for seed in range(8)}
    assert len(draws) > 1
    with pytest.raises(UserError, match="only 4 can be used, not 5"):
        cross_sentence(corpus, even_words, sample=5)
    with pytest.raises(UserError, match="dictionary"):
        cross_sentence(corpus, lambda _: None)


def test_words_are_found_where_they_are_said(recordings: dict[str, Recording]) -> None:
    recording = recordings["3005-163389-0007"]  # YOU DIDN'T WANT TO COME
    words = WordTimer()(recording)
    assert words is not None
    assert [word.text for word in words] == recording.text.split()
    assert all(a.end <= b.start + 0.011 for a, b in pairwise(words))
    assert words[0].start > 0 and words[-1].end <= recording.seconds + 0.02
    unknown = Recording("x", recording.path, "x", "YOU DIDN'T QWERTZ")
    assert WordTimer()(unknown) is None


def test_seed_tts_meta(tmp_path: Path) -> None:
    (tmp_path / "prompt-wavs").mkdir()
    for name in ("prompt-wavs/p.wav", "t.wav"):
        soundfile.write(tmp_path / name, torch.zeros(800).numpy(), 16_000)
    (tmp_path / "meta.lst").write_text("a|Said before.|prompt-wavs/p.wav|To say.\nb|X.|prompt-wavs/p.wav|Y.|t.wav\n")
    a, b = read_seed_tts(tmp_path / "meta.lst")
    assert (a.id, a.text, a.prompt_text, a.prompt.path) == (
        "a",
        "To say.",
        "Said before.",
        tmp_path / "prompt-wavs/p.wav",
    )
    assert (a.reference, b.reference) == (None, Clip(tmp_path / "t.wav"))
    assert a.prompt_id == b.prompt_id == "prompt-wavs_p"
    (tmp_path / "meta.lst").write_text("a|b|c\n")
    with pytest.raises(UserError, match="line 1: 3 fields"):
        read_seed_tts(tmp_path / "meta.lst")


def test_trial_tables(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "p.wav", torch.zeros(800).numpy(), 16_000)
    (tmp_path / "t.tsv").write_text("id\tprompt\ttext\tspeaker\na.1\tp.wav\tHello there.\tanna\n")
    (trial,) = read_trials(tmp_path / "t.tsv")
    assert (trial.id, trial.speaker, trial.prompt_text) == ("a.1", "anna", None)
    for content, complaint in (
        ("id\tprompt\nx\tp.wav\n", "line 1: column 'text' is missing"),
        ("id\tprompt\ttext\n", "has no rows below its header"),
        ("id\tprompt\ttext\na\tnone.wav\tb\n", "line 2: .*none.wav does not exist"),
        ("id\tprompt\ttext\na\tp.wav\tb\na\tp.wav\tb\n", "line 3: id 'a' comes twice"),
    ):
        (tmp_path / "t.tsv").write_text(content)
        with pytest.raises(UserError, match=complaint):
            read_trials(tmp_path / "t.tsv")


def test_corpora_in_their_own_layout(recordings: dict[str, Recording], tmp_path: Path) -> None:
    chosen = [recordings[id_] for id_ in ("3005-163389-0001", "3005-163389-0002", "3005-163389-0007")]
    chapter = tmp_path / "ls" / "3005" / "163389"
    tts = tmp_path / "tts" / "3005" / "163389"
    tts.mkdir(parents=True)
    for recording in chosen:
        wav = load_audio(recording.path, 16_000)
        save_audio(chapter / f"{recording.id}.flac", wav, 16_000)
        name = recording.id.replace("-", "_")
        save_audio(tts / f"{name}.wav", wav, 16_000)
        (tts / f"{name}.normalized.txt").write_text(f"{recording.text.capitalize()}.\n")
    (tmp_path / "empty").mkdir()
    (chapter / "3005-163389.trans.txt").write_text("".join(f"{r.id} {r.text}\n" for r in chosen))
    listed = open_list(str(tmp_path / "ls"), sample=1)
    assert listed.trials[0].speaker == "3005" and listed.recordings == []
    assert open_list(str(tmp_path / "tts"), "continuation", sample=1).trials[0].prompt_text is not None
    with pytest.raises(UserError, match="layout of LibriSpeech"):
        open_list(str(tmp_path / "empty"))


def test_any_list_can_be_sampled(recordings: dict[str, Recording], tmp_path: Path) -> None:
    whole = open_list("plain100")
    drawn = [open_list("plain100", sample=10, sample_seed=seed).trials for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 10
    assert drawn[0] == [trial for trial in whole.trials if trial in drawn[0]]
    few = open_list("plain100", sample=3)
    assert {r.speaker for r in few.recordings} == {t.speaker for t in few.trials}
    assert len(few.recordings) == 2 * len({t.speaker for t in few.trials}), "a voice needs two, and a share is less"
    half = open_list("plain50", sample=25).recordings
    assert 25 <= len(half) < len(whole.recordings) and set(half) < set(whole.recordings)
    assert open_list("plain50", sample=50).recordings == whole.recordings
    (tmp_path / "sentences.txt").write_text("One.\nTwo.\nThree.\n")
    assert len(open_list("plain50", None, tmp_path / "sentences.txt", 7).trials) == 7
    path = recordings["1688-142285-0009"].path
    (tmp_path / "own.tsv").write_text(f"id\tpath\tspeaker\ttext\na\t{path}\tanna\tHello.\n")
    (tmp_path / "trials.tsv").write_text(f"id\tprompt\ttext\na\t{path}\tOne.\nb\t{path}\tTwo.\n")
    for name, most in (("own.tsv", 10), ("trials.tsv", 2)):
        assert len(open_list(str(tmp_path / name), sample=2).trials) == 2
        with pytest.raises(UserError, match=f"--sample 11: the list has {most} texts"):
            open_list(str(tmp_path / name), sample=11)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (("nowhere",), "no file or folder, and no shipped list"),
        (("plain100", "continuation"), "is complete"),
        (("plain100", None, Path("mine.txt")), "is complete"),
    ],
)
def test_what_does_not_fit_together_is_refused(argv: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        open_list(*argv)  # type: ignore[arg-type]
