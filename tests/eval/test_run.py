from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from valle.common.audio import load_audio, save_audio
from valle.common.errors import UserError
from valle.eval.judges.judging import JudgeNames
from valle.eval.judges.text import score_text
from valle.eval.protocols import Clip, Recording, Trial, each
from valle.eval.run import Manner, Plan, evaluate_tts, identity
from valle.eval.run_folder import RunFolder

ANNA, BERT = "1688-142285-0009", "3331-159605-0005"  # two speakers


@dataclass
class Playback:
    """A system that gives back the prompt, whatever it is told to say."""

    calls: list[tuple[str, str | None, int]] = field(default_factory=list)

    @dataclass
    class Speech:
        wav: Tensor
        sample_rate: int = 16_000
        stop_reason: str = "eos"

    def clone(self, text: str, prompt: Path, prompt_text: str | None = None, seed: int = 0) -> Speech:
        self.calls.append((text, prompt_text, seed))
        return self.Speech(load_audio(prompt, 16_000))

    def resynthesise(self, prompt: Path) -> tuple[Tensor, int]:
        return load_audio(prompt, 16_000).flip(0), 16_000


@pytest.fixture
def plan(recordings: dict[str, Recording]) -> Plan:
    real = [recordings[ANNA], recordings[BERT]]
    return Plan(each(real, ["The bread is still warm."]), real)


def test_a_system_that_plays_the_prompt_has_its_voice_but_not_its_words(plan: Plan, tmp_path: Path) -> None:
    system = Playback()
    report = evaluate_tts(replace(plan, seed=7), tmp_path, cloner=system)
    assert report is not None
    assert system.calls == [(t.text, t.prompt_text, 7 + i) for i, t in enumerate(plan.trials)]
    assert report.metrics["sim"].value == pytest.approx(1, abs=1e-3)  # the output went through 16-bit audio
    assert report.metrics["sim_others"].value < 0.8
    assert 0.8 < report.metrics["sim_resynthesised"].value < 0.95  # backwards, it is still the same voice
    assert report.metrics["wer"].value >= 1
    assert report.real_time_factor > 0
    store = RunFolder(tmp_path)
    by_hand = [score_text(r.text, store.judgement("recordings", r.id).heard) for r in plan.recordings]
    assert report.context["recordings_wer"].value == pytest.approx(
        sum(s.words.errors for s in by_hand) / sum(s.words.length for s in by_hand)
    )
    assert report.context["same_speaker"].n == 0
    assert report.context["different_speakers"].value == pytest.approx(report.metrics["sim_others"].value, abs=1e-3)


def test_a_stopped_run_goes_on_and_ends_in_the_same_result(plan: Plan, tmp_path: Path) -> None:
    whole = evaluate_tts(plan, tmp_path / "whole", cloner=Playback())
    first, second = Playback(), Playback()
    assert evaluate_tts(plan, tmp_path / "parts", part=0, parts=2, cloner=first) is None
    (tmp_path / "parts" / "judged" / "trials" / f"{plan.trials[0].id}.json").unlink()  # killed before judging
    report = evaluate_tts(plan, tmp_path / "parts", cloner=second)
    assert len(first.calls) + len(second.calls) == 2, "an output was made twice"
    assert whole is not None and report is not None
    assert report.rows == whole.rows
    assert report.metrics == whole.metrics
    assert report.context == whole.context


def test_results_are_the_same_bytes_for_one_and_for_two_processes(plan: Plan, tmp_path: Path) -> None:
    wavs = tmp_path / "wavs"
    for trial in plan.trials:
        save_audio(wavs / f"{trial.id}.wav", trial.prompt.load(16_000), 16_000)
    plan = replace(plan, wavs=wavs)
    for jobs in (1, 2):
        report = evaluate_tts(plan, tmp_path / str(jobs), jobs=jobs)
        assert report is not None
        report.write(tmp_path / str(jobs), identity(plan), 0)
    for name in ("results.json", "utterances.tsv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_reading(
    recordings: dict[str, Recording], tmp_path: Path
) -> None:
    prompts = [recordings[ANNA], recordings[BERT]]
    plan = Plan(each(prompts, ["The bread is still warm."]), judges=JudgeNames(reading=False))
    found = {}
    for name, seed, jobs in (("once", 0, 1), ("again", 0, 2), ("other", 1, 1)):
        this = replace(plan, seed=seed)
        report = evaluate_tts(this, tmp_path / name, jobs=jobs)
        assert report is not None
        report.write(tmp_path / name, identity(this), seed)
        files = [tmp_path / name / file for file in ("results.json", "utterances.tsv")]
        found[name] = [path.read_bytes() for path in [*files, *sorted((tmp_path / name / "wavs").iterdir())]]
    assert found["once"] == found["again"]
    assert all(a != b for a, b in zip(found["once"], found["other"], strict=True))


