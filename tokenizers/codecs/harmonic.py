"""A decoder with a voice box: harmonics of a predicted pitch and noise, both filtered in each frame.

A network that writes spectra freely (`SpectralDecoder`) has to keep the phase of every harmonic coherent from frame to
frame by itself, which takes days of adversarial training; until then voices lack their fine harmonics. A pulse train of
the right pitch is coherent by itself, as in neural source-filter models (arXiv 1904.12088) and HiFTNet (2309.09493),
and so the network tells here how loud each frequency of a pulse train and of white noise is.

Shapes: B utterances, T frames, S samples, C channels, F frequency bins, P pitches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
from valle.tokenizers.codecs.base import Reach, SpeechCodes
from valle.tokenizers.codecs.pitch import HIGHEST, LOWEST, track_pitch
from valle.tokenizers.codecs.spectral_decoder import SpectralDecoder
from valle.tokenizers.codecs.stft import analyse, overlap_add
from valle.tokenizers.codecs.stream import WindowStream

PITCHES = 160
"""Pitches that are told apart: a quarter of a semitone each."""
PITCH_BLOCK = 3
"""Coarse blocks that decide on the pitch: few, so that a stream knows it as exactly as who hears the whole."""
NOISE_SECONDS = 8
"""After so long the noise repeats itself."""
QUIETEST = -12.0
"""Smallest log gain of a harmonic; a minimum phase follows zeros too far."""


@dataclass
class Onset:
    """Where a decoding takes up another one.

    phase:  [B], of the pulse train, in periods, at sample `at`
    sample: of the utterance that the first sample is
    """

    phase: Tensor
    at: int = 0
    sample: int = 0


class HarmonicDecoder(SpectralDecoder):
    """A `SpectralDecoder` that writes gains of a pulse train and of noise instead of spectra."""

    noise: Tensor
    pitches: Tensor

    def __init__(
        self,
        sample_rate: int,
        hop_length: int,
        dim: int,
        hidden: int,
        layers: tuple[int, int],
        upsample: int,
        time_invariant: bool,
        steps: int = 2,
    ) -> None:
        """`steps`: spectra of each of the fine blocks' frames; a window is four of them long."""
        super().__init__(hop_length, dim, hidden, layers, upsample, time_invariant, 1)
        del self.contrast  # noise has the spread of speech by itself
        self.sample_rate, self.frame = sample_rate, hop_length
        self.steps, self.hop_length = steps, hop_length // upsample // steps
        self.n_fft = 4 * self.hop_length
        bins = self.n_fft // 2 + 1
        self.pitch = nn.Linear(dim, PITCHES)
        # Gains of harmonics and of noise, and how far the harmonics' phases are off a minimum phase.
        self.out = nn.Linear(dim, steps * 3 * bins)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.view(steps, 3, bins)[:] = torch.tensor([-4.0, -5.0, 0.0])[None, :, None]
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(NOISE_SECONDS * sample_rate, generator=draw)
        self.register_buffer("noise", noise, persistent=False)
        steps_of_pitch = torch.linspace(math.log(LOWEST), math.log(HIGHEST), PITCHES)
        self.register_buffer("pitches", steps_of_pitch, persistent=False)

    def forward(
        self, x: Tensor, time_invariant: Tensor | None = None, mask: Tensor | None = None, n_q: int | None = None
    ) -> Tensor:
        """As in `SpectralDecoder`, but for `n_q`, which makes no difference here."""
        return self.sound(x, time_invariant, mask, Onset(x.new_zeros(len(x))))[0]

    def sound(
        self, x: Tensor, time_invariant: Tensor | None, mask: Tensor | None, onset: Onset
    ) -> tuple[Tensor, Tensor]:
        """Frames [B, T, C] to a waveform [B, S], and the pulse train's phase at each of its samples [B, S]."""
        frames = x.shape[1]
        x, mask = self._filled(x, mask)
        blocks = self._coarse(x, time_invariant, mask)
        pitch = self._pitch(self._logits(blocks))
        if mask is not None:
            # As if the last frame were the last: the pitch goes on from frame to frame.
            last = (mask.sum(1, keepdim=True) - 1).clamp_min(0)
            pitch = pitch.gather(1, torch.arange(x.shape[1], device=x.device)[None].clamp(max=last))
        wav, phase = self._filter(blocks[-1], pitch, time_invariant, mask, onset)
        return wav[:, : frames * self.frame], phase[:, : frames * self.frame]

    def learn(self, x: Tensor, time_invariant: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        """In training: the waveform [B, S] at the pitch of `target` [B, S], and the loss of the pitch predicted for it.

        Where the target has no pitch, the predicted one is as good.
        """
        blocks = self._coarse(x, time_invariant, None)
        logits = self._logits(blocks)
        hz = track_pitch(target, self.sample_rate, self.frame)
        known = hz > 0
        true = torch.where(known, hz, LOWEST).log()
        width = float(self.pitches[1] - self.pitches[0])
        wanted = torch.softmax(-((self.pitches - true[..., None]) / width).square() / 2, -1)
        loss = -(wanted * logits.log_softmax(-1)).sum(-1)
        loss = (loss * known).sum() / known.sum().clamp_min(1)
        pitch = torch.where(known, true, self._pitch(logits))
        onset = Onset(torch.rand(len(x)).to(x.device), sample=int(torch.randint(len(self.noise), ())))
        return self._filter(blocks[-1], pitch, time_invariant, None, onset)[0], loss

    def _logits(self, blocks: list[Tensor]) -> Tensor:
        """Of each pitch, [B, T, P]."""
        return self.pitch(blocks[min(PITCH_BLOCK, len(blocks) - 1)]).float()

    @torch.no_grad()
    def _pitch(self, logits: Tensor) -> Tensor:
        """Logarithm of the pitch [B, T]: the mean of the likeliest one's neighbourhood."""
        best = logits.argmax(-1, keepdim=True)
        near = (torch.arange(PITCHES, device=logits.device) - best).abs() <= 2
        return (logits.masked_fill(~near, -torch.inf).softmax(-1) * self.pitches).sum(-1)

    def _filter(
        self, x: Tensor, pitch: Tensor, time_invariant: Tensor | None, mask: Tensor | None, onset: Onset
    ) -> tuple[Tensor, Tensor]:
        """The coarse blocks' output [B, T, C] to a waveform [B, S], and the phase of its pulse train."""
        x = self.out(self.out_norm(self._fine(x, time_invariant, mask))).float()
        with torch.autocast(x.device.type, enabled=False):
            harmonic, noisy, turn = x.reshape(len(x), -1, 3, self.n_fft // 2 + 1).unbind(2)
            pulses, phase = self._pulses(pitch, onset)
            at = torch.arange(onset.sample, onset.sample + pulses.shape[1], device=x.device) % len(self.noise)
            noise = self.noise[at][None]
            if mask is not None:
                exist = mask.repeat_interleave(self.frame, 1)
                pulses, noise = pulses * exist, noise * exist
            voiced, breath = (analyse(wav, self.n_fft, self.hop_length) for wav in (pulses, noise))
            harmonic = harmonic.clamp(QUIETEST, 4.0)
            gain = torch.polar(harmonic.exp(), _minimum_phase(harmonic) + turn)
            spectrum = voiced * gain + breath * noisy.clamp(max=4.0).exp()
            if mask is not None:
                spectrum = spectrum * mask.repeat_interleave(self.upsample * self.steps, 1)[..., None]
            return overlap_add(spectrum, self.hop_length), phase

    @torch.no_grad()
    def _pulses(self, pitch: Tensor, onset: Onset) -> tuple[Tensor, Tensor]:
        """A pulse train [B, S] of power 1 and all harmonics below the Nyquist frequency, and its phase, 0 to 1."""
        hz = F.interpolate(pitch.float()[:, None], scale_factor=self.frame, mode="linear")[:, 0].exp()
        phase = (hz.double() / self.sample_rate).cumsum(1)
        phase = (phase - phase[:, onset.at : onset.at + 1] + onset.phase[:, None]).remainder(1)
        angle = math.pi * (phase - phase.round()).float()
        count = self.sample_rate / 2 / hz
        whole = count.floor()
        # Dirichlet's kernel is the sum of the cosines; the topmost fades in and out.
        safe = torch.where(angle.abs() < 1e-4, 1e-4, angle)
        total = ((2 * whole + 1) * safe).sin() / (2 * safe.sin()) - 0.5
        total = total + (count - whole) * (2 * (whole + 1) * angle).cos()
        return total * (2 / count).sqrt(), phase


def _minimum_phase(log_size: Tensor) -> Tensor:
    """Of a filter of log-magnitudes [..., F], by its cepstrum (Oppenheim and Schafer)."""
    n_fft = 2 * (log_size.shape[-1] - 1)
    cepstrum = torch.fft.irfft(log_size, n_fft)
    fold = torch.zeros(n_fft, device=log_size.device)
    fold[0] = fold[n_fft // 2] = 1
    fold[1 : n_fft // 2] = 2
    return torch.fft.rfft(cepstrum * fold, n_fft).imag


class HarmonicStream(WindowStream):
    """A `WindowStream` whose pulses and noise go on where the last window's ended."""

    codec: AutoencoderCodec

    def __init__(self, codec: AutoencoderCodec, reach: Reach, time_invariant: Tensor | None) -> None:
        super().__init__(codec, reach, time_invariant)
        self.onset = Onset(torch.zeros(1))

    @torch.no_grad()
    def _decode(self, codes: SpeechCodes, end: int, forget: int) -> Tensor:
        assert isinstance(self.codec.decoder, HarmonicDecoder)
        vectors, ti, _ = self.codec.frames(codes)
        wav, phase = self.codec.decoder.sound(vectors, ti, None, self.onset)
        hop = self.codec.spec.hop_length
        if end * hop < phase.shape[1]:
            self.onset = Onset(phase[:, end * hop], (end - forget) * hop, self.onset.sample + forget * hop)
        return wav[0]
