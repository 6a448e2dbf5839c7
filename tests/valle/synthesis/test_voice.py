"""A voice that was saved is the voice; a model with other parts refuses it by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from valle import UserError, Voice, VoiceCloner
from valle.tokenizers.text import PhonemeTokenizer

Make = Callable[..., Any]
TRANSCRIPT = "You don't mean that you thought me so silly."


@pytest.fixture(scope="module")
def plain(make_bundle: Make) -> VoiceCloner:
    return VoiceCloner(make_bundle(aligned=False))


@pytest.fixture(scope="module")
def recording(recordings: Path) -> Path:
    return recordings / "1688-142285-0002.opus"


@pytest.mark.parametrize("transcript", [None, TRANSCRIPT])
def test_a_saved_voice_speaks_as_the_voice_does(
    transcript: str | None, plain: VoiceCloner, recording: Path, tmp_path: Path
) -> None:
    voice = plain.make_voice(recording, transcript)
    voice.save(tmp_path / "new" / "me.voice")
    again = Voice.load(tmp_path / "new" / "me.voice")
    assert torch.equal(again.prompt.wav, voice.prompt.wav)
    assert replace(again.prompt, wav=voice.prompt.wav) == voice.prompt
    assert again.notes == voice.notes
    assert torch.equal(plain.clone("Good morning.", again).wav, plain.clone("Good morning.", voice).wav)


def test_a_transcript_keeps_its_durations(cloner: VoiceCloner, recording: Path, tmp_path: Path) -> None:
    voice = cloner.make_voice(recording)
    phonemes = torch.tensor(cloner.bundle.text.encode(TRANSCRIPT))
    known = replace(voice, phonemes=phonemes, durations=torch.arange(len(phonemes)), made_with=cloner.bundle.parts)
    known.save(tmp_path / "me.voice")
    again = Voice.load(tmp_path / "me.voice")
    assert again.phonemes is not None and torch.equal(again.phonemes, phonemes)
    assert again.durations is not None and torch.equal(again.durations, torch.arange(len(phonemes)))


def test_another_codec_or_reading_is_refused_by_name(
    plain: VoiceCloner, cloner: VoiceCloner, make_bundle: Make, recording: Path, tmp_path: Path
) -> None:
    plain.make_voice(recording).save(tmp_path / "bare.voice")
    plain.make_voice(recording, TRANSCRIPT).save(tmp_path / "known.voice")
    bare, known = Voice.load(tmp_path / "bare.voice"), Voice.load(tmp_path / "known.voice")
    other = make_bundle(codec={"n_q": 3})
    with pytest.raises(UserError, match=f"'{plain.bundle.parts['codec']}'.*'{other.parts['codec']}'"):
        VoiceCloner(other).clone("Hello.", bare)
    with pytest.raises(UserError, match="text tokenizer 'phonemes .*, plain', this model has 'phonemes .*, aligned'"):
        cloner.clone("Hello.", known)
    assert cloner.clone("Hello.", bare).seconds > 0  # without a transcript only the codec counts
    few = replace(make_bundle(aligned=False), text=PhonemeTokenizer([*PhonemeTokenizer().vocab[11:-1], "new"]))
    with pytest.raises(UserError, match="text tokenizer"):
        VoiceCloner(few).clone("Hello.", known)


def test_what_is_no_voice_is_told(plain: VoiceCloner, recording: Path, tmp_path: Path) -> None:
    path, ran = tmp_path / "me.voice", tmp_path / "ran"
    with pytest.raises(UserError, match="not found"):
        Voice.load(path)
    plain.make_voice(recording).save(path)
    whole = path.read_bytes()

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    for content in (b"", whole[:1000], whole[:-100], recording.read_bytes(), pickle.dumps(Evil())):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no whole voice file"):
            Voice.load(path)
    assert not ran.exists()
    with pytest.raises(UserError, match="no whole voice file"):
        Voice.load(tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        plain.make_voice(recording).save(recording / "me.voice")
