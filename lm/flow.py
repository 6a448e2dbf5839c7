"""What the codes sound like, by flow matching: `FlowModel` makes all quantizers of what an AR model said.

A VALL-E NAR picks each quantizer's codes by their probabilities, which takes much data to learn: next to nothing of a
code follows from the codes before it, though much of its *sound* does. Here a frame is a point, the sum of the vectors
of its codes, and a network learns the velocities that carry noise to the points of speech (flow matching, arXiv
2210.02747; for speech Voicebox, 2306.15687). The codes of the points where it arrives are the answer, quantizer 1 among
them: the AR model's codes are what the flow listens to, and what it mends where they contradict the phonemes.

An aligned flow (`config.aligned`) is told the phoneme of each frame, as an aligned AR model knows it.

Shapes: B utterances, T frames, L text tokens, G time-invariant codes, n_q quantizers, K codes, D width,
C = n_q * code_dim coordinates of a frame.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.common.errors import UserError
from valle.lm.alignment import frame_pointers
from valle.lm.codebook_init import principal_coordinates, start_from_codec
from valle.lm.config import FlowConfig
from valle.lm.prefix import PrefixEmbedding
from valle.lm.transformer import Transformer
from valle.tokenizers.codecs.base import SpeechCodec
from valle.tokenizers.codecs.convnext import ConvNeXtBlock
from valle.tokenizers.text import TextTokenizer

FRONT_BLOCKS = 2
"""Convolutions in front of the transformer: what lies in the next frames matters most."""
TIME_SCALE = 1000.0
BLOCK = 64
"""Frames are filled up to whole blocks: for each number of rows of a bf16 product oneDNN keeps half a megabyte."""
UNKNOWN = TextTokenizer.unk_id
"""The text token of frames of which nobody knows what is said in them."""


class FlowModel(nn.Module):
    """Velocities of the points of frames, given codes of quantizer 1, voice, phonemes, and frames that are known."""

    points: Tensor
    voices: Tensor

    config_class = FlowConfig

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        if config.n_q < 2:
            raise UserError("a codec with one quantizer needs no flow model: the AR predicts all of it")
        self.config = config
        dim, channels = config.dim, config.n_q * config.code_dim
        # Where the codes are; the model cannot learn these, as they say what is to be learned.
        self.register_buffer("points", torch.zeros(config.n_q, config.codebook_size, channels))
        self.register_buffer(
            "voices", torch.zeros(config.n_time_invariant, config.time_invariant_size, config.voice_dim)
        )
        # The last row: nobody said anything.
        self.first = nn.Embedding(config.codebook_size + 1, dim)
        self.noisy = nn.Linear(channels, dim)
        self.known = nn.Linear(channels + 1, dim)
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.voice = nn.Linear(config.n_time_invariant * config.voice_dim, dim)
        self.no_voice = nn.Parameter(torch.zeros(dim))
        # Of a prefix only the text: the flow has other ways to know the voice.
        text = replace(config, n_time_invariant=0, time_invariant_size=0)
        self.text = PrefixEmbedding(text) if config.aligned else None
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
        start_from_codec(self.first.weight[None, :-1], codec)
        self.first.weight.mul_(1 / self.first.weight.std())
        self.points[:] = principal_coordinates(vectors, self.points.shape[2])
        # Noise of variance 1 is to cover the fine coordinates, too, without making them as loud as the others.
        spread = self.points.var(dim=1).sum(dim=0)
        self.points /= spread.clamp_min(1e-8) ** 0.25
        self.points /= self.points.var(dim=1).sum(dim=0)[spread > 0].mean().sqrt()
        voices = codec.time_invariant_vectors()
        if voices is not None:
            for table, codes in zip(self.voices, voices, strict=True):
                table[:] = principal_coordinates(codes[None], config.voice_dim)[0]
            self.voices /= self.voices.std()

    def coordinates(self, codes: Tensor) -> Tensor:
        """Points [B, T, C] of `codes` [B, n_q, T]."""
        return torch.stack([F.embedding(codes[:, q], table) for q, table in enumerate(self.points)]).sum(0)

    def nearest(self, points: Tensor) -> Tensor:
        """Codes [B, n_q, T] of `points` [B, T, C]: each quantizer's nearest to what those before it left over."""
        codes, left = [], points.float()
        for table in self.points:
            codes.append((table.square().sum(-1) - 2 * left @ table.T).argmin(dim=-1))
            left = left - F.embedding(codes[-1], table)
        return torch.stack(codes, dim=1)

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
        phonemes: Tensor | None = None,
        durations: Tensor | None = None,
    ) -> Tensor:
        """Velocities [B, T, C] at `x` [B, T, C] and `time` [B], 0 (noise) to 1 (speech).

        first:      [B, T], codes of quantizer 1; K where there is none
        known:      [B, T, C], the points of frames that are known; looked at where `is_known` [B, T] is True
        lengths:    [B], frames
        hide_voice: bool [B], True where `time_invariant` [B, G] is not to be looked at
        phonemes:   [B, L], for an aligned model, with `durations` [B, L], frames of each; `UNKNOWN` where nobody knows
        """
        frames = torch.arange(x.shape[1], device=x.device)
        exists = frames < lengths[:, None]
        flag = is_known[:, :, None].to(x.dtype)
        hidden = self.first(first) + self.noisy(x * (1 - flag)) + self.known(torch.cat((known * flag, flag), dim=-1))
        if self.text is not None:
            hidden = hidden + self._read(self.text, phonemes, durations, x.shape[1])
        for block in self.front:
            hidden = block(hidden, exists)
        condition = F.silu(self._time(time) + self._voice(len(x), time_invariant, hide_voice))
        mask = exists[:, None, None, :]
        return self.out(self.transformer(hidden, frames[None], mask, condition)).float()

    def _read(self, text: PrefixEmbedding, phonemes: Tensor | None, durations: Tensor | None, frames: int) -> Tensor:
        """What `frames` frames know of the text, [B, T, D]: nothing where their own token is `UNKNOWN`."""
        if phonemes is None or durations is None:
            raise ValueError("an aligned flow needs phonemes and their durations")
        pointers, frames_in_token = frame_pointers(durations, frames)
        context = text(phonemes, (phonemes != TextTokenizer.pad_id).sum(dim=1), None).context
        assert context is not None
        seen = text.frame_context(context, pointers, frames_in_token)
        return seen * (phonemes.gather(1, pointers) != UNKNOWN)[:, :, None]

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


