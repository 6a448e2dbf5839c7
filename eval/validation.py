"""Validation by synthesis: every now and then, a model in training speaks, and is heard.

For the YAML of `valle train ar`:

    trainer:
      callbacks:
        - class_path: valle.eval.validation.Listen
          init_args: {model: MODEL, prompts: [me.wav, you.wav]}
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from valle.common.audio import load_audio
from valle.common.errors import UserError
from valle.common.plot import plot_pair
from valle.eval.judges.recognisers import build_recogniser
from valle.eval.judges.similarity import build_speaker_model, embed_all, likeness
from valle.eval.judges.text import normalise_for_scoring
from valle.lm import ARModel
from valle.lm.transformer import Attention, rotate
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle
from valle.synthesis.result import Speech

if TYPE_CHECKING:
    from valle.lm.task import LMTask

log = logging.getLogger(__name__)

TEXTS = ("The quick brown fox jumps over the lazy dog.", "She had your dark suit in greasy wash water all year.")


class Listen(L.Callback):
    """At each validation the model speaks `texts` in the voices of `prompts`.

    model:      folder that lends the other parts: codec, text tokenizer, and for a NAR the AR
    prompts:    recordings of voices
    every:      only at every n-th validation
    recogniser: transcribes the result, for the character error rate; null: none
    speakers:   model of voices, for the likeness to the prompt; null: none

    Logged: `listen/cer`, `listen/likeness`, `listen/seconds`; audio and pictures (spectrograms of prompt and result,
    for a plain AR the attention of the frames to the text) go to `samples/` in the run's folder, and to TensorBoard
    and wandb where these are on.
    """

    def __init__(
        self,
        model: str,
        prompts: list[str],
        texts: Sequence[str] = TEXTS,
        every: int = 1,
        recogniser: str | None = "pocketsphinx",
        speakers: str | None = "resemblyzer",
    ) -> None:
        if not prompts or not texts or every < 1:
            raise UserError("Listen: give at least one prompt and one text, and every >= 1")
        missing = [path for path in prompts if not Path(path).is_file()]
        if missing:
            raise UserError(f"Listen: there is no recording {missing[0]}")
        self.model, self.prompts, self.texts, self.every = model, prompts, texts, every
        self.recogniser, self.speakers = recogniser, speakers
        self.validations = 0

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = state_dict["validations"]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: LMTask) -> None:
        if trainer.sanity_checking:
            return
        self.validations += 1
        if self.validations % self.every or not trainer.is_global_zero:
            return
        states = torch.get_rng_state()  # what is heard must not change what is learned
        try:
            self._listen(trainer, pl_module)
        except UserError as error:  # a model that cannot speak yet does not end its training
            log.warning("validation by synthesis: %s", error)
        finally:
            torch.set_rng_state(states)

    def _listen(self, trainer: L.Trainer, task: LMTask) -> None:
        cloner = VoiceCloner(_with(Bundle.load(self.model, task.device), task))
        folder = Path(trainer.default_root_dir) / "samples" / f"step={trainer.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        spoken: list[tuple[str, str, Speech]] = []
        for number, prompt in enumerate(self.prompts):
            voice = cloner.make_voice(prompt)
            for index, text in enumerate(self.texts):
                speech = cloner.clone(text, voice, seed=index, candidates=1)
                name = f"{number + 1}-{index + 1}"
                speech.save(folder / f"{name}.wav")
                plot_pair(folder / f"{name}.png", voice.prompt.wav, speech.wav, speech.sample_rate, text)
                _send(trainer, f"listen/{name}", folder / f"{name}.wav", folder / f"{name}.png", speech)
                spoken.append((prompt, text, speech))
        if isinstance(task.model, ARModel) and not task.model.config.aligned:
            _, text, speech = spoken[0]
            symbols = cloner.bundle.encode(text).to(task.device)
            shares = attention_map(task.model, symbols, speech.codes[0].to(task.device))
            plot_attention(folder / "attention.png", shares, [cloner.bundle.text.vocab[i] for i in symbols.tolist()])
        scores = {"listen/seconds": sum(s.seconds for _, _, s in spoken) / len(spoken), **self._scores(spoken)}
        for logger in trainer.loggers:
            logger.log_metrics(scores, step=trainer.global_step)

    def _scores(self, spoken: list[tuple[str, str, Speech]]) -> dict[str, float]:
        import jiwer

        rate = spoken[0][2].sample_rate
        scores = {}
        if self.recogniser is not None:
            heard = build_recogniser(self.recogniser).transcribe([speech.wav for _, _, speech in spoken], rate)
            references = [normalise_for_scoring(text) for _, text, _ in spoken]
            scores["listen/cer"] = float(jiwer.cer(references, [normalise_for_scoring(text) for text in heard]))
        if self.speakers is not None:
            voices = build_speaker_model(self.speakers)
            of_prompts = dict(
                zip(self.prompts, embed_all(voices, [load_audio(p, rate) for p in self.prompts], rate), strict=True)
            )
            of_speech = embed_all(voices, [speech.wav for _, _, speech in spoken], rate)
            found = [likeness(of_prompts[p], v).value for (p, _, _), v in zip(spoken, of_speech, strict=True)]
            values = [value for value in found if value is not None]
            if values:
                scores["listen/likeness"] = sum(values) / len(values)
        return scores


def _with(bundle: Bundle, task: LMTask) -> Bundle:
    """The bundle with the model that is being trained in place of its own."""
    trained = task.model
    if isinstance(trained, ARModel):
        return replace(bundle, ar=trained, refiner=None)
    return replace(bundle, refiner=trained)


def _send(trainer: L.Trainer, name: str, audio: Path, picture: Path, speech: Speech) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_audio(name, speech.wav, trainer.global_step, speech.sample_rate)
        elif isinstance(logger, WandbLogger):
            logger.log_audio(name, [str(audio)], step=trainer.global_step)
            logger.log_image(name, [str(picture)], step=trainer.global_step)


@torch.inference_mode()
def attention_map(model: ARModel, phonemes: Tensor, codes: Tensor) -> Tensor:
    """How a plain model's steps [S] share their attention among the text [L], in the layer that is surest.

    `phonemes` [L], `codes` [T] of the first quantizer; the mean of all heads, [S, L].
    """
    caught: list[Tensor] = []
    layers = [module.qkv for module in model.modules() if isinstance(module, Attention)]
    hooks = [layer.register_forward_hook(lambda _module, _inputs, qkv: caught.append(qkv[0])) for layer in layers]
    lengths = torch.tensor([len(phonemes)], device=phonemes.device)
    steps = model.steps(lengths, codes[None], torch.tensor([len(codes)], device=phonemes.device))
    try:
        model(phonemes[None], lengths, steps)
    finally:
        for hook in hooks:
            hook.remove()
    config, voice = model.config, model.config.n_time_invariant
    size = voice + len(phonemes)
    places = torch.cat((torch.arange(size), torch.arange(steps.previous.shape[1]))).to(phonemes.device)
    cos, sin = model.transformer.rotary(places[None])
    maps = []
    for qkv in caught:
        q, k, _ = qkv.float().view(1, len(places), 3, config.heads, config.head_dim).unbind(2)
        q, k = rotate(q, cos, sin)[0, size:], rotate(k, cos, sin)[0, voice:size]
        scores = torch.einsum("qhd,khd->hqk", q, k) / config.head_dim**0.5
        maps.append(scores.softmax(dim=-1).mean(dim=0).cpu())
    return max(maps, key=lambda shares: float(shares.amax(dim=1).mean()))


def plot_attention(path: Path, shares: Tensor, symbols: Sequence[str]) -> None:
    """Write a PNG of an `attention_map`; a model that reads shows a diagonal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares.T.numpy(), origin="lower", aspect="auto", cmap="magma")
    axis.set(xlabel="step", yticks=range(len(symbols)), yticklabels=symbols)
    axis.tick_params(axis="y", labelsize=6)
    figure.savefig(path)
