"""Text and a recording in, speech out: with random weights, so what is said does not count, but how it is made does."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

import valle
from valle import VoiceCloner
from valle.common.errors import UserError
from valle.lm import Decoder, Request, Row, Sampling
from valle.synthesis.result import Speech
from valle.synthesis.utterance import FADE_SECONDS, SENTENCE_PAUSE, cut_text
from valle.tokenizers.codecs import SpeechCodes

PROMPT = Path(valle.__file__).parent / "assets" / "eval" / "1688-142285-0002.opus"
TRANSCRIPT = "You don't mean that you thought me so silly."
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def plain(make_bundle: Make) -> VoiceCloner:
    return VoiceCloner(make_bundle(aligned=False))


@pytest.fixture(scope="module")
def said(cloner: VoiceCloner) -> Speech:
    return cloner.clone("Good morning. How are you?", PROMPT)


def test_speech_is_the_decoded_codes_with_the_voice_of_the_prompt(cloner: VoiceCloner) -> None:
    voice = replace(cloner.make_voice(PROMPT), loudness=None)
    said = cloner.clone("Good morning.", voice)
    assert voice.time_invariant is not None
    codes = SpeechCodes(said.codes[None], torch.tensor([said.codes.shape[1]]), voice.time_invariant[None])
    decoded, fade = cloner.bundle.codec.decode(codes)[0, 0], int(FADE_SECONDS * 16000)
    assert said.wav.shape == decoded.shape
    assert torch.equal(said.wav[fade:-fade], decoded[fade:-fade])
    assert said.wav[0] == said.wav[-1] == 0
    assert said.codes.shape[0] == cloner.bundle.codec.spec.n_q
    assert said.sample_rate == 16000
    assert said.seconds == pytest.approx(said.codes.shape[1] / 50)
    assert said.stop_reason == "end_of_text"
    assert said.real_time_factor > 0


def test_the_seed_decides(cloner: VoiceCloner, said: Speech) -> None:
    again = cloner.clone("Good morning. How are you?", PROMPT)
    other = cloner.clone("Good morning. How are you?", PROMPT, seed=1)
    assert torch.equal(again.wav, said.wav)
    assert not torch.equal(other.codes[:, :20], said.codes[:, :20])


def test_sentences_are_joined_by_pauses(cloner: VoiceCloner, said: Speech) -> None:
    pause = said.seconds - said.codes.shape[1] / 50
    assert pause == pytest.approx(SENTENCE_PAUSE)
    first = cloner.clone("Good morning.", PROMPT)
    assert torch.equal(said.wav[: first.wav.shape[0]], first.wav)
    assert not said.wav[first.wav.shape[0] :][: int(SENTENCE_PAUSE * 16000)].any()


def test_progress_goes_from_nothing_to_all(cloner: VoiceCloner) -> None:
    shares: list[float] = []
    cloner.clone("One. Two is more. Three, four.", PROMPT, progress=shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5
    assert shares[-1] == 1


def test_a_transcribed_prompt_is_continued_and_not_repeated(plain: VoiceCloner) -> None:
    voice = plain.make_voice(PROMPT, TRANSCRIPT)
    assert voice.phonemes is not None
    alone, continued = plain.clone("Yes.", PROMPT), plain.clone("Yes.", voice)
    assert not torch.equal(alone.codes[:, :5], continued.codes[:, :5])
    # The limit of the length is that of the new text alone: there is no room for the prompt in it.
    limit = plain.bundle.sampling.max_frames_per_token * len(plain.bundle.text.encode("Yes."))
    assert continued.codes.shape[1] <= limit < voice.codes.shape[1]


LONG = "The river was high that spring, the bridge was down: nobody could come over " * 4 + "and so we waited!"
HEADINGS = "Chapter one\n\n- bread\n- milk; and butter\n\nWho was there? He said: “Nobody!”\n\nTo be continued…\n\nEnd"


def last_marks(cloner: VoiceCloner, texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands last in all that the AR model is given to read when these texts are spoken."""
    asked: list[str] = []
    enter, vocab = Decoder.enter, cloner.bundle.text.vocab

    def remember(decoder: Decoder, request: Request) -> Row:
        asked.append(vocab[int(request.phonemes[-1])])
        return enter(decoder, request)

    monkeypatch.setattr(Decoder, "enter", remember)
    for text in texts:
        cloner.clone(text, PROMPT, candidates=1, retries=0)
    return asked