@torch.inference_mode()
def flow_codes(
    model: FlowModel,
    codes: Tensor,
    known: int,
    time_invariant: Tensor | None,
    noise: Tensor,
    steps: int,
    guidance: float,
    phonemes: Tensor | None = None,
    durations: Tensor | None = None,
) -> Tensor:
    """`codes` [n_q, T] of one utterance; from frame `known` on, where quantizer 1 is a proposal, all are made anew.

    time_invariant: [G]
    noise:          [T - known, C], standard normal
    steps:          of the integration (midpoint rule: two evaluations each)
    guidance:       1 follows the model, more goes further away from what it would do without voice and text
                    (classifier-free guidance, arXiv 2207.12598)
    phonemes:       [L] with `durations` [L] that add up to T, for an aligned model
    """
    device, codes = codes.device, codes[None]
    frames = torch.arange(codes.shape[2], device=device)[None]
    first, points, is_known = codes[:, 0], model.coordinates(codes), frames < known
    voice = None if time_invariant is None else time_invariant[None]
    text, lasts = (None, None) if phonemes is None or durations is None else (phonemes[None], durations[None])
    nothing = None if text is None else torch.full_like(text, UNKNOWN)

    def ask(x: Tensor, time: float, since: int, voice: Tensor | None, text: Tensor | None) -> Tensor:
        """Velocities of `x` [1, T - since, C], of which those before frame `known` are known."""
        size = x.shape[1]
        more = -size % BLOCK
        flags = F.pad(is_known[:, since:], (0, more))
        x, said = F.pad(x, (0, 0, 0, more)), F.pad(first[:, since:], (0, more))
        times, lengths = torch.tensor([time], device=device), torch.tensor([size], device=device)
        left = None if lasts is None else lasts.cumsum(1).sub(since).clamp(min=0).diff(prepend=lasts.new_zeros(1, 1))
        return model(x, times, said, x, flags, lengths, voice, None, text, left)[:, known - since : size]

    def velocity(x: Tensor, time: float) -> Tensor:
        guided = ask(torch.cat((points[:, :known], x), dim=1), time, 0, voice, text)
        if guidance == 1:
            return guided
        # Without voice and text nothing is known, and the new frames are all there is.
        alone = ask(x, time, known, None, nothing)
        return alone + guidance * (guided - alone)

    x, step = noise[None], 1 / steps
    # Of bf16 many CPUs and GPUs do twice as much as of float32, and its rounding is nothing beside the noise.
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type in ("cpu", "cuda")):
        for number in range(steps):
            time = number * step
            x = x + step * velocity(x + step / 2 * velocity(x, time), time + step / 2)
    return torch.cat((codes[0, :, :known], model.nearest(x)[0]), dim=1)
