"""One text on its way to speech: `Utterance`, its pieces of one sentence each, and how their audio is joined.

Shapes: n_q quantizers, T frames, S samples.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.lm import Decoder, Generated, Request, Row, refine
from valle.synthesis.loudness import Leveller, Limiter
from valle.synthesis.model import Bundle
from valle.synthesis.options import Scorer, SynthesisOptions
from valle.synthesis.prompt import SPEECH_DBFS, Voice
from valle.synthesis.ranking import OwnEar, find_fault
from valle.synthesis.result import FAULTS, Outcome, Speech, SpeechChunk, SpokenPiece
from valle.tokenizers.codecs.base import DecodeStream, SpeechCodes
from valle.tokenizers.text import NothingToSayError, TextTokenizer, split_sentences

SENTENCE_CHARACTERS = 200
"""At most so many are spoken in one go."""
DIGIT_CHARACTERS = 5
"""A digit counts as so many: "seven" is what is said."""

VOICE_FRAMES = 250
"""Of the recording at most so many are given to a flow, as in its training."""


@dataclass(eq=False)
class Candidate:
    """One reading of a piece.

    codes: [n_q, T], wav: [S], once they have been made
    """

    request: Request
    row: Row | None = None
    said: Generated | None = None
    fault: str = ""
    codes: Tensor | None = None
    wav: Tensor | None = None


@dataclass(eq=False)
class Piece:
    """One sentence, or part of a long one."""

    text: str
    pause: float
    """Seconds of silence behind it."""
    phonemes: Tensor | None = None
    is_silent: bool = False
    """Whether there is nothing in it that could be said, such as a sentence in a script that nobody reads."""
    known: SpokenPiece | None = None
    """How it was spoken before."""
    candidates: list[Candidate] = field(default_factory=list)
    earlier: int = 0
    """Spoken before, and not among `candidates`."""
    wanted: int = 1
    chosen: Candidate | None = None

    @property
    def tried(self) -> int:
        """Candidates that were asked of the decoder; one that is remembered was not."""
        return sum(candidate.row is not None for candidate in self.candidates)

    @property
    def needs_candidate(self) -> bool:
        return self.known is None and not self.is_silent and self.chosen is None and len(self.candidates) < self.wanted


def cut_text(text: str, candidates: int) -> list[Piece]:
    """The pieces of `text`. Raises `UserError` for a text that is empty."""
    if not text.strip():
        raise UserError("the text is empty; give something to say")
    texts = [piece for sentence in split_sentences(text, SENTENCE_CHARACTERS) for piece in _cut_numbers(sentence)]
    # A line of asterisks between two paragraphs is nothing to say, but no mistake either.
    texts = [piece for piece in texts if any(c.isalnum() for c in piece)] or texts
    pieces = [Piece(piece, pause_after(piece), wanted=candidates) for piece in texts]
    pieces[-1].pause = 0.0
    return pieces


def _cut_numbers(sentence: str) -> list[str]:
    """A sentence; one that is long because of its numbers, in pieces."""
    spoken = len(sentence) + (DIGIT_CHARACTERS - 1) * sum(map(str.isdigit, sentence))
    if spoken <= SENTENCE_CHARACTERS:
        return [sentence]
    return split_sentences(sentence, max(1, SENTENCE_CHARACTERS * len(sentence) // spoken))


def make_request(
    phonemes: Tensor, voice: Voice, text: TextTokenizer, seed: int, piece: int, candidate: int, live: bool = False
) -> Request:
    """What the AR model is asked: candidate number `candidate` of piece number `piece` of a text spoken with `seed`.

    live: whether it is heard while it is spoken
    """
    # A hash, because torch's generator looks at no more than 32 bits: of sums and shifts some would come out the same.
    digest = hashlib.blake2s(f"{seed} {piece} {candidate}".encode(), digest_size=4).digest()
    seed = int.from_bytes(digest) >> 1
    heard = voice.codes[:, :VOICE_FRAMES]
    if voice.phonemes is None:
        return Request(phonemes, voice.time_invariant, seed=seed, voice_codes=heard, live=live)
    if int(voice.phonemes[-1]) in text.boundary_ids and int(phonemes[0]) in text.boundary_ids:
        phonemes = phonemes[1:]  # words have one boundary between them, and the prompt ends with it
    known = torch.cat((voice.phonemes, phonemes))
    return Request(known, voice.time_invariant, voice.codes, len(voice.phonemes), voice.durations, seed, heard, live)


FADE_SECONDS = 0.01
"""Shorter than any sound of speech, long enough not to click."""
SENTENCE_PAUSE = 0.15
"""Seconds of silence behind a sentence, besides the one that the model puts at its end."""
CLAUSE_PAUSE = 0.05
"""The same where a long sentence had to be cut."""

_SENTENCE_ENDS = ".!?…。！？．"
_CLOSING = "\"'”’»)]」』 "


def pause_after(text: str) -> float:
    """Seconds of silence between `text` and what follows it."""
    return SENTENCE_PAUSE if text.rstrip(_CLOSING)[-1:] in tuple(_SENTENCE_ENDS) else CLAUSE_PAUSE


class Joiner:
    """Takes the audio of one piece after another, in parts of any size, and gives it faded and with pauses.

    The last `FADE_SECONDS` come late, since nobody knows them to be the last before `end`.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.ramp = torch.linspace(0, 1, int(FADE_SECONDS * sample_rate))
        self.held = torch.zeros(0)
        self.given = 0
        """Samples of this piece that were faded in already."""

    def add(self, wav: Tensor) -> Tensor:
        """The audio [S'] that is certain once `wav` [S] of the current piece has come."""
        ramp = self.ramp[self.given : self.given + len(wav)]
        self.given += len(wav)
        wav = torch.cat((wav[: len(ramp)] * ramp, wav[len(ramp) :]))
        wav = torch.cat((self.held, wav))
        certain = max(0, len(wav) - len(self.ramp))
        self.held = wav[certain:]
        return wav[:certain]

    def end(self, pause: float = 0.0) -> Tensor:
        """The rest of the piece and `pause` seconds of silence; the next `add` starts another piece."""
        size = len(self.held)
        rest = self.held * self.ramp.flip(0)[len(self.ramp) - size :]
        self.held, self.given = torch.zeros(0), 0
        return torch.cat((rest, torch.zeros(int(pause * self.sample_rate))))


