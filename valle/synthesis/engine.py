"""Many texts at once: `Engine` drives their sentences through one continuously batched decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from valle.common.errors import UserError
from valle.lm import ARModel, Decoder, Row, Sampling
from valle.lm.kv_cache import Prefills
from valle.synthesis.model import Bundle
from valle.synthesis.options import SynthesisOptions
from valle.synthesis.prompt import Voice
from valle.synthesis.result import SpokenPiece
from valle.synthesis.utterance import Candidate, Utterance

ROWS = 8
"""Sentences spoken at once."""
STREAM_AHEAD = 2
"""Sentences of a stream that are spoken at once: the one that is heard, and the next."""


class Engine:
    """Speaks texts as they come in; each sounds as it would alone.

        engine.submit("Any sentence.", voice, stream=True)
        while engine.busy:
            for utterance in engine.step():
                play(utterance.take_chunks())

    A step decodes one frame of every sentence that is being spoken, and makes audio where enough frames have come.
    Not safe for use by several threads at once: give it a thread of its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        sampling: Sampling | None = None,
        rows: int = ROWS,
        stepper: ARModel | None = None,
        prefills: Prefills | None = None,
    ) -> None:
        self.bundle, self.sampling = bundle, sampling or bundle.sampling
        self.decoder = Decoder(bundle.ar, self.sampling, rows, stepper, prefills)
        self._utterances: list[Utterance] = []
        self._candidates: dict[Row, tuple[Utterance, Candidate]] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is not done."""
        return bool(self._utterances)

    def submit(
        self,
        text: str,
        voice: Voice,
        options: SynthesisOptions = SynthesisOptions(),
        stream: bool = False,
        known: Sequence[SpokenPiece] = (),
        retry_faulty: bool = False,
        **changes: Any,
    ) -> Utterance:
        """Ask for `text`. The same arguments give the same speech, whatever else is being spoken.

        options: how, the sampling being that of the engine or None; `changes` are some of them by their names
        stream, known, retry_faulty: see `Utterance`
        Raises `UserError` for a text that cannot be spoken.
        """
        options = replace(options, **{"sampling": options.sampling or self.sampling, **changes})
        utterance = Utterance(self.bundle, text, voice, options, stream, known, retry_faulty)
        self.add(utterance)
        return utterance

    def add(self, utterance: Utterance) -> None:
        """Speak it, too. Raises `ValueError` for one with other sampling: that is the same for all rows."""
        if utterance.sampling != self.sampling:
            raise ValueError("an engine has one sampling for all that it speaks")
        self._utterances.append(utterance)

    def cancel(self, utterance: Utterance) -> None:
        """Forget an utterance; its rows are free at once. Nothing happens if it is done."""
        for row, (owner, _) in list(self._candidates.items()):
            if owner is utterance:
                self.decoder.leave(row)
                del self._candidates[row]
        if utterance in self._utterances:
            self._utterances.remove(utterance)

    def step(self) -> list[Utterance]:
        """Speak one frame of everything; gives the utterances that have new chunks, or have failed."""
        utterances = list(self._utterances)
        self._fill()
        for row in self.decoder.step():
            utterance, candidate = self._candidates.pop(row)
            assert row.said is not None
            utterance.finish(candidate, row.said)
        for utterance in utterances:
            if utterance.error is None:
                utterance.advance(self.decoder)
            if utterance.done or utterance.error is not None:
                self.cancel(utterance)
        return [utterance for utterance in utterances if utterance.has_chunks or utterance.error is not None]

    def _fill(self) -> None:
        """Give the free rows to the utterances that have the fewest."""
        waiting = list(self._utterances)
        while self.decoder.free and waiting:
            owners = [owner for owner, _ in self._candidates.values()]
            utterance = min(waiting, key=owners.count)
            try:
                candidate = utterance.next_candidate(STREAM_AHEAD if utterance.streams else self.decoder.capacity)
            except UserError as error:
                utterance.error, candidate = error, None
            if candidate is None:
                waiting.remove(utterance)
                continue
            candidate.row = self.decoder.enter(candidate.request)
            self._candidates[candidate.row] = (utterance, candidate)
