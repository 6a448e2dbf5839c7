"""A picture of how fast decoding is: throughput over batch size, with the limit of the memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from valle.bench.decoding import Decoding
from valle.common.files import writing


def draw(path: Path, rows: Sequence[Decoding]) -> None:
    """Write a PNG: one panel for each model size, one line for each precision and prompt, its limit dashed."""
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(row.size for row in rows))
    figure = Figure(figsize=(5 * max(1, len(sizes)), 4), layout="constrained")
    for axis, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        of_size = [row for row in rows if row.size == size]
        for kind in dict.fromkeys((row.precision, row.prompt_seconds) for row in of_size):
            line = sorted((r for r in of_size if (r.precision, r.prompt_seconds) == kind), key=lambda r: r.batch)
            batches = [row.batch for row in line]
            speeds = [row.tokens_per_second for row in line]
            limits = [row.tokens_per_second / row.share_of_limit for row in line]
            (drawn,) = axis.plot(batches, speeds, "o-", label=f"{kind[0]}, prompt {kind[1]:g} s")
            axis.plot(batches, limits, "--", color=drawn.get_color(), alpha=0.5)
        axis.set(xscale="log", yscale="log", xlabel="texts at once", ylabel="frames per second", title=size)
        axis.legend()
    figure.suptitle("dashed: reading weights and cache at the measured bandwidth", fontsize=9)
    with writing(path):
        figure.savefig(path)
