from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from valle.eval.lists import Recording
from valle.eval.recognisers import Recogniser, build_recogniser
from valle.eval.similarity import SpeakerModel, build_speaker_model
from valle.eval.text import score_text
from valle.eval.tts import Job, Output, evaluate_tts, judge, judge_recordings, plan, read_outputs, synthesise
from valle.tokenizers.audio import load_audio
from valle.tokenizers.errors import UserError

ANNA, BERT = "1688-142285-0009", "3331-159605-0005"  # two speakers


@dataclass
class Playback:
    """A system that gives back the prompt, whatever it is told to say."""

    calls: list[tuple[str, str | None, int]]

    @dataclass
    class Speech:
        wav: Tensor
        sample_rate: int = 16_000
        stop_reason: str = "eos"

    def clone(self, text: str, prompt: Path, prompt_text: str | None = None, seed: int = 0) -> Speech:
        self.calls.append((text, prompt_text, seed))
        return self.Speech(load_audio(prompt, 16_000))


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return build_recogniser("pocketsphinx")


@pytest.fixture(scope="module")
def speaker_model() -> SpeakerModel:
    return build_speaker_model("resemblyzer")


def test_every_prompt_says_every_sentence(recordings: dict[str, Recording]) -> None:
    jobs = plan([recordings[ANNA], recordings[BERT]], ["One.", "Two."])
    assert [(job.id, job.prompt.id, job.text) for job in jobs] == [
        (f"{ANNA}.000", ANNA, "One."),
        (f"{ANNA}.001", ANNA, "Two."),
        (f"{BERT}.000", BERT, "One."),
        (f"{BERT}.001", BERT, "Two."),
    ]


def test_synthesis_hands_over_prompt_text_and_a_seed_of_its_own(recordings: dict[str, Recording]) -> None:
    jobs = plan([recordings[ANNA]], ["One.", "Two."])
    told, kept = Playback([]), Playback([])
    outputs = synthesise(told, jobs, use_prompt_text=True, seed=7)
    synthesise(kept, jobs, use_prompt_text=False)
    assert told.calls == [("One.", recordings[ANNA].text, 7), ("Two.", recordings[ANNA].text, 8)]
    assert kept.calls == [("One.", None, 0), ("Two.", None, 1)]
    assert outputs[0].seconds == pytest.approx(recordings[ANNA].seconds, abs=0.01)


def test_a_system_that_plays_the_prompt_has_its_voice_but_not_its_words(
    recordings: dict[str, Recording], recogniser: Recogniser, speaker_model: SpeakerModel
) -> None:
    prompts = [recordings[ANNA], recordings[BERT]]
    report = evaluate_tts(Playback([]), prompts, ["The bread is still warm."], recogniser, speaker_model, prompts)
    assert report.metrics["sim"].value == pytest.approx(1, abs=1e-5)
    assert report.metrics["sim_others"].value < 0.8
    assert report.metrics["wer"].value >= 1
    assert report.real_time_factor > 0
    heard = recogniser.transcribe([load_audio(prompt.path, 16_000) for prompt in prompts], 16_000)
    by_hand = [score_text(prompt.text, text) for prompt, text in zip(prompts, heard, strict=True)]
    assert report.context["recordings_wer"].value == pytest.approx(
        sum(s.words.errors for s in by_hand) / sum(s.words.length for s in by_hand)
    )
    assert report.context["same_speaker"].n == 0
    assert report.context["different_speakers"].value == pytest.approx(report.metrics["sim_others"].value, abs=1e-5)
    again = evaluate_tts(Playback([]), prompts, ["The bread is still warm."], recogniser, speaker_model, prompts)
    assert again.rows == report.rows
    assert again.metrics == report.metrics


def test_outputs_of_another_system_are_judged_by_their_files(
    recordings: dict[str, Recording], recogniser: Recogniser, speaker_model: SpeakerModel, tmp_path: Path
) -> None:
    spoken = recordings[ANNA]
    job = Job("said", recordings["1688-142285-0005"], spoken.text)  # the speaker's own voice, other words
    with pytest.raises(UserError, match=r"1 of 1 outputs are missing, first: .*said\.wav"):
        read_outputs(tmp_path, [job])
    shutil.copy(spoken.path, tmp_path / "said.wav")
    report = judge([job], read_outputs(tmp_path, [job]), recogniser, speaker_model)
    assert report.metrics["wer"].value <= 0.4
    assert 0.7 < report.metrics["sim"].value < 0.99
    assert report.context == {}


def test_an_output_in_which_nothing_is_heard_counts_as_all_wrong(
    recordings: dict[str, Recording], recogniser: Recogniser, speaker_model: SpeakerModel
) -> None:
    jobs = plan([recordings[ANNA]], ["The bread is still warm.", "Nobody heard the rain."])
    outputs = [Output(torch.zeros(32_000), 16_000, "max_length"), Output(torch.zeros(0), 16_000)]
    report = judge(jobs, outputs, recogniser, speaker_model)
    assert report.metrics["wer"].value == report.metrics["skips"].value == 1
    assert (report.metrics["sim"].n, report.metrics["sim"].excluded) == (0, 2)
    assert [row.sim.reason for row in report.rows] == ["recording: silence", "recording: no samples"]


def test_recordings_without_words_are_the_users_mistake(
    recordings: dict[str, Recording], recogniser: Recogniser, speaker_model: SpeakerModel
) -> None:
    wordless = Recording("a", recordings["3005-163389-0007"].path, "anna", "...")
    with pytest.raises(UserError, match="no words"):
        judge_recordings([wordless], recogniser, speaker_model)