@pytest.mark.parametrize("end", [".", "!", "?", ",", ";", ":", " —", "…", "...", ""])
def test_every_text_and_piece_and_transcript_ends_in_a_known_mark(
    end: str, make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloner = VoiceCloner(replace(make_bundle(aligned=False), ends="."))
    texts = [f"It was late{end}", *((LONG, HEADINGS) if not end else ())]
    marks = last_marks(cloner, texts, monkeypatch)
    assert len(marks) >= (10 if not end else 1)
    assert set(marks) == {"."}
    voice = cloner.make_voice(PROMPT, TRANSCRIPT.rstrip(".") + end)
    same = cloner.make_voice(PROMPT, TRANSCRIPT)
    assert voice.phonemes is not None and same.phonemes is not None
    assert torch.equal(voice.phonemes, same.phonemes)


def test_a_known_mark_stays(make_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cloner = VoiceCloner(replace(make_bundle(), ends=".?,"))
    texts = ["Who was there?", "Oh!", "First, second: third, " * 12 + "end"]
    first, second, *inner, last = last_marks(cloner, texts, monkeypatch)
    assert [first, second, {*inner}, last] == ["?", ".", {","}, "."]


def test_a_sentence_that_is_cut_off_says_so(plain: VoiceCloner) -> None:
    said = plain.clone("Good morning.", PROMPT, sampling=Sampling(max_frames=5, min_frames_per_token=3.0))
    assert said.stop_reason == "max_length"
    assert any("another seed" in note for note in said.notes)


def test_a_transcript_that_cannot_be_used_is_noted(cloner: VoiceCloner, plain: VoiceCloner) -> None:
    assert any("no aligner" in note for note in cloner.make_voice(PROMPT, TRANSCRIPT).notes)
    long = torch.rand(30 * 16000, generator=torch.Generator().manual_seed(0)) - 0.5
    voice = plain.make_voice((long, 16000), TRANSCRIPT)
    assert voice.phonemes is None
    assert any("too long" in note for note in voice.notes)


def test_a_model_without_time_invariant_codes_needs_the_transcript(make_bundle: Make) -> None:
    cloner = VoiceCloner(make_bundle(aligned=False, codec={"time_invariant": False}))
    with pytest.raises(UserError, match="needs the transcript"):
        cloner.clone("Yes.", PROMPT)
    assert cloner.clone("Yes.", PROMPT, TRANSCRIPT).seconds > 0


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [
        ("", "en-us", "empty"),
        (" \n\t", "en-us", "empty"),
        ("?!... ***", "en-us", "nothing to say"),
        ("Hello", "klingon", "unknown language"),
    ],
)
def test_texts_that_cannot_be_said_are_refused(cloner: VoiceCloner, text: str, language: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cloner.clone(text, PROMPT, language=language)


def test_other_languages_are_spoken(cloner: VoiceCloner) -> None:
    german = cloner.clone("Guten Tag", PROMPT, language="de")
    assert not torch.equal(german.codes, cloner.clone("Guten Tag", PROMPT).codes)


def test_a_line_of_punctuation_does_not_stop_a_text(cloner: VoiceCloner) -> None:
    assert cloner.clone("One.\n\n* * *\n\nTwo.", PROMPT).seconds > 0


def test_a_stream_may_be_of_any_length(cloner: VoiceCloner) -> None:
    chunk = next(cloner.stream("It goes on and on. " * 2000, PROMPT))
    assert 0 < len(chunk.wav) < 16_000


@pytest.mark.parametrize("text", ["Yes. 你好。 No.", "你好。 Yes. No.", "Yes. No. 你好。"])
def test_a_sentence_that_nobody_can_read_is_left_out_and_noted(cloner: VoiceCloner, text: str) -> None:
    speech = cloner.clone(text, PROMPT, candidates=1)
    assert speech.codes.shape[1] > 0
    assert [note for note in speech.notes if "你好" in note] == speech.notes[-1:]
    *parts, last = cloner.stream(text, PROMPT)
    assert last.outcome is not None
    assert last.outcome.notes == speech.notes
    assert sum(len(part.wav) for part in (*parts, last)) == len(speech.wav)


def test_what_is_spoken_in_one_go_is_bounded_with_its_numbers_spelled_out() -> None:
    numbers = [piece.text for piece in cut_text("Call " + "0800 123 456, " * 12 + "or write.", 1)]
    assert "".join("".join(numbers).split()) == "Call" + "0800123456," * 12 + "orwrite."
    assert max(sum(map(str.isdigit, piece)) for piece in numbers) <= 40
    assert len(cut_text("In 1999 it cost 25,000 dollars, and in 2005 it was sold again for 40,000.", 1)) == 1


def test_unknown_device_is_refused(model: Path) -> None:
    with pytest.raises(UserError, match="device 'abacus'"):
        VoiceCloner.from_pretrained(model, device="abacus")


def test_several_texts_give_what_each_gives_alone_in_their_order(cloner: VoiceCloner) -> None:
    texts, voice = ["Good morning. How are you?", "No.", "It is late, and so is she."], cloner.make_voice(PROMPT)
    shares: list[float] = []
    spoken = cloner.clone(texts, voice, seed=3, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    for text, speech in zip(texts, spoken, strict=True):
        alone = cloner.clone(text, voice, seed=3)
        assert torch.equal(speech.wav, alone.wav)
        assert (speech.notes, speech.retries, speech.stop_reason) == (alone.notes, alone.retries, alone.stop_reason)
    (only,) = cloner.clone(("No.",), voice, seed=3)
    assert torch.equal(only.wav, spoken[1].wav)
    assert cloner.clone([], voice) == []


def test_of_several_texts_the_wrong_one_is_named(cloner: VoiceCloner) -> None:
    voice = cloner.make_voice(PROMPT)
    for wrong in (" ", "?!..."):
        with pytest.raises(UserError, match="^text 2 of 3: "):
            cloner.clone(["Yes.", wrong, "No."], voice)


@pytest.mark.parametrize(("format", "coding"), [("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS"),
                                                ("mp3", "MPEG_LAYER_III"), ("opus", "OPUS")])  # fmt: skip
def test_speech_is_saved_to_paths_and_files_in_every_format(
    said: Speech, tmp_path: Path, format: str, coding: str
) -> None:
    said.save(tmp_path / "by.name" / f"out.{format.upper()}")
    said.save(tmp_path / "out.bin", format=format)
    memory = io.BytesIO()
    said.save(memory, format=format.upper())
    memory.seek(0)
    with (tmp_path / "opened").open("wb") as file:
        said.save(file, format=format)
    for written in (tmp_path / "by.name" / f"out.{format.upper()}", tmp_path / "out.bin", memory, tmp_path / "opened"):
        with soundfile.SoundFile(written) as audio:
            assert audio.subtype == coding
            samples = torch.from_numpy(audio.read(dtype="float32"))
        assert abs(len(samples) - len(said.wav)) <= 3000  # MP3 pads
        if coding == "PCM_16":
            assert torch.allclose(samples, said.wav, atol=1e-4)


def test_formats_that_nobody_knows_are_refused(said: Speech, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="as 'aac'; known formats: wav, flac"):
        said.save(io.BytesIO(), format="aac")
    with pytest.raises(UserError, match="cannot write .*out as ''; known"):
        said.save(tmp_path / "out")
    (tmp_path / "readable").touch()
    with (tmp_path / "readable").open("rb") as file, pytest.raises(UserError, match="cannot write .*readable"):
        said.save(file)
    for wrong in (None, 7):
        with pytest.raises(UserError, match="cannot write"):
            said.save(wrong)  # type: ignore[arg-type]
    memory = io.BytesIO()
    said.save(memory)
    assert memory.getvalue()[:4] == b"RIFF"


def test_results_are_short_to_look_at_and_play_in_notebooks(cloner: VoiceCloner, said: Speech) -> None:
    voice = replace(cloner.make_voice(PROMPT), notes=["quiet & <short>"])
    assert re.fullmatch(r"Speech\(\d+\.\d\d s at 16000 Hz, end_of_text, seed 0(, \d notes)?\)", repr(said))
    assert re.fullmatch(r"Voice\(2\.\d\d s, without transcript, codec spectral [0-9a-f]{16}\)", repr(voice))
    assert re.fullmatch(r"VoiceCloner\(codec spectral, AR of 0\.0 M parameters, on cpu\)", repr(cloner))
    for shown, wav in ((said, said.wav), (voice, voice.prompt.wav)):
        audio = re.match(r'<audio controls src="data:audio/mpeg;base64,([\w+/=]+)"></audio>', shown._repr_html_())
        assert audio is not None
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio[1])))
        assert rate == 16000 and 0 <= len(samples) - len(wav) <= 3000
    assert voice._repr_html_().endswith("quiet &amp; &lt;short&gt;")
