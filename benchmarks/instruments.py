"""Whether the evaluation's instruments measure what they should.

python -m benchmarks.instruments noise --recordings 10 --naturalness dnsmos --out docs/pictures/noise.png
python -m benchmarks.instruments reading --recordings 20

noise:    white noise is added to real recordings, and what each metric makes of it plotted: it must move, the right way
reading:  a word is cut out of real recordings, or doubled, and the judge of skips and repeats must notice
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from valle.common.audio import load_audio
from valle.common.errors import UserError
from valle.common.files import check_writable
from valle.common.tables import plain_table
from valle.eval.judges.codec_metrics import find_metric
from valle.eval.judges.judging import SAMPLE_RATE, JudgeNames, Judges
from valle.eval.judges.measure import measure
from valle.eval.judges.reading import SHORT, ReadingJudge
from valle.eval.judges.similarity import embed_all, likeness
from valle.eval.judges.text import score_text
from valle.eval.protocols import RECORDINGS, Recording, Word, WordTimer, read_list
from valle.eval.results import Row, find_figure, summarise
from valle.eval.stats import estimate

SNRS = (40.0, 30.0, 20.0, 10.0, 0.0)
"""Of white noise, in dB; the first stands for clean."""


@dataclass(frozen=True)
class Curve:
    """A metric's means over the recordings, at each of `snrs` (dB, from clean to noisy)."""

    metric: str
    snrs: tuple[float, ...]
    values: list[float]

    @property
    def falls(self) -> bool:
        """Whether more noise is never better."""
        sign = 1 if find_figure(self.metric).higher_is_better else -1
        return all(sign * a >= sign * b for a, b in zip(self.values, self.values[1:], strict=False))


def noise_curves(
    recordings: Sequence[Recording], judges: Judges, metrics: Sequence[str], snrs: Sequence[float] = SNRS, seed: int = 0
) -> list[Curve]:
    """WER, likeness to the clean recording, naturalness and the codec metrics called `metrics`, at each of `snrs`."""
    clean = [load_audio(recording.path, SAMPLE_RATE) for recording in recordings]
    voices = embed_all(judges.speaker_model, clean, SAMPLE_RATE)
    values: dict[str, list[float]] = {}
    for snr in snrs:
        noisy = [with_noise(wav, snr, seed + i) for i, wav in enumerate(clean)]
        found = judges.judge(noisy, [recording.text for recording in recordings])
        rows = [
            Row(
                {
                    **score_text(recording.text, judgement.heard).columns(),
                    "sim": likeness(voice, judgement.voice).value,
                    **judgement.naturalness_columns(),
                }
            )
            for recording, voice, judgement in zip(recordings, voices, found, strict=True)
        ]
        for name, figure in summarise(rows).items():
            if name != "cer":  # it tells nothing that wer does not
                values.setdefault(name, []).append(figure.value)
        for name in metrics:
            scores = [measure(find_metric(name), a, b, SAMPLE_RATE).value for a, b in zip(clean, noisy, strict=True)]
            values.setdefault(name, []).append(estimate(scores).value)
    return [Curve(name, tuple(snrs), row) for name, row in values.items()]


def with_noise(wav: Tensor, snr: float, seed: int) -> Tensor:
    """`wav` [S] with white noise `snr` dB below its power."""
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(seed))
    return wav + noise * wav.square().mean().sqrt() * 10 ** (-snr / 20)


