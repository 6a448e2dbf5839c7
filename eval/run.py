"""How well a system clones voices: `evaluate_tts`.

A recogniser, a speaker model and more judge what the system says. Beside their figures stand those of the same judges
on real recordings, without which they mean nothing.

All work goes through a folder (`RunFolder`), piece by piece, each written whole or not at all. So a run that was
stopped goes on when started again, any number of workers and machines share one, and the result is the same for all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import soundfile
import torch
from torch import Tensor
from tqdm import tqdm

from valle.common.audio import load_audio, save_audio
from valle.common.device import computing_with
from valle.common.errors import UserError
from valle.eval.judges.judging import SAMPLE_RATE, JudgeNames, Judges, build_scorer
from valle.eval.protocols import Recording, Trial
from valle.eval.results import hash_files, hash_model
from valle.eval.run_folder import Made, RunFolder, TTSReport, find_output, score_run
from valle.lm import Sampling
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.options import CANDIDATES, SynthesisOptions
from valle.synthesis.result import Speech

_PIECE = 8
"""Trials or recordings in a piece of work: small enough to be shared evenly, large enough to be worth a batch."""


class Cloner(Protocol):
    """What is evaluated: `valle.VoiceCloner`, or anything with these two methods of it."""

    def clone(self, text: str, prompt: Path, prompt_text: str | None = None, seed: int = 0) -> Any:
        """Speech with `wav` [S], `sample_rate` and `stop_reason`."""

    def resynthesise(self, prompt: Path) -> tuple[Tensor, int]:
        """`(wav, rate)`: the prompt [S] as its codec gives it back."""


@dataclass(frozen=True)
class Manner:
    """Settings of `valle clone`."""

    retries: int = 2
    n_best: int = CANDIDATES
    best_by: str = "own"
    precision: str = "auto"
    sampling: dict[str, Any] = field(default_factory=dict)
    """Changes of the model's own `Sampling`."""

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Manner:
        """From `NAME=VALUE` each, the names being those of the fields and of `Sampling`. Raises `UserError`."""
        own: dict[str, Any] = {f.name: f.default for f in fields(cls) if f.name != "sampling"}
        known = own | asdict(Sampling())
        values: dict[str, Any] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in known:
                raise UserError(f"unknown setting '{setting}'; write NAME=VALUE, with one of: {', '.join(known)}")
            try:
                values[name] = {"true": True, "false": False}.get(value, value)
                if not isinstance(known[name], bool):
                    values[name] = type(known[name])(value)
            except ValueError as error:
                raise UserError(f"setting '{setting}': {error}") from error
        sampling = {name: value for name, value in values.items() if name not in own}
        manner = cls(**{name: value for name, value in values.items() if name in own}, sampling=sampling)
        replace(Sampling(), **sampling)  # what makes no sense is told at once
        return manner

    def to_dict(self) -> dict[str, Any]:
        """What is not as usual."""
        usual = asdict(Manner())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    def cloner(self, model: str | None, device: str, threads: int | None = None) -> MannerCloner:
        """The model (None: the embedded one), speaking in this manner."""
        cloner = VoiceCloner.from_pretrained(model, device, self.precision, threads)
        scorer = build_scorer(self.best_by) if self.n_best > 1 else None
        sampling = replace(cloner.bundle.sampling, **self.sampling)
        options = SynthesisOptions(sampling=sampling, candidates=self.n_best, retries=self.retries, scorer=scorer)
        return MannerCloner(cloner, options)


@dataclass
class MannerCloner:
    """A `Cloner`: a model that speaks in a `Manner`."""

    cloner: VoiceCloner
    options: SynthesisOptions

    def clone(self, text: str, prompt: Path, prompt_text: str | None = None, seed: int = 0) -> Speech:
        return self.cloner.clone(text, prompt, prompt_text, self.options, seed=seed)

    def resynthesise(self, prompt: Path) -> tuple[Tensor, int]:
        return self.cloner.resynthesise(prompt)


@dataclass(frozen=True)
class Plan:
    """An evaluation: what is said, by which system, and who judges."""

    trials: Sequence[Trial]
    recordings: Sequence[Recording] = ()
    """Real ones for the context; without any there is none."""
    model: str | None = None
    """Model folder or Hub id; None: the embedded one."""
    manner: Manner = field(default_factory=Manner)
    """How it speaks."""
    wavs: Path | None = None
    """Folder with another system's outputs, `<trial id>.wav`: then nothing is synthesised."""
    use_prompt_text: bool = True
    judges: JudgeNames = field(default_factory=JudgeNames)
    seed: int = 0
    """Trial number i (from 0) is said with seed `seed + i`; also that of the intervals."""
    device: str = "cpu"
    threads: int = 1
    """Of each process. The order in which threads add up changes last digits and, with them, now and then a code."""


def evaluate_tts(
    plan: Plan, folder: Path, *, jobs: int = 1, part: int = 0, parts: int = 1, cloner: Cloner | None = None
) -> TTSReport | None:
    """Do what is missing in `folder`, and score it once nothing is; None where other parts are still to do.

    jobs:        processes on this machine; on GPUs, worker k takes GPU k
    part, parts: this run does every `parts`-th piece, from `part`; for several machines on one folder
    cloner:      a system in this process, instead of `plan.model`; not with several jobs
    Raises `UserError` when `folder` holds another evaluation, or an output of another system is missing.
    """
    store = RunFolder(folder)
    store.begin(plan.trials, plan.recordings, identity(plan, cloner))
    if plan.wavs:
        store.take_outputs(plan.wavs, plan.trials)
    shares = [(part * jobs + worker, parts * jobs) for worker in range(jobs)]
    mine = [pieces for share in shares if (pieces := _missing(store, plan, *share))]
    with tqdm(desc="evaluate", total=sum(map(len, mine)), unit="piece", disable=None, leave=False) as bar:
        if len(mine) <= 1 or cloner:
            with computing_with(plan.threads):
                for pieces in mine:
                    for _ in _work(plan, folder, pieces, plan.device, cloner):
                        bar.update()
        else:
            _work_in_processes(plan, folder, mine, bar)
    if _missing(store, plan, 0, 1):
        return None
    return score_run(store, plan.trials, plan.recordings, plan.seed)


