"""Exponential moving average of the weights: validation, checkpoints and the finished model use the average."""

from __future__ import annotations

from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Lightning's `WeightAveraging` with a decay that grows to `decay`.

    A fixed decay of 0.999 would carry the random initial weights through the first thousand steps; here step n uses
    min(decay, (n + 1) / (n + 10)).
    """

    def __init__(self, decay: float = 0.999) -> None:
        # Buffers are constants of the configuration here; copying them keeps their types.
        super().__init__(use_buffers=False, avg_fn=self._average)
        self.decay = decay

    def _average(self, average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        decay = min(self.decay, (int(updates) + 1) / (int(updates) + 10))
        # Where the model itself is in bf16 (DeepSpeed), its average is in float32 all the same.
        return average.lerp(current.to(average.dtype), 1 - decay)
