"""The decoder of the spectral codecs: ConvNeXt blocks over frames, and spectra for an inverse STFT (Vocos).

Shapes: B utterances, S samples, T frames, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.tokenizers.codecs.base import BLOCK, Reach
from valle.tokenizers.codecs.contrast import Contrast
from valle.tokenizers.codecs.convnext import ConvNeXtBlock, FrameConv
from valle.tokenizers.codecs.stft import overlap_add


class SpectralDecoder(nn.Module):
    """Frames [B, T, C] to a waveform [B, S].

    The second half of the blocks runs at `upsample` times the frame rate: a 20 ms frame is too long a step for the
    phase of high harmonics to stay coherent from one frame to the next.
    """

    def __init__(
        self,
        hop_length: int,
        dim: int,
        hidden: int,
        layers: tuple[int, int],
        upsample: int,
        time_invariant: bool,
        n_q: int,
        overlap: int = 4,
        causal: bool = False,
    ) -> None:
        """`n_q`: of the codec; `overlap`: windows that share a sample; `causal`: only they see later frames."""
        super().__init__()
        self.upsample, self.overlap, self.causal = upsample, overlap, causal
        self.hop_length = hop_length // upsample
        n_fft = overlap * self.hop_length
        self.embed = FrameConv(dim, dim, 7, causal=causal)
        self.norm = nn.LayerNorm(dim)
        self.coarse = nn.ModuleList(ConvNeXtBlock(dim, hidden, causal=causal) for _ in range(layers[0]))
        # Scale and shift of every block's input; as in FiLM (arXiv 1709.07871), which starts with no effect.
        self.voice = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(sum(layers) if time_invariant else 0))
        for layer in self.voice.parameters():
            nn.init.zeros_(layer)
        self.expand = nn.Linear(dim, upsample * dim) if upsample > 1 else nn.Identity()
        self.fine = nn.ModuleList(ConvNeXtBlock(dim, hidden, causal=causal) for _ in range(layers[1]))
        self.out_norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, n_fft + 2)
        self.contrast = Contrast(n_q, n_fft, self.hop_length)

    def reach(self) -> Reach:
        """How far the decoder sees: three frames for each convolution and side, and the overlapping windows."""
        windows = (self.overlap - 1) / 2 / self.upsample
        convolutions = 3 * (1 + len(self.coarse)) + 3 * len(self.fine) / self.upsample
        if self.causal:
            return Reach(math.ceil(windows + 2 * convolutions), math.ceil(windows))
        return Reach(math.ceil(windows + convolutions), math.ceil(windows + convolutions))

    def forward(
        self, x: Tensor, time_invariant: Tensor | None = None, mask: Tensor | None = None, n_q: int | None = None
    ) -> Tensor:
        """`time_invariant` [B, C] is added to every frame after the first coarse block, and modulates every block.

        n_q: how many quantizers `x` was made of, for the contrast; training goes without
        """
        frames = x.shape[1]
        x, mask = self._filled(x, mask)
        x = self._fine(self._coarse(x, time_invariant, mask)[-1], time_invariant, mask)
        log_size, phase = self.out(self.out_norm(x)).float().chunk(2, -1)
        if n_q is not None:
            log_size = self.contrast(log_size, n_q)
        # exp() of an untrained output must not overflow; 1e2 is above any bin of a full-scale signal.
        spectrum = torch.polar(log_size.exp().clamp(max=1e2), phase)
        if mask is not None:
            spectrum = spectrum * mask.repeat_interleave(self.upsample, 1)[..., None]
        return overlap_add(spectrum[:, : frames * self.upsample], self.hop_length)

    def _filled(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames [B, T, C] and their mask, filled up to whole blocks unless in training."""
        if not self.training and (more := -x.shape[1] % BLOCK):
            exist = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            return F.pad(x, (0, 0, 0, more)), F.pad(exist, (0, more))
        return x, mask

    def _coarse(self, x: Tensor, time_invariant: Tensor | None, mask: Tensor | None) -> list[Tensor]:
        """What each of the coarse blocks makes of frames [B, T, C]."""
        outputs = [self.norm(self.embed(x if mask is None else x * mask[..., None]))]
        for i, block in enumerate(self.coarse):
            x = outputs[-1]
            if i == 1 and time_invariant is not None:
                x = x + time_invariant[:, None]
            outputs.append(block(self._voiced(x, i, time_invariant), mask))
        return outputs

    def _fine(self, x: Tensor, time_invariant: Tensor | None, mask: Tensor | None) -> Tensor:
        """What the fine blocks make of the coarse ones' output, [B, T * upsample, C]."""
        x = self.expand(x).reshape(x.shape[0], -1, x.shape[2])
        mask = None if mask is None else mask.repeat_interleave(self.upsample, 1)
        for i, block in enumerate(self.fine, len(self.coarse)):
            x = block(self._voiced(x, i, time_invariant), mask)
        return x

    def _voiced(self, x: Tensor, block: int, time_invariant: Tensor | None) -> Tensor:
        if time_invariant is None:
            return x
        scale, shift = self.voice[block](time_invariant)[:, None].chunk(2, -1)
        return torch.addcmul(shift, x, 1 + scale)
