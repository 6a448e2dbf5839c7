"""Training of the codec: losses with known answers, overfitting one batch, and the learning of discriminators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from valle.common.errors import UserError
from valle.tokenizers.codecs import load_codec, save_codec
from valle.tokenizers.codecs.discriminators import Discriminators
from valle.tokenizers.codecs.losses import (
    MultiMelLoss,
    adversarial_loss,
    consistency_loss,
    discriminator_loss,
    feature_matching_loss,
    mel_filterbank,
)
from valle.tokenizers.codecs.spectral import SpectralCodec
from valle.tokenizers.codecs.task import CodecLossWeights, CodecTask
from valle.tokenizers.codecs.usage import CodebookUsage, collapse

RECORDING = Path(__file__).parents[3] / "valle/assets/eval/3331-159605-0007.opus"
RESOLUTIONS = [(512, 128, 40), (128, 32, 20)]


@dataclass
class Segments:
    wav: Tensor
    wav2: Tensor
    speakers: Tensor
    phones: Tensor | None = None


def speech(batch: int = 4, samples: int = 8000) -> Tensor:
    wav, _ = soundfile.read(RECORDING, dtype="float32")
    start = 8000
    return torch.from_numpy(wav[start : start + batch * samples]).reshape(batch, 1, samples)


def tiny_codec(encoder_layers: int = 3, harmonic: bool = False) -> SpectralCodec:
    return SpectralCodec(
        dim=96,
        hidden=192,
        encoder_layers=encoder_layers,
        decoder_layers=(2, 2),
        codebook_size=128,
        time_invariant_size=16,
        harmonic=harmonic,
    )


def tiny_task(
    steps: int,
    adversarial_from: int | None = None,
    weights: CodecLossWeights | None = None,
    max_bad_steps: int = 20,
) -> CodecTask:
    torch.manual_seed(0)
    judge = None
    if adversarial_from is not None:
        judge = Discriminators((2, 5), (8, 16), ((256, 64),), 32)
    return CodecTask(
        tiny_codec(),
        judge,
        weights,
        mel_resolutions=RESOLUTIONS,
        learning_rate=3e-3,
        warmup_steps=10,
        max_steps=steps,
        adversarial_from=adversarial_from or 0,
        discriminator_learning_rate=2e-3,
        quantizer_dropout=0.0,
        max_bad_steps=max_bad_steps,
    )


def train(task: LightningModule, steps: int, folder: Path, phones: Tensor | None = None) -> None:
    wav = speech()
    fit(task, [Segments(wav, wav, torch.arange(4), phones)] * steps, folder)


def fit(task: LightningModule, batches: list[Segments], folder: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(task, train_dataloaders=torch.utils.data.DataLoader(batches, batch_size=None))


def test_overfits_one_batch(tmp_path: Path) -> None:
    task = tiny_task(200)
    before = task.mel(task.codec(speech()).wav, speech()).item()
    train(task, 200, tmp_path)
    codec = task.codec.eval()
    after = task.mel(codec.decode(codec.encode(speech())), speech()).item()
    assert before > 3 and after < 0.25 * before, (before, after)


def test_discriminators_learn_only_once_their_time_has_come(tmp_path: Path) -> None:
    task = tiny_task(40, adversarial_from=10)
    judge = task.discriminators
    assert judge is not None
    before = [p.clone() for p in judge.parameters()]
    train(task, 10, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, judge.parameters(), strict=True))
    wav = speech()
    fake = task.codec.eval()(wav).wav.detach()
    told_apart = discriminator_loss(judge(wav).scores, judge(fake).scores)
    task.codec.train()
    train(task, 30, tmp_path)
    assert all(not torch.equal(a, b) for a, b in zip(before, judge.parameters(), strict=True))
    assert int(task.steps_done) == 40
    assert discriminator_loss(judge(wav).scores, judge(fake).scores) < 0.8 * told_apart


def test_a_batch_that_is_not_finite_leaves_no_trace(tmp_path: Path) -> None:
    """Not in weights, nor in what never forgets: codebooks, statistics of BatchNorm, states of the optimizers."""
    task, wav = tiny_task(6, adversarial_from=0), speech()
    broken = wav.clone()
    broken[1, 0, 100] = torch.nan
    fit(task, [Segments(w, w, torch.arange(4)) for w in (wav, wav, broken, wav)], tmp_path)
    assert task.bad_steps.skipped == 1 and task.bad_steps.in_a_row == 0
    kept = [*task.parameters(), *task.buffers()]
    assert all(x.isfinite().all() for x in kept if x.is_floating_point())
    assert task.codec.eval().encode(wav).codes.unique().numel() > 1


def test_training_stops_with_advice_when_nothing_is_finite(tmp_path: Path) -> None:
    wav = speech()
    task = tiny_task(9, max_bad_steps=3)
    broken = Segments(wav * torch.inf, wav, torch.arange(4))
    with pytest.raises(UserError, match=r"3 steps in a row; lower model\.learning_rate"):
        fit(task, [Segments(wav, wav, torch.arange(4)), *[broken] * 4], tmp_path)
    assert int(task.steps_done) == 3


@pytest.mark.parametrize("harmonic", [False, True])
def test_a_decoder_that_learns_alone_leaves_all_codes_as_they_are(tmp_path: Path, harmonic: bool) -> None:
    """Another decoder, too."""
    torch.manual_seed(0)
    codec = tiny_codec()
    codec(speech())
    save_codec(codec, tmp_path / "codec")
    before = load_codec(tmp_path / "codec")
    task = CodecTask(
        tiny_codec(harmonic=harmonic),
        mel_resolutions=RESOLUTIONS,
        start_from=str(tmp_path / "codec"),
        decoder_only=True,
        warmup_steps=1,
    )
    torch.testing.assert_close(task.codec.decoder.coarse.state_dict(), before.decoder.coarse.state_dict())
    train(task, 10, tmp_path)
    assert task.codec.fingerprint == before.fingerprint
    expected, codes = before.encode(speech()), task.codec.eval().encode(speech())
    assert torch.equal(codes.codes, expected.codes)
    assert torch.equal(codes.time_invariant, expected.time_invariant)  # type: ignore[arg-type]
    assert not torch.allclose(task.codec.decode(codes), before.decode(expected))


def test_only_the_decoder_may_start_anew(tmp_path: Path) -> None:
    save_codec(tiny_codec(), tmp_path)
    with pytest.raises(UserError, match=r"does not fit this codec in more than its decoder"):
        CodecTask(tiny_codec(encoder_layers=4), start_from=str(tmp_path))


def test_disguised_utterances_take_their_voice_from_the_reference() -> None:
    task = CodecTask(tiny_codec(), mel_resolutions=RESOLUTIONS, depth_shares=[0.5, 0, 0, 0.5], disguise_depth=1)
    wav = speech()
    task.codec(wav)
    task.codec.eval()  # so that nothing but the disguise and the drawn depths differ
    out, own = task._generate(wav, wav.flip(0))
    assert own.any() and not own.all()
    assert out.reference is not None and out.representation is not None
    silent, _ = task._generate(wav, torch.zeros_like(wav))
    changed = (out.wav - silent.wav).abs().amax((1, 2)) > 0
    assert changed[~own].all()
    plain = task.codec(wav)
    heard_alike = (out.codes[..., 0] == plain.codes[..., 0]).float().mean(1)
    assert (heard_alike[own] == 1).all() and (heard_alike[~own] < 0.9).all()


def test_converted_utterances_are_heard_in_the_voice_of_the_next() -> None:
    task = CodecTask(
        tiny_codec(),
        mel_resolutions=RESOLUTIONS,
        depth_shares=[1, 0, 0, 0],
        disguise_depth=1,
        disguise_warp=1,
        disguise_tone=0,
        converted=1.0,
    )
    wav = speech()
    task.codec(wav)  # the first batch starts the codebooks
    before = {k: v.clone() for k, v in task.codec.state_dict().items()}
    heard = task._convert(wav, wav.roll(1, 0), torch.tensor([True] + [False] * (len(wav) - 1)))
    assert all(torch.equal(v, before[k]) for k, v in task.codec.state_dict().items()) and task.codec.training
    assert torch.equal(heard[1:], wav[1:]) and not torch.allclose(heard[0], wav[0])
    task.codec.eval()
    out, own = task._generate(wav, wav)
    assert not own.any()
    others = task._convert(wav, wav.roll(1, 0), ~own)
    assert torch.equal(out.codes[..., 0], task.codec.encode(others).codes[:, 0])


def test_the_voice_loss_teaches_only_what_makes_the_output() -> None:
    task = CodecTask(tiny_codec(), mel_resolutions=RESOLUTIONS, weights=CodecLossWeights(voice=1.0))
    wav = speech()
    task.codec(wav)
    before = {k: v.clone() for k, v in task.codec.state_dict().items()}
    fake = (wav + 0.1 * torch.randn_like(wav)).requires_grad_()
    task._voice_loss(fake, wav).backward()
    assert fake.grad is not None and fake.grad.any()
    assert all(p.grad is None and p.requires_grad for p in task.codec.parameters())
    assert all(torch.equal(v, before[k]) for k, v in task.codec.state_dict().items()) and task.codec.training
    assert task._voice_loss(wav, wav) < 1e-6


def test_quantizer_1_learns_the_phones_where_they_are_known(tmp_path: Path) -> None:
    phones = torch.arange(25).div(5, rounding_mode="floor").repeat(4, 1)
    phones[:, 20:] = -1
    task = tiny_task(100, weights=CodecLossWeights(phones=10.0))
    train(task, 100, tmp_path, phones)
    assert task.phone_head is not None
    first = task.codec(speech()).first
    guess = task.phone_head(first).argmax(-1)
    assert (guess == phones)[phones >= 0].float().mean() > 0.8
    with pytest.raises(UserError, match="phone_tokens"):
        train(task, 1, tmp_path)


def test_time_invariant_codes_learn_the_speakers(tmp_path: Path) -> None:
    task = tiny_task(60, weights=CodecLossWeights(speakers=5.0))
    train(task, 60, tmp_path)
    voice = task.codec(speech()).voice
    assert task.speaker_head is not None
    assert task.speaker_head(voice).argmax(-1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5, 0.5, 0.5], [1.5, -0.5, 0, 0]])
def test_depth_shares_must_be_shares(shares: list[float]) -> None:
    with pytest.raises(UserError, match="depth_shares"):
        CodecTask(tiny_codec(), depth_shares=shares)


def test_mel_loss_is_zero_for_equal_and_grows_with_noise() -> None:
    loss, wav = MultiMelLoss(16000, RESOLUTIONS, [1.0, 1.0]), speech()
    noise = torch.randn_like(wav)
    values = [loss(wav + level * noise, wav).item() for level in (0.0, 0.001, 0.01, 0.1)]
    assert values[0] == 0 and values == sorted(values) and values[-1] > 1


def test_mel_filters_cover_every_bin_between_the_edges() -> None:
    filters = mel_filterbank(16000, 1024, 60)
    assert filters.shape == (513, 60)
    torch.testing.assert_close(filters.sum(0), torch.ones(60))
    assert (filters[1:-1].sum(1) > 0).all()


def test_adversarial_losses_have_known_values() -> None:
    ones, zeros = [torch.ones(2, 3)], [torch.zeros(2, 3)]
    assert discriminator_loss(ones, zeros).item() == 0 and discriminator_loss(zeros, ones).item() == 2
    assert adversarial_loss(ones).item() == 0 and adversarial_loss(zeros).item() == 1
    assert feature_matching_loss([[torch.full((4,), 2.0)]], [[torch.full((4,), 3.0)]]).item() == pytest.approx(0.5)


def test_consistency_loss_moves_only_the_first_segment() -> None:
    a, b = torch.randn(4, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    assert consistency_loss(a, a).item() == pytest.approx(0, abs=1e-6)
    assert consistency_loss(a, -a).item() == pytest.approx(2, abs=1e-6)
    consistency_loss(a, b).backward()
    assert a.grad is not None and b.grad is None


def test_usage_counts_codes_and_their_perplexity() -> None:
    usage = CodebookUsage(2, 8)
    usage.add(torch.tensor([[0, 3], [1, 3], [2, 3], [3, 3]]))
    (used, perplexity), (used_second, perplexity_second) = usage.read()
    assert (used, used_second) == (4, 1)
    assert perplexity == pytest.approx(4) and perplexity_second == pytest.approx(1)


def test_a_collapsed_codebook_is_told_once_there_is_evidence() -> None:
    usage = CodebookUsage(2, 100)
    spread = torch.arange(100).repeat(4)
    usage.add(torch.stack((spread[:30], spread[:30] % 3), 1))
    _, (_, collapsed) = usage.read()
    assert collapse(usage, 1, collapsed) is None, "30 codes say little of a codebook of 100"
    for _ in range(3):
        usage.add(torch.stack((spread, spread % 3), 1))
    (_, healthy), (_, collapsed) = usage.read()
    assert collapse(usage, 0, healthy) is None
    assert "perplexity 3.0 of 100 codes" in (collapse(usage, 1, collapsed) or "")


def test_feature_matching_may_be_absolute() -> None:
    real, fake = [[torch.full((4,), 2.0), torch.ones(3)]], [[torch.full((4,), 3.0), torch.ones(3)]]
    assert feature_matching_loss(real, fake).item() == pytest.approx(0.25)
    assert feature_matching_loss(real, fake, relative=False).item() == pytest.approx(0.5)


def test_discriminators_of_scales_and_spectra_see_what_they_should() -> None:
    judge = Discriminators((2,), (8, 8), (), 8, 1, scales=3, scale_channels=128, stft_sizes=(256, 64), stft_channels=4)
    verdict = judge(speech(2, 2048))
    assert [len(f) for f in verdict.features] == [2, 7, 7, 7, 5, 5]
    sizes = [s.shape for s in verdict.scores]
    assert sizes[0] == (2, 1, 342, 2)  # 1,024 columns of two, a third of them, and all of those
    assert sizes[1:4] == [(2, 1, 32), (2, 1, 17), (2, 1, 9)]
    assert sizes[4:] == [(2, 1, 33, 17), (2, 1, 129, 5)]  # frames by every eighth bin
