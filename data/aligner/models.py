"""What the aligner knows of speech: features, and hidden Markov models of phones and silence.

From a waveform to its features (`cepstra`), from the tokens of an utterance to its chain of hidden states
(`ChainBuilder`), from both to the likeliest path (`PhoneModels.decode`).

Shapes: B utterances, S states of an utterance's own chain, T frames of 10 ms, K emission states shared by all chains,
M Gaussians of each, D feature dimensions, N frames of any utterances.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, groupby

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

FRAME_SECONDS = 0.010
WINDOW_SECONDS = 0.025
N_MELS = 26
N_CEPSTRA = 13
DIM = 3 * N_CEPSTRA
DYNAMIC_RANGE = 18.4  # nats of power: 80 dB
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0


def cepstra(wav: Tensor, sample_rate: int) -> Tensor:
    """Features [T, 39] of `wav` [S]; T = S // (samples of 10 ms), and frame t is centred on (t + 1/2) x 10 ms.

    Mel-frequency cepstra (Davis & Mermelstein, 1980) with their first and second differences, normalised to zero mean
    and unit variance within the utterance, which takes out most of what a microphone or a voice adds to every frame.
    """
    hop, window = (
        round(sample_rate * FRAME_SECONDS),
        round(sample_rate * WINDOW_SECONDS),
    )
    n_frames = wav.numel() // hop
    if n_frames == 0:
        return wav.new_zeros(0, DIM)
    emphasised = wav - 0.97 * torch.nn.functional.pad(wav, (1, 0))[:-1]
    margin = window - hop
    padded = torch.nn.functional.pad(emphasised, (margin // 2, margin - margin // 2))
    frames = padded.unfold(0, window, hop)[:n_frames] * torch.hann_window(window, periodic=False)
    power = torch.fft.rfft(frames, n=_fft_size(window)).abs().square()
    log_mel = (power @ _mel_filters(sample_rate, _fft_size(window))).clamp_min(1e-20).log()
    # Relative to the loudest band, so that the gain does not matter: digital silence must not become an outlier that
    # squeezes all the speech into a corner of the normalised range.
    static = _normalise(log_mel.clamp_min(log_mel.max() - DYNAMIC_RANGE) @ _cosine_transform())
    slope = _differences(static)
    return torch.cat([static, slope, _differences(slope)], dim=1)


def loudness(features: Tensor) -> Tensor:
    """The utterance-normalised log-energy [T] of features [T, 39]: the zeroth cepstrum."""
    return features[:, 0]


def _normalise(x: Tensor) -> Tensor:
    return (x - x.mean(dim=0)) / x.std(dim=0, correction=0).clamp_min(1e-3)


def _differences(x: Tensor) -> Tensor:
    """The regression slope over five frames, [T, D] -> [T, D]."""
    padded = torch.cat([x[:1], x[:1], x, x[-1:], x[-1:]])
    return (2 * (padded[4:] - padded[:-4]) + padded[3:-1] - padded[1:-3]) / 10


def _fft_size(window: int) -> int:
    return 1 << (window - 1).bit_length()


@lru_cache
def _mel_filters(sample_rate: int, n_fft: int) -> Tensor:
    """Triangles evenly spaced on the mel scale, [n_fft // 2 + 1, 26]."""

    def mel(hz: float) -> float:
        return 1127 * math.log1p(hz / 700)

    top = min(HIGHEST_HZ, 0.475 * sample_rate)
    corners = 700 * torch.expm1(torch.linspace(mel(LOWEST_HZ), mel(top), N_MELS + 2, dtype=torch.float64) / 1127)
    hz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rising = (hz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hz) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).float()


@lru_cache
def _cosine_transform() -> Tensor:
    """The orthonormal DCT-II, [26, 13]."""
    n = torch.arange(N_MELS, dtype=torch.float64)[:, None]
    k = torch.arange(N_CEPSTRA, dtype=torch.float64)
    basis = torch.cos(math.pi / N_MELS * (n + 0.5) * k) * math.sqrt(2 / N_MELS)
    basis[:, 0] /= math.sqrt(2)
    return basis.float()