def test_a_folder_holds_one_evaluation(plan: Plan, tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    store.begin(plan.trials, plan.recordings, identity(plan, Playback()))
    store.begin(plan.trials, plan.recordings, identity(plan, Playback()))
    with pytest.raises(UserError, match="another --out") as caught:
        store.begin(plan.trials, plan.recordings, identity(replace(plan, judges=JudgeNames("hubert")), Playback()))
    assert "other judges" in str(caught.value)
    with pytest.raises(UserError, match="other trials"):
        store.begin(plan.trials[:1], plan.recordings, identity(plan, Playback()))


def test_outputs_of_another_system_and_references(recordings: dict[str, Recording], tmp_path: Path) -> None:
    spoken, prompt = recordings[ANNA], recordings["1688-142285-0005"]
    trial = Trial("said", spoken.text, "anna", Clip(prompt.path), "p", reference=Clip(spoken.path))
    plan = Plan([trial], wavs=tmp_path / "wavs")
    with pytest.raises(UserError, match=r"said\.wav is missing"):
        evaluate_tts(plan, tmp_path / "none")
    save_audio(tmp_path / "wavs" / "said.flac", load_audio(spoken.path, 16_000), 16_000)
    report = evaluate_tts(plan, tmp_path / "run")
    assert report is not None
    assert report.metrics["wer"].value <= 0.4
    assert 0.7 < report.metrics["sim"].value < 0.99  # the speaker's own voice, other words
    assert report.metrics["sim_reference"].value == pytest.approx(1, abs=1e-3)
    assert report.context["recordings_wer"].value == report.metrics["wer"].value
    results = report.results({}, 0)
    assert "NaN" not in json.dumps(results)
    assert "sim_resynthesised" not in report.metrics  # the codec of another system is not known


def test_an_output_in_which_nothing_is_heard_counts_as_all_wrong(
    recordings: dict[str, Recording], tmp_path: Path
) -> None:
    trials = each([recordings[ANNA]], ["The bread is still warm.", "Nobody heard the rain."])
    save_audio(tmp_path / "wavs" / f"{trials[0].id}.wav", torch.zeros(32_000), 16_000)
    save_audio(tmp_path / "wavs" / f"{trials[1].id}.wav", torch.zeros(0), 16_000)
    report = evaluate_tts(Plan(trials, wavs=tmp_path / "wavs"), tmp_path / "run")
    assert report is not None
    assert report.metrics["wer"].value == report.metrics["skips"].value == 1
    assert (report.metrics["sim"].n, report.metrics["sim"].excluded) == (0, 2)
    assert [row.texts["notes"] for row in report.rows] == ["recording: silence", "recording: no samples"]


def test_settings_are_read_and_only_what_differs_is_told() -> None:
    assert Manner.parse([]).to_dict() == {}
    manner = Manner.parse(["retries=0", "ras_window=10", "temperature=0.5", "greedy=true", "precision=fp32"])
    assert manner == Manner(
        retries=0, precision="fp32", sampling={"ras_window": 10, "temperature": 0.5, "greedy": True}
    )
    assert set(manner.to_dict()) == {"retries", "precision", "sampling"}


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("retry=0", "unknown setting"),
        ("retries", "setting 'retries'"),
        ("retries=x", "retries=x"),
        ("top_p=2", "top_p"),
    ],
)
def test_settings_that_make_no_sense_are_named(setting: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Manner.parse([setting])
