"""How fast a training config runs on this device, and from that, how long corpora take on many devices.

Measured are real steps (forward, backward, AdamW) on invented batches of the config's size. The arithmetic:

    work of a step    6 x (weights in matrix products) x positions + 12 x layers x width x (positions of an utterance)²
                      for the attention of each, forward and backward (PaLM, arXiv 2204.02311, appendix B)
    MFU               work per second / what a plain matrix product of this device reaches, measured here
    memory of a GPU   weights, gradients and Adam (16 bytes a weight, which ZeRO splits) + what backward needs

Shapes: B utterances, L text tokens, T frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from valle.bench.bandwidth import synchronize
from valle.bench.memory import peak_bytes
from valle.common.optim import OptimConfig, build_optimizer
from valle.data.batch import LMBatch
from valle.lm.ar import ARModel
from valle.lm.config import LMConfig
from valle.lm.task import ARTask, LMTask, NARTask, StartConfig

UTTERANCE_SECONDS = 10.0
TEXT_TOKENS_PER_SECOND = 15.0
"""Phonemes and boundaries of read English."""
TASKS: dict[str, Callable[..., LMTask]] = {"ar": ARTask, "nar": NARTask}
BYTES_PER_WEIGHT = {0: (16.0, 0.0), 1: (4.0, 12.0), 2: (2.0, 14.0), 3: (0.0, 16.0)}
"""By ZeRO stage: on each GPU, and split between all. Stage 0 is one GPU, or DDP."""


@dataclass(frozen=True)
class TrainSpeed:
    """What was measured, and what follows from the config alone."""

    parameters: int
    batch_seconds: float
    frame_rate: float
    step_seconds: float
    work: float
    """Floating-point operations of a step."""
    matmul: float
    """Operations per second of a plain matrix product."""
    activation_bytes: float
    """What the backward pass of a step needs of the forward pass."""
    peak_bytes: float
    """Most memory: of the GPU, or of the process."""

    @property
    def realtime(self) -> float:
        """Seconds of speech trained per second."""
        return self.batch_seconds / self.step_seconds

    @property
    def frames_per_second(self) -> float:
        return self.realtime * self.frame_rate

    @property
    def achieved(self) -> float:
        """Operations per second of the training step."""
        return self.work / self.step_seconds

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: share of the matrix-product speed that the step reaches."""
        return self.achieved / self.matmul

    def epoch_hours(self, hours: float, devices: int, achieved: float | None = None, efficiency: float = 0.9) -> float:
        """Hours for one pass over `hours` of speech on `devices` like this, or with `achieved` operations per second.

        `efficiency` is what communication leaves of each device when there are several.
        """
        faster = 1.0 if achieved is None else achieved / self.achieved
        return hours / (self.realtime * faster * devices * (efficiency if devices > 1 else 1.0))

    def gpu_bytes(self, devices: int, stage: int) -> float:
        """Memory of each GPU for this batch."""
        own, split = BYTES_PER_WEIGHT[stage]
        return self.parameters * (own + split / devices) + self.activation_bytes