def identity(plan: Plan, cloner: Cloner | None = None) -> dict[str, Any]:
    """What a folder's results depend on besides its lists; kept beside them."""
    system: dict[str, Any]
    if plan.wavs:
        system = {"wavs": plan.wavs.name, "hash": hash_files(find_output(plan.wavs, t.id) for t in plan.trials)}
    elif cloner:
        system = {"class": type(cloner).__name__}
    else:
        system = {"model": plan.model or "embedded", "hash": hash_model(plan.model), **plan.manner.to_dict()}
    clips = {t.prompt_id: t.prompt for t in plan.trials}.values()
    judges = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(plan.judges).items()}
    return {
        "system": system,
        "prompts": hash_files(clip.path for clip in clips),
        "use_prompt_text": plan.use_prompt_text,
        "seed": plan.seed,
        "threads": plan.threads,
        "judges": judges,
    }


@dataclass(frozen=True)
class _Item:
    """Something to judge, and for trials and resynthesised prompts to make first."""

    kind: str
    id: str
    text: str | None
    path: Path | None = None
    """None for a trial."""
    number: int = 0


def _items(store: RunFolder, plan: Plan) -> list[list[_Item]]:
    """All there is to do, in pieces."""
    texts = {trial.id: trial.text for trial in plan.trials}
    resynthesised = {} if plan.wavs else store.resynthesised(plan.trials)
    kinds = [
        [_Item("trials", trial.id, trial.text, number=n) for n, trial in enumerate(plan.trials)],
        [_Item("prompts", id_, None, path) for id_, path in store.prompts(plan.trials).items()],
        [_Item("resynthesised", id_, None, path) for id_, path in resynthesised.items()],
        [_Item("references", id_, texts[id_], path) for id_, path in store.references(plan.trials).items()],
        [_Item("recordings", recording.id, recording.text, recording.path) for recording in plan.recordings],
    ]
    return [items[start : start + _PIECE] for items in kinds for start in range(0, len(items), _PIECE)]


def _missing(store: RunFolder, plan: Plan, share: int, shares: int) -> list[list[_Item]]:
    # A piece is judged as a whole again if anything of it is missing: so what is heard together never depends on when
    # a run was stopped.
    mine = _items(store, plan)[share::shares]
    return [piece for piece in mine if not all(store.is_judged(item.kind, item.id) for item in piece)]


def _work(
    plan: Plan, folder: Path, pieces: list[list[_Item]], device: str, cloner: Cloner | None = None
) -> Iterator[None]:
    """Do `pieces`, one after another."""
    store = RunFolder(folder)
    # The judges are built first: what they lack should not come out after an hour of synthesis.
    judges = Judges.build(plan.judges, device)
    for piece in pieces:
        for item in piece:
            if item.kind == "resynthesised" or (item.kind == "trials" and not store.is_made(item.id)):
                cloner = cloner or plan.manner.cloner(plan.model, device, plan.threads)
                _make(cloner, store, plan, item)
        wavs = [_load(item.path or store.output(item.id)) for item in piece]
        for item, judgement in zip(piece, judges.judge(wavs, [item.text for item in piece]), strict=True):
            store.keep(item.kind, item.id, judgement)
        yield


def _make(cloner: Cloner, store: RunFolder, plan: Plan, item: _Item) -> None:
    if item.path is None:
        _synthesise(cloner, store, plan, item.number)
    else:
        save_audio(item.path, *cloner.resynthesise(store.prompts(plan.trials)[item.id]))


def _synthesise(cloner: Cloner, store: RunFolder, plan: Plan, number: int) -> None:
    trial = plan.trials[number]
    prompt = store.prompts([trial])[trial.prompt_id]
    started = time.perf_counter()
    prompt_text = trial.prompt_text if plan.use_prompt_text else None
    speech = cloner.clone(trial.text, prompt=prompt, prompt_text=prompt_text, seed=plan.seed + number)
    took = time.perf_counter() - started
    store.keep_output(trial.id, speech.wav, speech.sample_rate, Made(str(speech.stop_reason), took))


def _load(path: Path) -> Tensor:
    """[S]; an output may be empty, which elsewhere is an error."""
    return load_audio(path, SAMPLE_RATE) if soundfile.info(str(path)).frames else torch.zeros(0)


def _work_in_processes(plan: Plan, folder: Path, mine: list[list[list[_Item]]], bar: Any) -> None:
    devices = [_device_of_worker(plan.device, worker) for worker in range(len(mine))]
    # Spawned, not forked: neither CUDA nor the threads of torch survive a fork.
    workers, spawn = len(mine), get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=torch.set_num_threads, initargs=(plan.threads,)) as pool:
        waiting = [
            pool.submit(_work_all, plan, folder, pieces, device) for pieces, device in zip(mine, devices, strict=True)
        ]
        for done in as_completed(waiting):
            bar.update(done.result())


def _work_all(plan: Plan, folder: Path, pieces: list[list[_Item]], device: str) -> int:
    return sum(1 for _ in _work(plan, folder, pieces, device))


def _device_of_worker(device: str, worker: int) -> str:
    return f"cuda:{worker % torch.cuda.device_count()}" if device == "cuda" else device
