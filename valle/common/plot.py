"""Pictures of recordings: spectrograms above each other, such as of a prompt and the speech made from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from valle.common.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLOOR_DB = -80.0


def spectrogram(wav: Tensor, n_fft: int = 1024, hop: int = 256) -> Tensor:
    """Power in dB below the loudest point, [n_fft // 2 + 1, T], of `wav` [S]."""
    power = torch.stft(wav, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True).abs().square()
    decibel = 10 * torch.log10(power / power.max().clamp_min(1e-10) + 1e-10)
    return decibel.clamp_min(_FLOOR_DB)


def draw_pair(wavs: Mapping[str, Tensor], sample_rate: int, title: str = "") -> Figure:
    """The spectrograms of named recordings [S], above each other on one time scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(len(wavs), 1, sharex=True)
    for axis, (name, wav) in zip(axes, wavs.items(), strict=True):
        wav = wav.detach().cpu().float().flatten()
        extent = (0.0, wav.shape[0] / sample_rate, 0.0, sample_rate / 2000)
        image = axis.imshow(spectrogram(wav).numpy(), origin="lower", aspect="auto", extent=extent, cmap="magma")
        axis.set_ylabel(f"{name}\nkHz")
    axes[-1].set_xlim(0, max(wav.shape[-1] for wav in wavs.values()) / sample_rate)
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(axes), label="dB")
    if title:
        # A dollar sign would start matplotlib's mathematics.
        figure.suptitle(title.replace("$", r"\$"), fontsize=10, wrap=True)
    return figure


def plot_pair(path: str | Path, prompt: Tensor, speech: Tensor, sample_rate: int, title: str = "") -> None:
    """Write a PNG with the spectrograms of `prompt` [S] and `speech` [S]."""
    with writing(path):
        draw_pair({"prompt": prompt, "speech": speech}, sample_rate, title).savefig(path)