FIRST_SECONDS = 0.2
"""Audio in the first chunk of a stream."""
CHUNK_SECONDS = 0.5
"""Audio in the others."""
NAR_FUTURE_SECONDS = 0.1
"""In a stream the other quantizers wait until so much of what follows is known."""
TOKEN_SECONDS = 0.08
"""A phoneme or pause lasts about so long: only for telling the progress."""


class Utterance:
    """An `Engine` speaks it; its audio comes in order: `take_chunks` gives what is new.

    stream: make audio while a sentence is being spoken, not after it
    known:  the first pieces of this text, as they were spoken before with the same arguments: they are not again
    retry_faulty: except for the faulty ones, which get as many more candidates
    Raises `UserError` for a text that cannot be spoken.
    """

    def __init__(
        self,
        bundle: Bundle,
        text: str,
        voice: Voice,
        options: SynthesisOptions,
        stream: bool = False,
        known: Sequence[SpokenPiece] = (),
        retry_faulty: bool = False,
    ) -> None:
        voice.check_fits(bundle)
        self.bundle, self.voice, self.options = bundle, voice, options
        self.sampling = options.sampling or bundle.sampling
        self.candidates = options.count(stream)
        """Of each piece."""
        bundle.check_language(options.language)
        self.pieces = cut_text(text, self.candidates)
        self.spoken: list[SpokenPiece] = []
        """The pieces that are done."""
        self.done = False
        self.error: UserError | None = None
        """Why it will never be done."""
        self.started = time.perf_counter()
        # With several candidates of a sentence, none can be heard before all are there.
        self._live = _Live(self) if stream and self.candidates == 1 else None
        rate = bundle.codec.spec.sample_rate
        self._joiner, self._limiter = Joiner(rate), Limiter(rate)
        self._leveller = Leveller(rate, voice.loudness, expected=SPEECH_DBFS)
        self._chunks: list[SpeechChunk] = []
        self._samples = 0
        self._first_chunk: float | None = None
        self._retries = 0
        self._notes = list(voice.notes)
        # A language that nobody knows is told at once, and a text without a word in it.
        if not any(self._is_sayable(piece) for piece in self.pieces):
            self._phonemes(self.pieces[0])
        self._remember(known, retry_faulty)

    def take_chunks(self) -> list[SpeechChunk]:
        """The chunks since the last call."""
        chunks, self._chunks = self._chunks, []
        return chunks

    def speech(self) -> Speech:
        """All audio of an utterance that is done, in one; for those who have not taken any chunk."""
        chunks = self.take_chunks()
        outcome = chunks[-1].outcome
        if outcome is None:
            raise ValueError("the utterance is not done")
        wav, codes = torch.cat([chunk.wav for chunk in chunks]), torch.cat(self.codes, dim=1)
        return Speech(wav=wav, sample_rate=chunks[-1].sample_rate, codes=codes, **vars(outcome))

    @property
    def codes(self) -> list[Tensor]:
        """[n_q, T] of each piece that is done."""
        return [piece.codes for piece in self.spoken]

    @property
    def has_chunks(self) -> bool:
        return bool(self._chunks)

    @property
    def streams(self) -> bool:
        """Whether sentences become audio while they are being spoken."""
        return self._live is not None

    @property
    def share(self) -> float:
        """How much of the text is done, 0 to 1; an estimate while a sentence is being spoken."""
        rate = self.bundle.codec.spec.frame_rate
        total = sum(len(piece.text) for piece in self.pieces)
        done = float(sum(len(piece.text) for piece in self.spoken))
        for piece in self.pieces[len(self.spoken) :]:
            if not piece.candidates or piece.phonemes is None:
                break
            frames = max(candidate.row.frames if candidate.row else 0 for candidate in piece.candidates)
            done += len(piece.text) * min(1.0, frames / (len(piece.phonemes) * TOKEN_SECONDS * rate))
        return done / total

    def next_candidate(self, ahead: int) -> Candidate | None:
        """The next request for the decoder, from the first `ahead` pieces that are not done; None if there is none."""
        first = len(self.spoken)
        for index, piece in enumerate(self.pieces[first : first + ahead], start=first):
            if piece.needs_candidate and self._is_sayable(piece):
                piece.candidates.append(Candidate(self._request(piece, index, piece.earlier + len(piece.candidates))))
                return piece.candidates[-1]
        return None

    def finish(self, candidate: Candidate, said: Generated) -> None:
        """A candidate has been spoken: choose it, or ask for another."""
        piece = next(piece for piece in self.pieces if candidate in piece.candidates)
        candidate.said = said
        boundary, rate = self.bundle.ar.is_boundary.cpu(), self.bundle.codec.spec.frame_rate
        candidate.fault = find_fault(said, candidate.request, boundary, self.sampling, rate)
        if any(other.said is None for other in piece.candidates) or piece.needs_candidate:
            return
        if self._live is not None and self._live.piece is piece and self._live.emitted > 0:
            self._choose(piece, [candidate])  # it has been heard: there is no way back
            return
        good = [other for other in piece.candidates if not other.fault]
        if not good and piece.tried < self.candidates + self.options.retries:
            piece.wanted += 1
            return
        # One that was cut off lacks words; what else went wrong may still be understood.
        whole = [other for other in piece.candidates if other.fault != "max_length"]
        self._choose(piece, good or whole or piece.candidates)

    def advance(self, decoder: Decoder) -> None:
        """Turn what has been said since the last call into chunks."""
        while not self.done:
            piece, start = self.pieces[len(self.spoken)], self._samples / self._joiner.sample_rate
            if piece.is_silent:
                nothing = torch.zeros(self.quantizers, 0).long()
                self._end_piece(SpokenPiece(text=piece.text, codes=nothing, fault="unreadable", start=start))
                continue
            if piece.known is not None:
                self._emit(self._decode(piece.known.codes))
                self._end_piece(replace(piece.known, start=start), piece.pause)
                return  # one in a step: those of a book would fill the memory
            if self._live is not None:
                self._emit(self._live.advance(piece, decoder))
            if piece.chosen is None:
                return
            candidate = piece.chosen
            if self._live is not None:
                candidate.codes = self._live.codes
            else:
                self._emit(self._wav(candidate))
            assert candidate.codes is not None
            spoken = SpokenPiece(
                text=piece.text,
                codes=candidate.codes,
                fault=candidate.fault,
                candidates=piece.earlier + len(piece.candidates),
                start=start,
            )
            self._end_piece(spoken, piece.pause)
            piece.candidates, piece.chosen, piece.phonemes = [], None, None

    @property
    def quantizers(self) -> int:
        """How many the model speaks with."""
        return self.bundle.codec.spec.n_q if self.bundle.refiner else 1

    def refine(self, request: Request, said: Generated, known: Tensor | None = None) -> Tensor:
        """All quantizers [n_q, T] of what was said, of which the first frames may be `known` already."""
        if self.bundle.refiner is None:
            return said.codes[None]
        return refine(self.bundle.refiner, [request], [said], self.sampling, None if known is None else [known])[0]

    def open_stream(self) -> DecodeStream | None:
        """None where the codec must see a whole sentence."""
        try:
            return self.bundle.codec.decode_stream(self.voice.time_invariant)
        except UserError:
            return None

    def _remember(self, known: Sequence[SpokenPiece], retry_faulty: bool) -> None:
        """Take pieces as they were spoken before; of faulty ones, which are tried again, as a first candidate."""
        for index, (piece, spoken) in enumerate(zip(self.pieces, known, strict=False)):
            if piece.text != spoken.text:
                raise UserError(f"piece {index + 1} was spoken of another text: “{spoken.text[:60]}”")
            if spoken.fault == "unreadable":
                continue
            if not retry_faulty or not spoken.fault:
                piece.known = spoken
            else:
                said = Generated(spoken.codes[0], None, "", spoken.codes.shape[1])
                request = self._request(piece, index, spoken.candidates - 1)
                piece.candidates = [Candidate(request, said=said, fault=spoken.fault, codes=spoken.codes)]
                piece.earlier, piece.wanted = spoken.candidates - 1, 1 + self.candidates

    def _request(self, piece: Piece, index: int, candidate: int) -> Request:
        seed, text = self.options.seed, self.bundle.text
        return make_request(self._phonemes(piece), self.voice, text, seed, index, candidate, self.streams)

    def _end_piece(self, spoken: SpokenPiece, pause: float = 0.0) -> None:
        """The current piece is done, all its audio emitted."""
        self._emit(self._joiner.end(pause), spoken)
        self.spoken.append(spoken)
        self.done = len(self.spoken) == len(self.pieces)
        if self.done:
            self._chunks.append(SpeechChunk(self._limiter.end(), self._joiner.sample_rate, self._outcome()))

    def _is_sayable(self, piece: Piece) -> bool:
        """Whether there is anything to say in `piece`; if not, it is left out, with a note."""
        try:
            self._phonemes(piece)
        except NothingToSayError as error:
            piece.is_silent = True
            self._notes.append(f"left out: {error}")
        return not piece.is_silent

    def _phonemes(self, piece: Piece) -> Tensor:
        if piece.phonemes is None:
            piece.phonemes = self.bundle.encode(piece.text, self.options.language)
        return piece.phonemes

    def _choose(self, piece: Piece, candidates: list[Candidate]) -> None:
        if len(candidates) > 1:
            if self.options.scorer is None:
                # What is said, and whether it is near the voice, is heard from the first quantizer already.
                wavs = [self._decode(one.said.codes[None]) for one in candidates if one.said is not None]
                scorer: Scorer = OwnEar(self.bundle, self.options.language)
            else:
                wavs, scorer = [self._wav(candidate) for candidate in candidates], self.options.scorer
            scores = scorer(piece.text, self.voice, wavs, self._joiner.sample_rate)
            piece.chosen = max(zip(candidates, scores, strict=True), key=lambda pair: pair[1])[0]
        else:
            piece.chosen = candidates[0]
        chosen = piece.chosen
        assert chosen.said is not None
        self._retries += max(0, piece.tried - self.candidates)

    def _wav(self, candidate: Candidate) -> Tensor:
        """Waveform [S] of a candidate."""
        assert candidate.said is not None
        if candidate.wav is None:
            if candidate.codes is None:
                candidate.codes = self.refine(candidate.request, candidate.said)
            candidate.wav = self._decode(candidate.codes)
        return candidate.wav

    @torch.inference_mode()
    def _decode(self, codes: Tensor) -> Tensor:
        """Waveform [S] of `codes` [n, T], with the time-invariant codes of the voice (TiCodec, section 2.2)."""
        ti = None if self.voice.time_invariant is None else self.voice.time_invariant[None]
        speech = SpeechCodes(codes[None], torch.tensor([codes.shape[1]]), ti)
        device = next(self.bundle.codec.parameters()).device
        return self.bundle.codec.decode(speech.to(device))[0, 0].cpu()

    def _emit(self, wav: Tensor, ended: SpokenPiece | None = None) -> None:
        """Give audio: more of the current piece, or, where it has `ended`, what was held back of it."""
        if ended is None:
            wav = self._joiner.add(self._leveller.add(wav))
        else:
            self._leveller.end()
        self._samples += len(wav)
        wav = self._limiter.add(wav)
        if len(wav) and self._first_chunk is None:
            self._first_chunk = time.perf_counter() - self.started
        if len(wav) or ended is not None:
            self._chunks.append(SpeechChunk(wav, self._joiner.sample_rate, piece=ended))

    def _outcome(self) -> Outcome:
        seconds = self._samples / self._joiner.sample_rate
        took = time.perf_counter() - self.started
        complete = "end_of_text" if self.bundle.ar.config.aligned else "eos"
        faults = [
            f"sentence {number} {FAULTS[piece.fault]}; try another seed: “{piece.text[:60]}”"
            for number, piece in enumerate(self.spoken, start=1)
            if piece.fault and piece.fault != "unreadable"
        ]
        return Outcome(
            seconds=seconds,
            stop_reason="max_length" if any(piece.fault == "max_length" for piece in self.spoken) else complete,
            seed=self.options.seed,
            retries=self._retries,
            real_time_factor=took / max(seconds, 1e-9),
            first_chunk_seconds=took if self._first_chunk is None else self._first_chunk,
            notes=[*self._notes, *faults],
            pieces=self.spoken,
        )


