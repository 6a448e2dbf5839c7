"""Speaking some requests with the AR model, all at once: `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from valle.lm.ar import ARModel
from valle.lm.decoder import Decoder
from valle.lm.request import Generated, Request
from valle.lm.sampling import Sampling

Progress = Callable[[int], None]
"""Called after each step with the number of steps so far."""


def generate(
    model: ARModel,
    requests: Sequence[Request],
    sampling: Sampling,
    progress: Progress | None = None,
    stepper: ARModel | None = None,
) -> list[Generated]:
    """Decode the first quantizer of each request. The model must be in eval mode; `stepper`: see `Decoder`."""
    decoder = Decoder(model, sampling, len(requests), stepper)
    rows = [decoder.enter(request) for request in requests]
    while decoder.rows:
        decoder.step()
        if progress is not None:
            progress(decoder.steps)
    return [row.said for row in rows if row.said is not None]
