"""The other quantizers by flow matching: `FlowModel`, a NAR model that needs neither text nor stages.

A VALL-E NAR picks each quantizer's codes by their probabilities, which takes much data to learn: next to nothing of a
code follows from the codes before it, though much of its *sound* does. Here a code is a point, as the codec has it, and
a network learns the velocities that carry noise to the points of all remaining quantizers at once (Flow matching, arXiv
2210.02747; for speech Voicebox, 2306.15687). The nearest codes to where the points arrive are the answer.

Shapes: B utterances, T frames, G time-invariant codes, n_q quantizers, K codes, D width, C = (n_q - 1) * code_dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.lm.config import LMConfig
from valle.lm.geometry import start_from_codec
from valle.lm.transformer import Transformer
from valle.tokenizers.codecs.base import SpeechCodec
from valle.tokenizers.codecs.convnext import ConvNeXtBlock
from valle.tokenizers.errors import UserError

FRONT_BLOCKS = 2
"""Convolutions in front of the transformer: what lies in the next frames matters most."""
TIME_SCALE = 1000.0
BLOCK = 64
"""Frames are filled up to whole blocks: for each number of rows of a bf16 product oneDNN keeps half a megabyte."""


class FlowModel(nn.Module):
    """Velocities of the points of quantizers 2 to n_q, given quantizer 1, the voice, and frames that are known."""

    points: Tensor
    voices: Tensor

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        if config.n_q < 2:
            raise UserError("a codec with one quantizer needs no flow model: the AR predicts all of it")
        self.config = config
        dim, channels = config.dim, (config.n_q - 1) * config.code_dim
        # Where the codes are; the model cannot learn these, as they say what is to be learned.
        self.register_buffer("points", torch.zeros(config.n_q - 1, config.codebook_size, config.code_dim))
        self.register_buffer(
            "voices", torch.zeros(config.n_time_invariant, config.time_invariant_size, config.voice_dim)
        )
        self.first = nn.Embedding(config.codebook_size, dim)
        self.noisy = nn.Linear(channels, dim)
        self.known = nn.Linear(channels + 1, dim)
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.voice = nn.Linear(config.n_time_invariant * config.voice_dim, dim)
        self.no_voice = nn.Parameter(torch.zeros(dim))
        self.front = nn.ModuleList(ConvNeXtBlock(dim, 2 * dim) for _ in range(FRONT_BLOCKS))
        self.transformer = Transformer(config, adapt=lambda: nn.Linear(dim, 2 * dim))
        self.out = nn.Linear(dim, channels)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    @torch.no_grad()
    def start_from_codec(self, codec: SpeechCodec) -> None:
        """Take the points of codes and voices from the codec that the tokens were made with.

        Raises `UserError` when the codec does not tell them, or does not fit.
        """
        vectors, config = codec.code_vectors(), self.config
        if vectors is None:
            raise UserError(f"codec '{codec.spec.name}' does not tell its code vectors; a flow needs them")
        start_from_codec(self.first.weight[None], codec)
        self.first.weight.mul_(1 / self.first.weight.std())
        # Each coordinate of a code with variance 1: noise is to cover all of them alike. Voices keep their proportions.
        for table, codes in zip(self.points, vectors[1:], strict=True):
            table[:] = _principal(codes, config.code_dim)
            table /= table.std(dim=0).clamp_min(1e-8)
        voices = codec.time_invariant_vectors()
        if voices is not None:
            for table, codes in zip(self.voices, voices, strict=True):
                table[:] = _principal(codes, config.voice_dim)
            self.voices /= self.voices.std()

    def coordinates(self, codes: Tensor) -> Tensor:
        """Points [B, T, C] of `codes` [B, n_q, T]."""
        return torch.cat([F.embedding(codes[:, q + 1], table) for q, table in enumerate(self.points)], dim=-1)

    def nearest(self, points: Tensor) -> Tensor:
        """Codes [B, n_q - 1, T] whose points are the nearest to `points` [B, T, C]."""
        parts = points.chunk(len(self.points), dim=-1)
        distances = [
            table.square().sum(-1) - 2 * part @ table.T for part, table in zip(parts, self.points, strict=True)
        ]
        return torch.stack([d.argmin(dim=-1) for d in distances], dim=1)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        first: Tensor,
        known: Tensor,
        is_known: Tensor,
        lengths: Tensor,
        time_invariant: Tensor | None,
        hide_voice: Tensor | None = None,
    ) -> Tensor:
        """Velocities [B, T, C] at `x` [B, T, C] and `time` [B], 0 (noise) to 1 (speech).

        first:      [B, T], codes of quantizer 1
        known:      [B, T, C], the points of frames that are known; looked at where `is_known` [B, T] is True
        lengths:    [B], frames
        hide_voice: bool [B], True where `time_invariant` [B, G] is not to be looked at
        """
        frames = torch.arange(x.shape[1], device=x.device)
        exists = frames < lengths[:, None]
        flag = is_known[:, :, None].to(x.dtype)
        hidden = self.first(first) + self.noisy(x * (1 - flag)) + self.known(torch.cat((known * flag, flag), dim=-1))
        for block in self.front:
            hidden = block(hidden, exists)
        condition = F.silu(self._time(time) + self._voice(len(x), time_invariant, hide_voice))
        mask = exists[:, None, None, :]
        return self.out(self.transformer(hidden, frames[None], mask, condition)).float()

    def _time(self, time: Tensor) -> Tensor:
        half = self.config.dim // 2
        rates = torch.exp(torch.arange(half, device=time.device) * (-math.log(10_000) / half))
        angles = TIME_SCALE * time[:, None] * rates
        return self.time(torch.cat((angles.cos(), angles.sin()), dim=-1))

    def _voice(self, batch: int, codes: Tensor | None, hide: Tensor | None) -> Tensor:
        if codes is None:
            return self.no_voice.expand(batch, -1)
        groups = [F.embedding(codes[:, g], table) for g, table in enumerate(self.voices)]
        voice = self.voice(torch.cat(groups, dim=-1))
        return voice if hide is None else torch.where(hide[:, None], self.no_voice, voice)


def _principal(vectors: Tensor, count: int) -> Tensor:
    """The first `count` principal coordinates [K, count] of `vectors` [K, D]; zero where there are fewer."""
    axes, sizes, _ = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    coordinates = (axes * sizes.where(sizes > 1e-4 * sizes[0], 0.0))[:, :count]
    return F.pad(coordinates, (0, count - coordinates.shape[1]))


@torch.inference_mode()
def flow_codes(
    model: FlowModel,
    codes: Tensor,
    known: int,
    time_invariant: Tensor | None,
    noise: Tensor,
    steps: int,
    guidance: float,
) -> Tensor:
    """`codes` [n_q, T] of one utterance with quantizers 2 to n_q filled in from frame `known` on.

    time_invariant: [G]
    noise:          [T - known, C], standard normal
    steps:          of the integration (midpoint rule: two evaluations each)
    guidance:       1 follows the model, more goes further away from what it would do without a voice (classifier-free
                    guidance, arXiv 2207.12598)
    """
    device, codes = codes.device, codes[None]
    frames = torch.arange(codes.shape[2], device=device)[None]
    first, points, is_known = codes[:, 0], model.coordinates(codes), frames < known
    voice = None if time_invariant is None else time_invariant[None]

    def ask(x: Tensor, time: float, since: int, voice: Tensor | None) -> Tensor:
        """Velocities of `x` [1, T - since, C], of which those before frame `known` are known."""
        size = x.shape[1]
        more = -size % BLOCK
        flags = F.pad(is_known[:, since:], (0, more))
        x, said = F.pad(x, (0, 0, 0, more)), F.pad(first[:, since:], (0, more))
        times, lengths = torch.tensor([time], device=device), torch.tensor([size], device=device)
        return model(x, times, said, x, flags, lengths, voice)[:, known - since : size]

    def velocity(x: Tensor, time: float) -> Tensor:
        guided = ask(torch.cat((points[:, :known], x), dim=1), time, 0, voice)
        if guidance == 1:
            return guided
        # Without a voice nothing is known, and the new frames are all there is.
        alone = ask(x, time, known, None)
        return alone + guidance * (guided - alone)

    x, step = noise[None], 1 / steps
    # Of bf16 many CPUs and GPUs do twice as much as of float32, and its rounding is nothing beside the noise.
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type in ("cpu", "cuda")):
        for number in range(steps):
            time = number * step
            x = x + step * velocity(x + step / 2 * velocity(x, time), time + step / 2)
    return torch.cat((codes[0, :, :known], torch.cat((first[:, known:], model.nearest(x)[0]))), dim=1)
