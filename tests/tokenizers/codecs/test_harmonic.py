"""The harmonic decoder: it speaks the pitch that it predicts, whole, in a batch and in a stream alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from valle.tokenizers.codecs import SpeechCodes, load_codec, save_codec
from valle.tokenizers.codecs.harmonic import HarmonicDecoder, Onset, _minimum_phase
from valle.tokenizers.codecs.pitch import track_pitch
from valle.tokenizers.codecs.spectral import SpectralCodec
from valle.tokenizers.codecs.stft import analyse

TINY = {
    "dim": 32,
    "hidden": 64,
    "encoder_layers": 3,
    "decoder_layers": (4, 2),
    "codebook_size": 64,
    "time_invariant_size": 16,
    "harmonic": True,
}


@pytest.fixture
def codec() -> SpectralCodec:
    """Untrained, but sure of a pitch in every frame."""
    torch.manual_seed(0)
    codec = SpectralCodec(**TINY).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        codec.decoder.pitch.weight.mul_(40)
    return codec


def random_codes(*lengths: int) -> SpeechCodes:
    size = len(lengths), 4, max(lengths)
    return SpeechCodes(torch.randint(64, size), torch.tensor(lengths), torch.randint(16, (len(lengths), 8)))


def decoder_of(codec: SpectralCodec) -> HarmonicDecoder:
    assert isinstance(codec.decoder, HarmonicDecoder)
    return codec.decoder


@pytest.mark.parametrize("hz", [80.0, 123.4, 310.0])
def test_pulses_have_their_pitch_and_power_1(codec: SpectralCodec, hz: float) -> None:
    pulses, phase = decoder_of(codec)._pulses(torch.full((1, 100), hz).log(), Onset(torch.zeros(1)))
    found = track_pitch(pulses, 16000, 320)[0, 3:-3]
    assert (found / hz).log2().abs().max() * 1200 < 5
    assert pulses.square().mean() == pytest.approx(1, rel=0.05)
    assert torch.allclose(phase.diff() % 1, torch.full_like(phase[:, 1:], hz / 16000), atol=1e-6)


def test_pulses_do_not_alias(codec: SpectralCodec) -> None:
    """All that is there are the multiples of the pitch."""
    pulses, _ = decoder_of(codec)._pulses(torch.full((1, 50), 500.0).log(), Onset(torch.zeros(1)))
    power = torch.fft.rfft(pulses[0]).abs().square()
    harmonics = power[500::500].sum()
    assert harmonics / power.sum() > 0.999


def test_a_minimum_phase_filter_rings_after_its_pulse_only() -> None:
    torch.manual_seed(0)
    size = torch.randn(1, 161).cumsum(-1) * 0.1

    def before(phase: Tensor) -> Tensor:
        power = torch.fft.irfft(torch.polar(size.exp(), phase)).square()
        return power[0, 160:].sum() / power.sum()

    assert before(_minimum_phase(size)) < 1e-3
    assert before(torch.zeros_like(size)) > 0.02, "a filter without phase rings before it, too"


def test_the_predicted_pitch_is_spoken(codec: SpectralCodec) -> None:
    decoder = decoder_of(codec)
    with torch.no_grad():
        decoder.pitch.weight.zero_()
        decoder.pitch.bias[:] = -(torch.arange(160) - 100).abs().float()
        decoder.out.weight.zero_()
    hz = float(decoder.pitches[100].exp())
    found = track_pitch(codec.decode(random_codes(60))[0], 16000, 320)[0, 5:-5]
    assert (found > 0).float().mean() > 0.8
    assert (found[found > 0] / hz).log2().abs().median() * 1200 < 10


def level(error: Tensor, signal: Tensor) -> float:
    """Of the worst tenth of a second of `error`, in dB beside `signal`."""
    return float(10 * (error.unfold(-1, 1600, 1600).square().mean(-1).max() / signal.square().mean()).log10())


def test_a_padded_batch_equals_one_by_one(codec: SpectralCodec) -> None:
    together = random_codes(60, 33, 5)
    wavs = codec.decode(together)
    for i, length in enumerate(together.lengths.tolist()):
        alone = codec.decode(together[i])[0, 0]
        assert level(wavs[i, 0, : length * 320] - alone, alone) < -50
        assert not wavs[i, 0, length * 320 :].any()


def test_a_stream_goes_on_in_phase(codec: SpectralCodec) -> None:
    codes = random_codes(200)
    expected = codec.decode(codes)[0, 0]
    assert codes.time_invariant is not None
    stream = codec.decode_stream(codes.time_invariant[0])
    pieces = codes.codes[0].split([3, 0, 57, 1, 29, 110], 1)
    actual = torch.cat([*(stream.push(piece) for piece in pieces), stream.finish()])
    assert level(actual - expected, expected) < -40


def test_training_learns_pitch_and_sound() -> None:
    """One buzz, over and over: its spectrum and its pitch come out."""
    torch.manual_seed(0)
    codec = SpectralCodec(**TINY)  # type: ignore[arg-type]
    decoder = decoder_of(codec)
    x, voice = torch.randn(1, 50, 32), torch.zeros(1, 32)
    target = 0.05 * decoder._pulses(torch.full((1, 50), 140.0).log(), Onset(torch.zeros(1)))[0]
    wanted = analyse(target, 320, 80).abs().clamp_min(1e-3).log()
    optimizer = torch.optim.AdamW(codec.decoder.parameters(), 3e-3)
    first = last = None
    for _ in range(60):
        wav, pitch = decoder.learn(x, voice, target)
        sound = (analyse(wav, 320, 80).abs().clamp_min(1e-3).log() - wanted).abs().mean()
        last = (float(sound), float(pitch))
        first = first or last
        optimizer.zero_grad()
        (sound + pitch).backward()
        optimizer.step()
    assert first is not None and last is not None
    assert last[0] < 0.5 * first[0] and last[1] < 0.5 * first[1]
    codec.eval()
    wav, _ = decoder.sound(x, voice, None, Onset(torch.zeros(1)))
    found = track_pitch(wav, 16000, 320)[0, 3:-3]
    assert (found / 140).log2().abs().median() * 1200 < 30


def test_saved_and_loaded_it_speaks_the_same(codec: SpectralCodec, tmp_path: Path) -> None:
    for parameter in codec.parameters():
        parameter.data = parameter.data.half().float()
    save_codec(codec, tmp_path)
    codes = random_codes(20)
    torch.testing.assert_close(load_codec(tmp_path).decode(codes), codec.decode(codes))