def measure(
    kind: str,
    config: LMConfig,
    batch_seconds: float,
    frame_rate: float,
    *,
    device: str = "cpu",
    bf16: bool = False,
    recompute: bool = False,
    steps: int = 5,
) -> TrainSpeed:
    """Run `steps` training steps after two to warm up; the median counts."""
    torch.manual_seed(0)
    task = TASKS[kind](config, start=StartConfig(recompute_activations=recompute)).to(device).train()
    optimizer = build_optimizer(task.model, OptimConfig())
    batch = invented_batch(config, batch_seconds, frame_rate).to(device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    saved = _saved_bytes(task, batch, device, bf16)
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        with _precision(device, bf16):
            loss = task.losses(batch, "train")["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(torch.device(device))
        times.append(time.perf_counter() - start)
    return TrainSpeed(
        parameters=sum(p.numel() for p in task.model.parameters()),
        batch_seconds=float(batch.code_lengths.sum()) / frame_rate,
        frame_rate=frame_rate,
        step_seconds=sorted(times[2:])[steps // 2],
        work=step_work(task.model, config, batch),
        matmul=matmul_speed(device, bf16),
        activation_bytes=saved,
        peak_bytes=_peak_bytes(device),
    )


def data_wait(loader: Iterable[Any], step_seconds: float, batches: int) -> float:
    """Share of the time that a device would wait for data, if its steps took `step_seconds`."""
    stream, waited = iter(loader), 0.0
    next(stream)  # starts the workers
    for done in range(batches):
        time.sleep(step_seconds)
        start = time.perf_counter()
        if next(stream, None) is None:
            batches = done + 1
            break
        waited += time.perf_counter() - start
    return waited / (waited + batches * step_seconds)


def invented_batch(config: LMConfig, batch_seconds: float, frame_rate: float) -> LMBatch:
    """Utterances of 10 s (or one shorter one) that fill `batch_seconds`."""
    seconds = min(UTTERANCE_SECONDS, batch_seconds)
    size = max(1, int(batch_seconds / seconds))
    frames, length = int(seconds * frame_rate), max(2, int(seconds * TEXT_TOKENS_PER_SECOND))
    g = torch.Generator().manual_seed(0)
    voice = None
    if config.n_time_invariant:
        voice = torch.randint(config.time_invariant_size, (size, config.n_time_invariant), generator=g)
    durations = torch.full((size, length), frames // length)
    durations[:, -1] += frames - durations[0].sum()
    return LMBatch(
        phonemes=torch.randint(1, config.text_vocab_size, (size, length), generator=g),
        phoneme_lengths=torch.full((size,), length),
        codes=torch.randint(config.codebook_size, (size, config.n_q, frames), generator=g),
        code_lengths=torch.full((size,), frames),
        time_invariant=voice,
        durations=durations if config.aligned else None,
    )


def step_work(model: nn.Module, config: LMConfig, batch: LMBatch) -> float:
    """Floating-point operations of forward and backward, without what is computed twice to save memory."""
    steps = -(-batch.codes.shape[2] // (model.config.group_size if isinstance(model, ARModel) else 1))
    positions = steps + batch.phonemes.shape[1] + config.n_time_invariant
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    if hasattr(model, "codes"):
        weights += config.codebook_size * config.dim  # the NAR's output layer is the table of its codes
    attention = 12 * config.layers * config.dim * positions**2
    return float(len(batch) * (6 * weights * positions + attention))


def matmul_speed(device: str, bf16: bool, size: int | None = None) -> float:
    """Operations per second of a square matrix product, the best of ten."""
    size = size or (8192 if device.startswith("cuda") else 1536)
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    best = float("inf")
    for _ in range(10):
        synchronize(torch.device(device))
        start = time.perf_counter()
        a @ a
        synchronize(torch.device(device))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _saved_bytes(task: LMTask, batch: LMBatch, device: str, bf16: bool) -> float:
    """Bytes that autograd keeps between forward and backward.

    Left out are the weights and their copies in bf16, which do not grow with the batch, and the attention of all
    positions to all: on CPUs it may be kept, on GPUs it never is.
    """
    positions = batch.codes.shape[2] + batch.phonemes.shape[1] + task.config.n_time_invariant
    known = {p.untyped_storage().data_ptr() for p in task.parameters()}
    shapes = {shape for p in task.parameters() for shape in (p.shape, p.shape[::-1])}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        square = tensor.dim() > 2 and tensor.shape[-1] == tensor.shape[-2] and tensor.shape[-1] >= positions
        if storage.data_ptr() not in known and tensor.shape not in shapes and not square:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _precision(device, bf16):
        task.losses(batch, "train")["loss"].backward()
    task.zero_grad(set_to_none=True)
    return float(sum(sizes.values()))


def _precision(device: str, bf16: bool) -> Any:
    return torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()


def _peak_bytes(device: str) -> float:
    return float(torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else peak_bytes())
