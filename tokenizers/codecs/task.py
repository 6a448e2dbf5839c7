"""Training of a codec as a Lightning job (TiCodec, section 2.4, eq. 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from valle.common.errors import UserError
from valle.common.hub import find_model
from valle.common.optim import BadSteps
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec, CodecOutput
from valle.tokenizers.codecs.discriminators import Discriminators
from valle.tokenizers.codecs.disguise import Disguise
from valle.tokenizers.codecs.losses import (
    MultiMelLoss,
    adversarial_loss,
    consistency_loss,
    discriminator_loss,
    feature_matching_loss,
    spread_loss,
)
from valle.tokenizers.codecs.registry import start_decoder
from valle.tokenizers.codecs.usage import CodebookUsage, collapse
from valle.tokenizers.codecs.validation import held_out_scores


@dataclass(frozen=True)
class CodecLossWeights:
    """The lambdas of eq. 2, each a factor of a mean: over discriminators, over their layers, over the channels.

    `time`: of the difference of the waveforms; `spread`: see `spread_loss`; `pitch`: of a `HarmonicDecoder`'s pitch;
    `voice`, `phones` and `speakers`: see `CodecTask`.
    """

    time: float = 0.0
    mel: float = 15.0
    spread: float = 0.0
    adversarial: float = 1.0
    feature_matching: float = 2.0
    commitment: float = 0.25
    time_invariant_commitment: float = 0.25
    consistency: float = 1.0
    voice: float = 0.0
    phones: float = 0.0
    speakers: float = 0.0
    pitch: float = 1.0


PHONE_CLASSES = 256
"""More than any phoneme tokenizer has."""
SPEAKER_CLASSES = 4096
"""Speakers are told apart modulo this; two who share a class do no harm."""


class CodecTask(LightningModule):
    """Trains an `AutoencoderCodec`: mel loss from the first step, adversarial losses from `adversarial_from` on.

    Batches are `valle.data.codec_data.SegmentBatch`es. For a share `cross_time_invariant` of the utterances the
    time-invariant codes that reach the decoder are those of the *other* segment: cloning decodes with the prompt's
    codes, and so a codec that only ever sees its own would be used outside of what it was trained for.

    Two things make quantizer 1 and the time-invariant codes fit for a language model that predicts little else:

    - utterances that use only the first `disguise_depth` quantizers reach the encoder disguised
      (`valle.tokenizers.codecs.disguise`), while the decoder gets the true one's time-invariant codes and must give it.
      A share `converted` of them is first said in another's voice by the codec itself, from its first quantizer and
      another utterance's time-invariant codes: the better it converts, the better the disguise.
    - the loss `phones` asks quantizer 1's frames for the phone that is spoken (data that has phones: `phone_tokens`),
      the loss `speakers` the time-invariant codes for the speaker.

    The loss `voice` asks that TIRE hear in the output what it hears in the original (one minus their cosine); only what
    makes the output learns from it.
    """

    def __init__(
        self,
        codec: AutoencoderCodec,
        discriminators: Discriminators | None = None,
        weights: CodecLossWeights | None = None,
        mel_resolutions: list[tuple[int, int, int]] | None = None,
        mel_weights: list[float] | None = None,
        learning_rate: float = 1e-3,
        final_learning_rate: float = 5e-5,
        discriminator_learning_rate: float = 3e-4,
        betas: tuple[float, float] = (0.8, 0.99),
        weight_decay: float = 0.01,
        warmup_steps: int = 200,
        max_steps: int = 10000,
        decay: float | None = None,
        adversarial_from: int = 5000,
        discriminator_every: int = 1,
        quantizer_dropout: float = 0.5,
        depth_shares: list[float] | None = None,
        disguise_depth: int = 0,
        disguise_warp: float = 1.25,
        disguise_tone: float = 0.3,
        converted: float = 0.0,
        cross_time_invariant: float = 0.5,
        clip_gradient: float = 1.0,
        max_bad_steps: int = 20,
        relative_matching: bool = True,
        start_from: str | None = None,
        decoder_only: bool = False,
    ) -> None:
        """
        Args:
            codec: the codec to train.
            discriminators: None trains with the mel loss alone.
            mel_resolutions: (n_fft, hop_length, n_mels) of each resolution.
            mel_weights: their weights; default all 1.
            weight_decay: of the codec's weights; 0 is Adam.
            max_steps: steps over which the learning rate falls, by half a cosine, to `final_learning_rate`.
            decay: instead, the factor by which it falls after every epoch.
            adversarial_from: first step with adversarial losses.
            discriminator_every: the discriminators learn at every so many steps.
            quantizer_dropout: share of utterances that use only the first 1..n_q quantizers.
            depth_shares: instead of it, the shares of utterances that use 1, 2, … n_q quantizers.
            disguise_depth: see the class; 0 turns it off.
            disguise_warp, disguise_tone: how far a disguise goes, see `Disguise.draw`.
            converted: see the class.
            cross_time_invariant: see the class.
            clip_gradient: largest norm of a gradient; `.inf` leaves all as they are.
            max_bad_steps: steps without a finite gradient are skipped; so many in a row end the training.
            relative_matching: whether feature matching divides by the size of the real features (EnCodec), or not
                (HiFi-GAN).
            start_from: folder of a codec whose weights to start from; its decoder may be another one, of which only
                what fits is taken.
            decoder_only: leave alone all that decides on codes, so that data tokenized and language models trained
                with the codec stay valid while its decoder learns on.
        """
        super().__init__()
        self.automatic_optimization = False
        anew = [] if start_from is None else start_decoder(codec, find_model(start_from) / "codec.safetensors")
        if anew:
            rank_zero_info(f"not in {start_from}, and learned from nothing: {', '.join(anew)}")
        self.codec = codec
        self.decoder_only = decoder_only
        if decoder_only:
            codec.requires_grad_(False)
            for part in codec.decoding_parts():
                part.requires_grad_(True)
            codec.eval()
        self.discriminators = discriminators
        self.weights = weights or CodecLossWeights()
        resolutions = mel_resolutions or [(2048, 512, 120), (1024, 256, 80), (512, 128, 60), (256, 64, 40)]
        self.mel = MultiMelLoss(codec.spec.sample_rate, resolutions, mel_weights or [1.0] * len(resolutions))
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.discriminator_learning_rate = discriminator_learning_rate
        self.betas = (betas[0], betas[1])
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.max_steps = max_steps
        self.decay = decay
        self.adversarial_from = adversarial_from
        self.discriminator_every = discriminator_every
        n_q = codec.spec.n_q
        if depth_shares is None:
            depth_shares = [quantizer_dropout / n_q] * (n_q - 1) + [1 - quantizer_dropout * (n_q - 1) / n_q]
        if len(depth_shares) != n_q or abs(sum(depth_shares) - 1) > 1e-6 or min(depth_shares) < 0:
            raise UserError(f"depth_shares must be {n_q} shares that sum to 1, one per quantizer, got {depth_shares}")
        self.depth_shares = torch.tensor(depth_shares, dtype=torch.float)
        if disguise_depth and codec.time_invariant is None:
            raise UserError("disguise_depth needs a codec with time-invariant codes, which say what the true voice is")
        self.disguise_depth, self.disguise_warp, self.disguise_tone = disguise_depth, disguise_warp, disguise_tone
        self.converted = converted
        width = codec.quantizer.decode(torch.zeros(1, 1, n_q, dtype=torch.long)).shape[-1]
        self.phone_head = nn.Linear(width, PHONE_CLASSES) if self.weights.phones else None
        self.speaker_head: nn.Linear | None = None
        if self.weights.voice and codec.time_invariant is None:
            raise UserError("the loss 'voice' needs a codec with time-invariant codes")
        if self.weights.speakers:
            if codec.time_invariant is None:
                raise UserError("the loss 'speakers' needs a codec with time-invariant codes")
            width = codec.time_invariant.encoder.linear.out_features
            self.speaker_head = nn.Linear(width, SPEAKER_CLASSES)
        self.cross_time_invariant = cross_time_invariant
        self.clip_gradient = clip_gradient
        advice = "lower model.learning_rate, raise model.warmup_steps, or use an earlier checkpoint"
        self.bad_steps = BadSteps(max_bad_steps, advice)
        self.relative_matching = relative_matching
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))
        self.usage = CodebookUsage(codec.spec.n_q, codec.spec.codebook_size)
        self.time_invariant_usage = CodebookUsage(codec.spec.n_time_invariant, codec.spec.time_invariant_size)

    def train(self, mode: bool = True) -> CodecTask:
        super().train(mode)
        if self.decoder_only:
            # Codebooks and BatchNorm statistics learn by being in training mode, not by gradient.
            self.codec.eval()
        return self

    def configure_optimizers(self) -> Any:
        learning = [p for p in self.codec.parameters() if p.requires_grad]
        for head in filter(None, (self.phone_head, self.speaker_head)):
            learning += head.parameters()
        generator = torch.optim.AdamW(learning, self.learning_rate, self.betas, weight_decay=self.weight_decay)
        if self.discriminators is None:
            return generator
        judge = torch.optim.AdamW(
            self.discriminators.parameters(), self.discriminator_learning_rate, self.betas, weight_decay=0.0
        )
        return [generator, judge]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        step = int(self.steps_done)
        self._set_learning_rates(step)
        wav, reference = batch.wav, batch.wav2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)  # of the decoder's noise, if it has any
            out, own_voice = self._generate(wav, reference)
        judged = self.discriminators is not None and step >= self.adversarial_from
        norms = []
        if judged and step % self.discriminator_every == 0:
            norms.append(self._train_discriminators(wav, out.wav.detach()))
        norms.append(self._train_codec(out, batch, own_voice, judged))
        self.bad_steps.count(all(torch.isfinite(norm) for norm in norms))
        self.log("train/skipped_steps", float(self.bad_steps.skipped))
        self.usage.add(out.codes)
        if out.time_invariant_codes is not None:
            self.time_invariant_usage.add(out.time_invariant_codes)
        if step % 200 == 199:
            self._log_usage()
        self.steps_done += 1

    def _generate(self, wav: Tensor, reference: Tensor) -> tuple[CodecOutput, Tensor]:
        """One pass, and which utterances [B] the encoder heard in their own voice.

        The draws depend on the step alone, so that a resumed run repeats an uninterrupted one.
        """
        batch, device = wav.shape[0], wav.device
        draw = torch.Generator().manual_seed(int(self.steps_done))
        depth = 1 + torch.multinomial(self.depth_shares, batch, True, generator=draw)
        own = torch.ones(batch, dtype=torch.bool)
        if self.codec.time_invariant is None:
            return self.codec(wav, depth=depth.to(device)), own.to(device)
        cross = torch.rand(batch, generator=draw) < self.cross_time_invariant
        disguise = heard = None
        if self.disguise_depth:
            own = depth > self.disguise_depth
            disguise = Disguise.draw(~own, self.disguise_warp, self.disguise_tone, draw).to(device)
            converted = ~own & (torch.rand(batch, generator=draw) < self.converted)
            if converted.any():
                heard = self._convert(wav, reference.roll(1, 0), converted.to(device))
        out = self.codec(wav, reference, (cross | ~own).to(device), depth.to(device), disguise, heard)
        return out, own.to(device)

    @torch.no_grad()
    def _convert(self, wav: Tensor, voices: Tensor, who: Tensor) -> Tensor:
        """`wav` [B, 1, S], the utterances of `who`, bool [B], said in the `voices` [B, 1, S'] by the codec as it is."""
        training = self.codec.training
        self.codec.eval()  # codebooks and BatchNorm must not learn from it
        said, voice = self.codec.encode(wav[who]), self.codec.encode(voices[who])
        converted = self.codec.decode(replace(said.first(1), time_invariant=voice.time_invariant))
        self.codec.train(training)
        out = wav.clone()
        out[who] = converted[..., : wav.shape[-1]].to(wav.dtype)
        return out

    def _step(self, optimizer: Any, module: nn.Module, loss: Tensor) -> Tensor:
        """Make a step, unless the gradient is not finite; gives the gradient's norm over `module`.

        It is the same on all processes, other than the loss, and so they all decide alike.
        """
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), self.clip_gradient)
        if torch.isfinite(norm):
            optimizer.step()
        return norm

    def _train_discriminators(self, real: Tensor, fake: Tensor) -> Tensor:
        """Gives the gradient's norm."""
        assert self.discriminators is not None
        # The bare optimizer: Lightning's wrapper would count its steps, too, and half as many batches make `max_steps`.
        _, optimizer = self.optimizers(use_pl_optimizer=False)
        loss = discriminator_loss(self.discriminators(real).scores, self.discriminators(fake).scores)
        self.log("train/discriminator", loss)
        return self._step(optimizer, self.discriminators, loss)

    def _train_codec(self, out: CodecOutput, batch: Any, own_voice: Tensor, judged: bool) -> Tensor:
        """Gives the gradient's norm."""
        weights, wav = self.weights, batch.wav
        spectra, targets = self.mel.spectra(out.wav), self.mel.spectra(wav)
        mel = self.mel.distance(spectra, targets)
        losses = {"mel": mel * weights.mel, "commitment": out.commitment * weights.commitment}
        if weights.spread:
            losses["spread"] = spread_loss(spectra, targets) * weights.spread
        if weights.time:
            losses["time"] = F.l1_loss(out.wav.float(), wav) * weights.time
        if out.time_invariant_commitment is not None:
            losses["ti_commitment"] = out.time_invariant_commitment * weights.time_invariant_commitment
        if out.representation is not None and out.reference is not None and own_voice.any():
            same = consistency_loss(out.representation[own_voice], out.reference[own_voice])
            losses["consistency"] = same * weights.consistency
        if out.pitch is not None:
            losses["pitch"] = out.pitch * weights.pitch
        if weights.voice:
            losses["voice"] = self._voice_loss(out.wav, wav) * weights.voice
        if self.phone_head is not None:
            losses["phones"] = self._phone_loss(out, batch.phones) * weights.phones
        if self.speaker_head is not None and out.voice is not None:
            logits, speakers = self.speaker_head(out.voice).float(), batch.speakers % SPEAKER_CLASSES
            losses["speakers"] = F.cross_entropy(logits, speakers) * weights.speakers
            self.log("train/speaker_accuracy", (logits.argmax(-1) == speakers).float().mean())
        if judged:
            assert self.discriminators is not None
            self.discriminators.requires_grad_(False)
            with torch.no_grad():
                real = self.discriminators(wav)
            fake = self.discriminators(out.wav)
            self.discriminators.requires_grad_(True)
            losses["adversarial"] = adversarial_loss(fake.scores) * weights.adversarial
            matching = feature_matching_loss(real.features, fake.features, self.relative_matching)
            losses["feature_matching"] = matching * weights.feature_matching
        optimizers = self.optimizers()
        optimizer = optimizers[0] if isinstance(optimizers, list) else optimizers
        norm = self._step(optimizer, self.codec, torch.stack(list(losses.values())).sum())
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()})
        self.log_dict({"train/mel_distance": mel, "train/gradient": norm}, prog_bar=True)
        return norm

    def _voice_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        listening = [p for p in self.codec.parameters() if p.requires_grad]
        training = self.codec.training
        self.codec.eval()
        for p in listening:
            p.requires_grad_(False)
        with torch.no_grad():
            wanted = self.codec.representation(real)
        heard = self.codec.representation(fake)
        for p in listening:
            p.requires_grad_(True)
        self.codec.train(training)
        return consistency_loss(heard, wanted)

    def _phone_loss(self, out: CodecOutput, phones: Tensor | None) -> Tensor:
        """Cross-entropy of the phone, known for the frames where `phones` [B, T] is not negative."""
        if phones is None:
            raise UserError("the weight of the loss 'phones' is not 0, but the data has none; set data.phone_tokens")
        assert self.phone_head is not None and out.first is not None
        logits = self.phone_head(out.first).float()
        loss = F.cross_entropy(logits.flatten(0, 1), phones.flatten(), ignore_index=-1, reduction="sum")
        known = (phones >= 0).sum().clamp_min(1)
        self.log("train/phone_accuracy", (logits.argmax(-1) == phones).sum() / known)
        return loss / known

    def _set_learning_rates(self, step: int) -> None:
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.decay is not None:
            scale = warm * self.decay**self.current_epoch
        else:
            done = min(1.0, step / max(1, self.max_steps))
            floor = self.final_learning_rate / self.learning_rate
            scale = warm * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)
        optimizers = self.optimizers()
        pairs = zip(
            optimizers if isinstance(optimizers, list) else [optimizers],
            (self.learning_rate, self.discriminator_learning_rate),
            strict=False,
        )
        for optimizer, base in pairs:
            for group in optimizer.param_groups:
                group["lr"] = base * scale

    def _log_usage(self) -> None:
        for name, usage in (("codebook", self.usage), ("time_invariant", self.time_invariant_usage)):
            for i, (used, perplexity) in enumerate(usage.read()):
                self.log(f"usage/{name}_{i}", float(used))
                self.log(f"perplexity/{name}_{i}", perplexity)
                if advice := collapse(usage, i, perplexity):
                    rank_zero_warn(f"{name} {i} {advice}")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for name, score in held_out_scores(self.codec, self.mel, batch.wav, batch.lengths).items():
            self.log(f"val/{name}", score, batch_size=len(batch.lengths), sync_dist=True)