class _Live:
    """The sentence of a stream that is being heard: its frames become audio while more of them come.

    The other quantizers of a frame and its audio wait for what follows it. What has been heard is never changed:
    to the NAR model it is as well known as the prompt.
    """

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        spec = utterance.bundle.codec.spec
        self.chunk, self.first = int(CHUNK_SECONDS * spec.frame_rate), int(FIRST_SECONDS * spec.frame_rate)
        self.nar_future = 0 if utterance.bundle.refiner is None else int(NAR_FUTURE_SECONDS * spec.frame_rate)
        reach = utterance.bundle.codec.reach
        self.wait = self.first + self.nar_future + (reach.future if reach else 0)
        self.piece: Piece | None = None
        self.emitted = 0

    @torch.inference_mode()
    def advance(self, piece: Piece, decoder: Decoder) -> Tensor:
        """New audio [S] of the current `piece`, if enough frames have come since the last."""
        if piece is not self.piece:
            self.piece, self.stream, self.emitted = piece, self.utterance.open_stream(), 0
            self.codes = torch.zeros(self.utterance.quantizers, 0).long()
        candidate = piece.chosen or (piece.candidates[-1] if piece.candidates else None)
        if candidate is None or (piece.chosen is None and not self._enough(candidate.row)):
            return torch.zeros(0)
        if candidate.said is not None:
            said = candidate.said
        else:
            assert candidate.row is not None
            said = decoder.so_far(candidate.row)
        if piece.chosen is None and len(said.codes) - self.nar_future <= self.codes.shape[1]:
            return torch.zeros(0)
        codes = self.utterance.refine(candidate.request, said, self.codes)
        certain = codes.shape[1] if piece.chosen else codes.shape[1] - self.nar_future
        new, self.codes = codes[:, self.codes.shape[1] : certain], codes[:, :certain]
        return self._audio(new, last=piece.chosen is not None)

    def _enough(self, row: Row | None) -> bool:
        if row is None or row.said is not None or self.stream is None:
            return False
        return row.frames >= (self.wait if not self.emitted else self.codes.shape[1] + self.nar_future + self.chunk)

    def _audio(self, codes: Tensor, last: bool) -> Tensor:
        device = next(self.utterance.bundle.codec.parameters()).device
        if self.stream is None:
            ti = self.utterance.voice.time_invariant
            speech = SpeechCodes(codes[None], torch.tensor([codes.shape[1]]), None if ti is None else ti[None])
            wav = self.utterance.bundle.codec.decode(speech.to(device))[0, 0]
        else:
            wav = self.stream.push(codes.to(device))
            if last:
                wav = torch.cat((wav, self.stream.finish()))
        self.emitted += len(wav)
        return wav.cpu()
