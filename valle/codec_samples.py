"""What a codec in training sounds and looks like, kept at every validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from valle.common.audio import save_audio
from valle.common.plot import draw_pair


class CodecSamples(L.Callback):
    """Encodes and decodes the first `utterances` of the validation data.

    The run's folder gets `samples/step=N/` with the originals, what the codec makes of them and a picture of both;
    TensorBoard and wandb get the same where the run logs to them.
    """

    def __init__(self, utterances: int = 4) -> None:
        self.utterances = utterances

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        codec, folder = pl_module.codec, Path(trainer.default_root_dir) / "samples" / f"step={trainer.global_step}"
        rate = codec.spec.sample_rate
        for i, length in enumerate(batch.lengths[: self.utterances].tolist()):
            original = batch.wav[i, 0, :length].float()
            decoded = codec.decode(codec.encode(original[None, None]))[0, 0, :length].float()
            pair = {"original": original, "codec": decoded}
            for name, wav in pair.items():
                save_audio(folder / f"{i}-{name}.wav", wav, rate)
            figure = draw_pair(pair, rate, f"step {trainer.global_step}")
            figure.savefig(folder / f"{i}.png")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    for name, wav in pair.items():
                        logger.experiment.add_audio(f"{name}/{i}", wav.cpu(), trainer.global_step, rate)
                    logger.experiment.add_figure(f"spectrogram/{i}", figure, trainer.global_step)
                elif isinstance(logger, WandbLogger):
                    files = [str(folder / f"{i}-{name}.wav") for name in pair]
                    logger.log_audio(f"audio/{i}", files, trainer.global_step, caption=list(pair))
                    logger.log_image(f"spectrogram/{i}", [str(folder / f"{i}.png")], trainer.global_step)
