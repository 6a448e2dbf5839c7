"""Word and character error rates, and what exactly went wrong: `score_text`."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

import jiwer

from valle.common.errors import UserError
from valle.tokenizers.text.normalise import normalise

_EDGE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")
_MIN_SKIPPED_WORDS = 2
_TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor"}
"""Recognisers write them without the period by which the text rules know them."""


@dataclass(frozen=True)
class ErrorCount:
    """Edits that turn the reference into the hypothesis, in words or in characters."""

    substitutions: int
    deletions: int
    insertions: int
    length: int
    """Words or characters (spaces included) of the reference."""

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """0 is perfect; insertions can take it above 1."""
        return self.errors / self.length


@dataclass(frozen=True)
class TextScore:
    """A transcript beside the text that should have been said."""

    reference: str
    """As compared: see `normalise_for_scoring`."""
    hypothesis: str
    words: ErrorCount
    characters: ErrorCount
    diff: str
    """Words in wdiff's notation: `the [-quick-] brown {+red+} fox`."""
    skipped: list[str] = field(default_factory=list)
    """Stretches of the text that are missing: two or more words in a row (one alone is more often misheard), or all."""
    repeated: list[str] = field(default_factory=list)
    """Words said again right after themselves though the text does not repeat them."""

    def columns(self) -> dict[str, str | float | None]:
        """For a `valle.eval.results.Row`: what was heard."""
        return {
            "wer": self.words.rate,
            "cer": self.characters.rate,
            "words": self.words.length,
            "characters": self.characters.length,
            "substitutions": self.words.substitutions,
            "deletions": self.words.deletions,
            "insertions": self.words.insertions,
            "diff": self.diff,
            "heard_skipped": " | ".join(self.skipped),
            "heard_repeated": " | ".join(self.repeated),
        }


def normalise_for_scoring(text: str, language: str = "en-us") -> str:
    """What is compared, the same for reference and hypothesis.

    Numbers, symbols and abbreviations are spelled out (`valle.tokenizers.text.normalise`), all is lower case, hyphens
    and dashes separate words, other punctuation goes. Apostrophes stay within words (don't, man's) and go elsewhere.
    """
    text = normalise(text, language).lower()
    # Categories, not \w: the vowel signs of Indic scripts are marks.
    text = "".join(c if unicodedata.category(c)[0] in "LMN" or c == "'" else " " for c in text)
    return " ".join(_TITLES.get(word, word) for word in _EDGE_APOSTROPHE.sub(" ", text).split())


def score_text(reference: str, hypothesis: str, language: str = "en-us") -> TextScore:
    """Compare a transcript with the text that should have been said. Raises `UserError` for a text without words."""
    wanted, heard = normalise_for_scoring(reference, language), normalise_for_scoring(hypothesis, language)
    if not wanted:
        raise UserError(f"the reference text '{reference}' has no words to score; give a sentence")
    if not heard:  # jiwer's own treatment of empty strings has changed between its versions
        words, characters = ErrorCount(0, len(wanted.split()), 0, len(wanted.split())), len(wanted)
        return TextScore(wanted, "", words, ErrorCount(0, characters, 0, characters), f"[-{wanted}-]", skipped=[wanted])
    by_word = jiwer.process_words(wanted, heard)
    chunks, ref, hyp = by_word.alignments[0], by_word.references[0], by_word.hypotheses[0]
    return TextScore(
        reference=wanted,
        hypothesis=heard,
        words=_count(by_word, len(ref)),
        characters=_count(jiwer.process_characters(wanted, heard), len(wanted)),
        diff=" ".join(_marked(chunk, ref, hyp) for chunk in chunks),
        skipped=_skipped(chunks, ref),
        repeated=_repeated(chunks, hyp),
    )


def _count(output: jiwer.WordOutput | jiwer.CharacterOutput, length: int) -> ErrorCount:
    return ErrorCount(output.substitutions, output.deletions, output.insertions, length)


def _marked(chunk: jiwer.AlignmentChunk, ref: list[str], hyp: list[str]) -> str:
    wanted = " ".join(ref[chunk.ref_start_idx : chunk.ref_end_idx])
    heard = " ".join(hyp[chunk.hyp_start_idx : chunk.hyp_end_idx])
    if chunk.type == "equal":
        return wanted
    return " ".join(part for part in (wanted and f"[-{wanted}-]", heard and f"{{+{heard}+}}") if part)


def _skipped(chunks: list[jiwer.AlignmentChunk], ref: list[str]) -> list[str]:
    deleted = [ref[c.ref_start_idx : c.ref_end_idx] for c in chunks if c.type == "delete"]
    return [" ".join(words) for words in deleted if len(words) >= _MIN_SKIPPED_WORDS]


def _repeated(chunks: list[jiwer.AlignmentChunk], hyp: list[str]) -> list[str]:
    found = []
    for chunk in chunks:
        if chunk.type != "insert":
            continue
        # Of two equal stretches the alignment may call either one the insertion: look at both neighbours.
        start, end = chunk.hyp_start_idx, chunk.hyp_end_idx
        for n in range(end - start, 0, -1):
            if start >= n and hyp[start : start + n] == hyp[start - n : start]:
                found.append(" ".join(hyp[start : start + n]))
                break
            if hyp[end - n : end] == hyp[end : end + n]:
                found.append(" ".join(hyp[end - n : end]))
                break
    return found