def plot_curves(curves: Sequence[Curve], path: Path) -> None:
    """A PNG or SVG with a panel for each curve."""
    from matplotlib.figure import Figure

    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(2.4 * columns, 1.7 * rows), layout="constrained")
    for i, curve in enumerate(curves):
        axis = figure.add_subplot(rows, columns, i + 1)
        shown = find_figure(curve.metric)
        scale = 100 if shown.percent else 1
        axis.plot(curve.snrs, [scale * value for value in curve.values], marker="o", markersize=3)
        axis.invert_xaxis()
        axis.set_title(f"{shown.label}{', %' if shown.percent else ''}", fontsize=8)
        axis.set_xlabel("noise, dB SNR", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(path)


@dataclass(frozen=True)
class ReadingCheck:
    """How often the judge of skips and repeats is right: counts over `n` recordings."""

    n: int
    false_skips: int
    false_repeats: int
    found_skips: int
    found_repeats: int

    def __str__(self) -> str:
        return (
            f"{self.n} recordings: as they are, a skipped word is heard in {self.false_skips}, a repeated one in "
            f"{self.false_repeats}; with a word cut out the skip is found in {self.found_skips}, with one doubled "
            f"the repeat in {self.found_repeats}"
        )


def check_reading(recordings: Sequence[Recording], seed: int = 0) -> ReadingCheck:
    """Try the judge on `recordings`; those with words that are not in the dictionary are passed over."""
    judge, timer = ReadingJudge(), WordTimer()
    found = []
    for recording in recordings:
        words = timer(recording) or []
        inner = [word for word in words[1:-1] if len(word.text) > SHORT]
        if not inner:
            continue
        wav = load_audio(recording.path, SAMPLE_RATE)
        word = random.Random(f"{seed}/{recording.id}").choice(inner)
        real = judge(wav, recording.text)
        skipped = judge(_cut(wav, word), recording.text).skipped
        repeated = judge(_doubled(wav, word), recording.text).repeated
        found.append((bool(real.skipped), bool(real.repeated), bool(skipped), bool(repeated)))
    return ReadingCheck(len(found), *(sum(case[i] for case in found) for i in range(4)))


def _cut(wav: Tensor, word: Word) -> Tensor:
    start, end = _samples(word)
    return torch.cat((wav[:start], wav[end:]))


def _doubled(wav: Tensor, word: Word) -> Tensor:
    start, end = _samples(word)
    return torch.cat((wav[:end], wav[start:end], wav[end:]))


def _samples(word: Word) -> tuple[int, int]:
    return round(word.start * SAMPLE_RATE), round(word.end * SAMPLE_RATE)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the two checks."""
    parser = argparse.ArgumentParser("python -m benchmarks.instruments", description=__doc__.splitlines()[0])
    checks = parser.add_subparsers(dest="check", required=True)
    for name in ("noise", "reading"):
        check = checks.add_parser(name)
        check.add_argument(
            "--list", type=Path, metavar="TSV", help="recordings: id path speaker text (default: shipped)"
        )
        check.add_argument("--recordings", type=int, metavar="N", help="how many of them (default: all)")
        check.add_argument("--seed", type=int, default=0, help="of the noise, or of the choice of words (default: 0)")
        if name == "noise":
            add = check.add_argument
            add("--metrics", nargs="*", default=["stoi", "pesq", "mcd"], metavar="M", help="(default: stoi pesq mcd)")
            add(
                "--naturalness", nargs="+", default=[], metavar="N", help="dnsmos utmos=FILE nisqa=FILE (default: none)"
            )
            add("--out", type=Path, required=True, metavar="PNG", help="plot to write")
    args = parser.parse_args(argv)
    try:
        _run(args)
    except UserError as error:
        parser.error(str(error))


def _run(args: argparse.Namespace) -> None:
    listed = read_list(args.list or RECORDINGS)
    n = len(listed) if args.recordings is None else args.recordings
    if not 1 <= n <= len(listed):
        raise UserError(f"--recordings must be 1 to {len(listed)}, got {n}")
    chosen = [listed[i * len(listed) // n] for i in range(n)]  # at even steps, so that all speakers are among them
    if args.check == "reading":
        print(check_reading(chosen, args.seed))
        return
    check_writable(args.out, (".png",))
    judges = Judges.build(JudgeNames(naturalness=tuple(args.naturalness), reading=False))
    curves = noise_curves(chosen, judges, args.metrics, seed=args.seed)
    plot_curves(curves, args.out)
    verdict = {True: "falls with the noise", False: "DOES NOT FALL with the noise"}
    print(plain_table([(c.metric, *(f"{value:.3f}" for value in c.values), verdict[c.falls]) for c in curves]))
    print(f"wrote {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