WORD_BOUNDARY = " "
BOUNDARIES = frozenset({WORD_BOUNDARY, *",.?!;:…—"})
SILENCE, ANY = 0, 1  # the models that every inventory has: silence, and the stand-in for phones that nothing resembles
FIXED_MODELS = ("<silence>", "<any>")
N_STATES = 3
# Taps and reduced vowels often last less than the 30 ms that three states need.
SHORT_PHONES = frozenset({"ɾ", "ə", "ɐ", "ᵻ"})
# The places where a silence may stand; each has its own probability.
BETWEEN_WORDS, AT_PUNCTUATION, AT_EDGE, NOWHERE = range(4)


@dataclass(frozen=True)
class TokenChain:
    """The states of one utterance in order, S of them.

    `emitters` [S]: the emission state of each. `owners` [S]: the position of the token that gets its frames.
    `pauses_begun` [S]: the place of the silence whose first state this is, or `NOWHERE`. `pauses_skipped` [S]: the
    place of the silence right before this state that may be left out, or `NOWHERE`.
    """

    emitters: Tensor
    owners: Tensor
    pauses_begun: Tensor
    pauses_skipped: Tensor


@dataclass(frozen=True)
class PhoneInventory:
    """The models there are, by name: silence, the stand-in, then phones without stress marks."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, symbols: Iterable[str], min_count: int) -> PhoneInventory:
        """Models for the phones that occur at least `min_count` times in `symbols`."""
        counts = Counter(_base_phone(symbol) for symbol in symbols)
        return cls(FIXED_MODELS + tuple(sorted(phone for phone, count in counts.items() if count >= min_count)))

    @cached_property
    def states(self) -> list[range]:
        """The emission states of each model."""
        sizes = [2 if name in SHORT_PHONES else N_STATES for name in self.names]
        return [range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]

    @property
    def n_states(self) -> int:
        return self.states[-1].stop

    def model_of(self, symbol: str) -> int:
        """The model of a phone: its own, or that of the longest beginning of it which has one (or has it long)."""
        phone = _base_phone(symbol)
        for end in range(len(phone), 0, -1):
            for name in (phone[:end], phone[:end] + "ː"):
                if name in self.names:
                    return self.names.index(name)
        return ANY


def _base_phone(symbol: str) -> str:
    return symbol.replace("ˈ", "").replace("ˌ", "")


class ChainBuilder:
    """Builds the chains of token sequences over `vocab`; `boundaries` are the symbols that may be silent.

    Every phone is a short left-to-right chain of states, shared by its stressed and unstressed variants. Neighbouring
    boundary tokens (word boundary, punctuation) share one silence, which may last no time at all.
    """

    def __init__(self, inventory: PhoneInventory, vocab: Sequence[str], boundaries: Collection[str]) -> None:
        self.inventory = inventory
        self.vocab = vocab
        self.is_boundary = [symbol in boundaries for symbol in vocab]
        self._models = [SILENCE if symbol in boundaries else inventory.model_of(symbol) for symbol in vocab]

    def __call__(self, tokens: Sequence[int]) -> TokenChain:
        """The chain of `tokens`, ids into the vocabulary; a chain without states for no tokens."""
        emitters: list[int] = []
        owners: list[int] = []
        begun: list[int] = []
        skipped: list[int] = []
        place_before = NOWHERE
        for silent, group in groupby(range(len(tokens)), key=lambda i: self.is_boundary[tokens[i]]):
            positions = list(group)
            place = self._place(tokens, positions) if silent else NOWHERE
            for position in [self._pause_owner(tokens, positions)] if silent else positions:
                states = self.inventory.states[self._models[tokens[position]]]
                emitters += states
                owners += [position] * len(states)
                begun += [place] + [NOWHERE] * (len(states) - 1)
                skipped += [place_before] + [NOWHERE] * (len(states) - 1)
                place_before = place
        return TokenChain(*(torch.tensor(column, dtype=torch.long) for column in (emitters, owners, begun, skipped)))

    def _place(self, tokens: Sequence[int], positions: list[int]) -> int:
        if positions[0] == 0 or positions[-1] == len(tokens) - 1:
            return AT_EDGE
        only_words = all(self.vocab[tokens[i]] == WORD_BOUNDARY for i in positions)
        return BETWEEN_WORDS if only_words else AT_PUNCTUATION

    def _pause_owner(self, tokens: Sequence[int], positions: list[int]) -> int:
        """Among neighbouring boundary tokens a silence belongs to the first punctuation, which is why it is there."""
        return next((i for i in positions if self.vocab[tokens[i]] != WORD_BOUNDARY), positions[0])


FRAMES_PER_COMPONENT = 50  # fewer frames than this do not pay for one more Gaussian
FRAMES_TO_ESTIMATE = 10  # fewer frames than this say nothing about a variance
VARIANCE_FLOOR = 0.02  # of the variance of all speech
CHUNK = 4096  # frames scored at once: bounds memory to CHUNK x K x M floats


@dataclass(frozen=True)
class Mixtures:
    """K mixtures: `log_weights` [K, M], `means` and `variances` [K, M, D].

    A component that is not in use has log-weight -inf; a state starts with one component and gets more as its data
    allow.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def flat(cls, n_states: int, frames: Tensor) -> Mixtures:
        """The same single Gaussian, of all `frames` [N, D], for every state."""
        shape = (n_states, 1, frames.shape[1])
        return cls(
            torch.zeros(n_states, 1),
            frames.mean(0).expand(shape).clone(),
            frames.var(0).expand(shape).clone(),
        )

    def log_likelihood(self, frames: Tensor) -> Tensor:
        """Log-density [N, K] of each frame [N, D] under each state's mixture."""
        projection, bias = self._projection()
        scores = frames.new_empty(len(frames), len(self.means))
        for part, out in zip(frames.split(CHUNK), scores.split(CHUNK), strict=True):
            components = _quadratic(part, projection, bias).view(len(part), -1, len(self.means))
            # A log-sum-exp without the very small terms: they add nothing, and denormal numbers are slow on CPUs.
            peak = components.amax(1)
            torch.add((components - peak[:, None]).clamp_min_(-40).exp_().sum(1).log_(), peak, out=out)
        return scores

    def _projection(self) -> tuple[Tensor, Tensor]:
        """The [2 D, M K] and [M K] that make the weighted log-densities of all components from (x^2, x)."""
        precision = 1 / self.variances
        projection = torch.cat([-0.5 * precision, self.means * precision], -1)
        normaliser = (self.variances.log() + self.means.square() * precision + math.log(2 * math.pi)).sum(-1)
        bias = self.log_weights - 0.5 * normaliser
        return projection.transpose(0, 1).flatten(0, 1).T.contiguous(), bias.T.flatten()

    def reestimated(self, frames: Tensor, states: Tensor) -> Mixtures:
        """One step of expectation-maximisation, each state on the frames [N, D] that `states` [N] gives it.

        A state with too few frames keeps what it had.
        """
        log_weights, means, variances = (
            self.log_weights.clone(),
            self.means.clone(),
            self.variances.clone(),
        )
        floor = VARIANCE_FLOOR * frames.var(0)
        by_state = states.argsort().split(torch.bincount(states, minlength=len(means)).tolist())
        for k, rows in enumerate(by_state):
            if len(rows) < FRAMES_TO_ESTIMATE:
                continue
            x = frames[rows]
            share = _quadratic(x, *self._state(k)._projection()).softmax(1)
            occupancy = share.sum(0)
            kept = occupancy >= min(FRAMES_TO_ESTIMATE / 2, float(occupancy.max()))
            weight = (share / occupancy.clamp_min(1e-8)).T
            mean = weight @ x
            spread = weight @ x.square() - mean.square()
            log_weights[k] = torch.where(kept, occupancy, 0).div(occupancy[kept].sum()).log()
            means[k, kept] = mean[kept]
            variances[k, kept] = spread[kept].maximum(floor)
        return Mixtures(log_weights, means, variances)

    def _state(self, k: int) -> Mixtures:
        return Mixtures(
            self.log_weights[k : k + 1],
            self.means[k : k + 1],
            self.variances[k : k + 1],
        )

    def split(self, counts: Tensor) -> Mixtures:
        """Twice the components: each is cut in two along its standard deviation, where `counts` [K] frames allow it."""
        used = self.log_weights.isfinite()
        allowed = (counts >= 2 * FRAMES_PER_COMPONENT * used.sum(1))[:, None]
        nudge = torch.where(allowed[..., None], 0.2 * self.variances.sqrt(), 0)
        halved = self.log_weights - torch.where(allowed, math.log(2), 0.0)
        twins = torch.where(allowed, halved, -torch.inf)
        return Mixtures(
            torch.cat([halved, twins], 1),
            torch.cat([self.means - nudge, self.means + nudge], 1),
            torch.cat([self.variances, self.variances], 1),
        )

    def pooled(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [D] of all the `states` [n] together, each with equal weight."""
        weights = self.log_weights[states].exp()[..., None] / len(states)
        mean = (weights * self.means[states]).sum((0, 1))
        square = (weights * (self.variances[states] + self.means[states].square())).sum((0, 1))
        return mean, square - mean.square()


def _quadratic(x: Tensor, projection: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, torch.cat([x.square(), x], 1), projection)


@dataclass(frozen=True)
class Chains:
    """One chain of states for each utterance, padded on the right; log-probabilities, -inf where there is no way.

    `emitters` [B, S]: the emission state (0..K-1) of each chain state. `stay`, `enter` and `jump` [B, S]: reaching a
    state from itself, from the state before it, and from the state `jump_length` before it. `start` and `final` [B, S]:
    being in a state at the first frame, and leaving it after the last.
    """

    emitters: Tensor
    stay: Tensor
    enter: Tensor
    jump: Tensor
    start: Tensor
    final: Tensor
    jump_length: int


def best_paths(emissions: Tensor, lengths: Tensor, chains: Chains) -> tuple[Tensor, Tensor]:
    """Viterbi decoding of `emissions` [B, T, K] (log-likelihoods), `lengths` [B] in frames, longest utterance first.

    Returns the chain state of each frame [B, T] (its last state repeated beyond the length) and the log-probability of
    the path [B]; it is -inf, and the path meaningless, for an utterance with fewer frames than its chain needs.
    """
    n_steps = int(lengths[0])
    reach = chains.jump_length
    came_by = torch.zeros(n_steps, *chains.emitters.shape, dtype=torch.uint8)
    score = chains.start + emissions[:, 0].gather(1, chains.emitters)
    entered, jumped = (
        torch.full_like(score, -torch.inf),
        torch.full_like(score, -torch.inf),
    )
    active_per_step = (lengths[None, :] > torch.arange(n_steps)[:, None]).sum(1).tolist()
    for t in range(1, n_steps):
        n = active_per_step[t]  # the utterances that have ended keep their score, and their zeros mean "stay"
        best = score[:n] + chains.stay[:n]
        torch.add(score[:n, :-1], chains.enter[:n, 1:], out=entered[:n, 1:])
        torch.add(score[:n, :-reach], chains.jump[:n, reach:], out=jumped[:n, reach:])
        came_by[t, :n] = entered[:n] > best
        best = torch.maximum(best, entered[:n])
        came_by[t, :n].masked_fill_(jumped[:n] > best, 2)
        score[:n] = torch.maximum(best, jumped[:n]) + emissions[:n, t].gather(1, chains.emitters[:n])
    total, state = (score + chains.final).max(1)
    move = torch.tensor([0, 1, reach])
    path = torch.empty(len(lengths), emissions.shape[1], dtype=torch.long)
    path[:, n_steps - 1 :] = state[:, None]
    for t in range(n_steps - 1, 0, -1):
        state = (state - move[came_by[t].gather(1, state[:, None])[:, 0].long()]).clamp_min(0)
        path[:, t - 1] = state
    return path, total


MAX_BATCH_FRAMES = 32_000  # padded frames in a batch: bounds its memory to some 50 MB
# Frames of speech are not independent, so their likelihoods, simply multiplied, overrule what is known about pauses.
PAUSE_SCALE = 5.0


@dataclass(frozen=True)
class Path:
    """The best path through an utterance.

    `states` [T]: the chain state of each frame. `log_likelihood`: of the path, per frame. `score`: by how much, per
    frame, the path fits worse than if each frame could choose among the states of all models: 0 at best. It compares
    utterances of different voices and recordings, and is low where the tokens are not what is spoken.
    """

    states: Tensor
    log_likelihood: float
    score: float


@dataclass(frozen=True)
class PhoneModels:
    """`stay` [K]: the probability that a state lasts another frame. `pauses` [3]: that a silence is there, by place."""

    inventory: PhoneInventory
    mixtures: Mixtures
    stay: Tensor
    pauses: Tensor

    def decode(self, features: Sequence[Tensor], chains: Sequence[TokenChain]) -> Iterator[tuple[int, Path | None]]:
        """The best path of each utterance, in the order of their lengths; `None` if it has too few frames.

        `features`: [T, 39] each. Yields (position in the input, path).
        """
        possible = [i for i in range(len(features)) if len(features[i]) and len(chains[i].emitters)]
        yield from ((i, None) for i in sorted(set(range(len(features))) - set(possible)))
        for batch in _batches(sorted(possible, key=lambda i: -len(features[i])), features):
            paths = self._decode_batch([features[i] for i in batch], [chains[i] for i in batch])
            yield from zip(batch, paths, strict=True)

    def _decode_batch(self, features: list[Tensor], chains: list[TokenChain]) -> Iterator[Path | None]:
        lengths = torch.tensor([len(x) for x in features])
        padded = pad_sequence(features, batch_first=True)
        emissions = self.mixtures.log_likelihood(padded.flatten(0, 1)).view(*padded.shape[:2], -1)
        batch = self._batch(chains)
        states, totals = best_paths(emissions, lengths, batch)
        fit = emissions.gather(2, batch.emitters.gather(1, states)[..., None])[..., 0] - emissions.amax(2)
        for length, path, total, gaps in zip(lengths.tolist(), states, totals.tolist(), fit, strict=True):
            if total == -torch.inf:
                yield None
            else:
                yield Path(path[:length], total / length, float(gaps[:length].mean()))

    def _batch(self, chains: list[TokenChain]) -> Chains:
        """All the chains with the scores of their transitions, padded."""
        scores = zip(*(self._transitions(chain) for chain in chains), strict=True)
        stay, enter, jump, start, final = (pad_sequence(list(x), True, -torch.inf) for x in scores)
        emitters = pad_sequence([chain.emitters for chain in chains], True)
        return Chains(emitters, stay, enter, jump, start, final, N_STATES + 1)

    def _transitions(self, chain: TokenChain) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities [S] of the transitions of `Chains`: stay, enter, jump, start, final."""
        emitters, n = chain.emitters, len(chain.emitters)
        pause = PAUSE_SCALE * torch.cat([self.pauses, torch.ones(1)]).log()
        no_pause = PAUSE_SCALE * torch.cat([1 - self.pauses, torch.zeros(1)]).log()
        leave = (1 - self.stay[emitters]).log()
        reach = N_STATES + 1
        enter, jump, start, final = torch.full((4, n), -torch.inf)
        enter[1:] = leave[:-1] + pause[chain.pauses_begun[1:]]
        jump[reach:] = leave[:-reach] + no_pause[chain.pauses_skipped[reach:]]
        start[0] = pause[chain.pauses_begun[0]]
        final[-1] = 0
        if n > N_STATES:  # a silence at either end may be left out, but not the only thing there is
            start[N_STATES] = no_pause[chain.pauses_skipped[N_STATES]]
            final[-reach] = no_pause[chain.pauses_begun[-N_STATES]]
        return self.stay[emitters].log(), enter, jump, start, final


def _batches(order: list[int], features: Sequence[Tensor]) -> Iterator[list[int]]:
    """Cuts `order`, longest utterance first, so that no padded batch exceeds `MAX_BATCH_FRAMES`."""
    while order:
        size = max(1, MAX_BATCH_FRAMES // len(features[order[0]]))
        yield order[:size]
        order = order[size:]
