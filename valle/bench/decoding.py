"""How fast the AR model decodes, beside the limit of the memory and beside decoding without a cache.

Shapes: L text tokens, T' prompt frames.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from valle.bench.bandwidth import read_bandwidth, synchronize, timings
from valle.bench.memory import peak_bytes
from valle.lm import ARConfig, ARModel, Decoder, Request, Sampling
from valle.lm.ar_step import BLOCK
from valle.lm.precision import Fp16Linear, Int8Linear, for_steps

TOKENS_PER_SECOND = 13
"""Phonemes and word boundaries of English speech."""
NO_CACHE_LENGTHS = 5
"""Lengths at which a pass without a cache is timed; what lies between is interpolated."""
PAPER = ARConfig(
    text_vocab_size=512,
    codebook_size=1024,
    n_q=8,
    reusable_prompt=True,
    dim=1024,
    layers=12,
    heads=16,
    ff=2752,
    dropout=0.0,
    ti_dropout=0.0,
)
"""VALL-E's size (12 x 1024, 16 heads); SwiGLU of 2752 has the weights of its feed-forward layer of 4096."""
PAPER_FRAME_RATE = 75.0


@dataclass(frozen=True)
class Case:
    """What is measured: `batch` texts of `seconds` each after prompts of `prompt_seconds`."""

    size: str
    precision: str
    batch: int
    prompt_seconds: float
    seconds: float


@dataclass(frozen=True)
class Decoding:
    """What was measured of a case."""

    size: str
    precision: str
    device: str
    threads: int
    batch: int
    prompt_seconds: float
    seconds: float
    parameters: int
    prefill_ms: float
    """Reading text and prompt of one request, of a voice that was not heard before."""
    next_prefill_ms: float
    """The same of another text in that voice."""
    step_ms: float
    """Median."""
    graphs: bool
    """Whether steps were replayed from CUDA graphs; those that record one count as steps, too."""
    tokens_per_second: float
    """Frames of the first quantizer, of all texts together."""
    real_time_factor: float
    """Seconds of decoding (prefill and steps) per second of speech of one text; the batch speaks as many at once."""
    bytes_per_step: int
    """Weights, and keys and values halfway through."""
    bandwidth_gb_s: float
    """Of reading as many bytes; on CUDA at least 1 GiB."""
    share_of_limit: float
    """Time that reading takes over the time of a step, both in their medians."""
    peak_memory_mb: float
    """On a GPU of this case; on a CPU the process's until now."""
    no_cache_seconds: float | None = None
    """The same frames by passes over everything so far, in fp32: what implementations without a cache do."""
    speedup: float | None = None
    """Over that, prefill included."""


def measure(model: ARModel, case: Case, frame_rate: float, no_cache: bool = False) -> Decoding:
    """Time one case. `no_cache`: also by recomputing, which takes long."""
    device = model.code.weight.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    stepper = for_steps(model, case.precision)
    frames, group = int(case.seconds * frame_rate), model.config.group_size
    decoder = Decoder(model, _endless(frames), case.batch, stepper)

    def read(texts: list[Request]) -> float:
        """Seconds for each."""
        for row in list(decoder.rows):
            decoder.leave(row)
        synchronize(device)
        start = time.perf_counter()
        for request in texts:
            decoder.enter(request)
        synchronize(device)
        return (time.perf_counter() - start) / len(texts)

    # A GPU loads kernels when they are first used: none of them shall be part of a prefill.
    read([_request(model.config, case, frame_rate, case.batch)])
    decoder.step()
    requests = [_request(model.config, case, frame_rate, seed) for seed in range(case.batch)]
    prefill = read(requests)
    again = read([_request(model.config, case, frame_rate, seed, text=1) for seed in range(case.batch)])
    times = []
    for _ in range(-(-frames // group)):
        start = time.perf_counter()
        finished = decoder.step()
        synchronize(device)
        times.append(time.perf_counter() - start)
        for row in finished:  # an aligned model cannot be kept from coming to the end of a text
            decoder.enter(row.request)
    step = statistics.median(times)
    size = step_bytes(stepper, case, frame_rate)
    bandwidth = read_bandwidth(size, device)
    total, recomputed = prefill * case.batch + sum(times), None
    if no_cache:
        recomputed = case.batch * _without_cache(model, requests[0], frames)
    return Decoding(
        size=case.size,
        precision=case.precision,
        device=device.type,
        threads=torch.get_num_threads(),
        batch=case.batch,
        prompt_seconds=case.prompt_seconds,
        seconds=case.seconds,
        parameters=sum(p.numel() for p in model.parameters()),
        prefill_ms=round(1e3 * prefill, 2),
        next_prefill_ms=round(1e3 * again, 2),
        step_ms=round(1e3 * step, 3),
        graphs=decoder.graphs.replays > 0,
        tokens_per_second=round(case.batch * group / step, 1),
        real_time_factor=round(total / case.seconds, 3),
        bytes_per_step=size,
        bandwidth_gb_s=round(bandwidth / 1e9, 2),
        share_of_limit=float(f"{size / bandwidth / step:.3g}"),
        peak_memory_mb=round(_peak_memory(device) / 1e6),
        no_cache_seconds=None if recomputed is None else round(recomputed, 2),
        speedup=None if recomputed is None else round(recomputed / total, 1),
    )


def paper_model(device: torch.device, group_size: int = 1) -> ARModel:
    """A plain AR model of the paper's size with random weights."""
    torch.manual_seed(0)
    return ARModel(replace(PAPER, group_size=group_size)).to(device).eval()


def step_bytes(stepper: ARModel, case: Case, frame_rate: float) -> int:
    """What a step must read: all weights but the tables of embeddings, and the keys and values halfway through."""
    weights = 0
    for module in (stepper.group, stepper.transformer, stepper.code_head):
        for part in module.modules():
            if isinstance(part, (nn.Linear, nn.LayerNorm, Int8Linear)):
                tensors = (*part.parameters(recurse=False), *part.buffers(recurse=False))
                weights += sum(t.numel() * t.element_size() for t in tensors)
            elif isinstance(part, Fp16Linear):
                weights += part.weight_bytes
    config = stepper.config
    steps = int((case.prompt_seconds + case.seconds / 2) * frame_rate) // config.group_size
    halfway = steps + _tokens(case) + config.n_time_invariant
    halfway = -(-halfway // BLOCK) * BLOCK
    stored = 4 if stepper.code.weight.device.type == "cpu" else stepper.code.weight.element_size()
    each = 2 * config.layers * config.dim * stored
    return weights + case.batch * halfway * each


def _tokens(case: Case) -> int:
    return int((case.prompt_seconds + case.seconds) * TOKENS_PER_SECOND)


def _request(config: ARConfig, case: Case, frame_rate: float, seed: int, text: int = 0) -> Request:
    """A random text with a random prompt; the same prompt for all texts of a seed."""
    drawn = torch.Generator().manual_seed(seed)
    prompt_tokens, frames = int(case.prompt_seconds * TOKENS_PER_SECOND), int(case.prompt_seconds * frame_rate)
    phonemes = torch.randint(11, config.text_vocab_size, (_tokens(case),), generator=drawn)
    phonemes[prompt_tokens:] = phonemes[prompt_tokens:].roll(text)
    voice = None
    if config.n_time_invariant:
        voice = torch.randint(0, config.time_invariant_size, (config.n_time_invariant,), generator=drawn)
    if not prompt_tokens:
        return Request(phonemes, voice, seed=seed)
    codes = torch.randint(0, config.codebook_size, (config.n_q, frames), generator=drawn)
    durations = torch.full((prompt_tokens,), frames // prompt_tokens)
    durations[0] += frames - int(durations.sum())
    return Request(phonemes, voice, codes, prompt_tokens, durations, seed)


def _endless(frames: int) -> Sampling:
    """A plain model may not end, and nothing is cut off."""
    most = 2 * frames + 10
    return Sampling(
        min_frames_per_token=1000.0,
        max_frames_per_token=1000.0,
        max_frames=most,
        max_phone_frames=most,
        max_boundary_frames=most,
    )


@torch.inference_mode()
def _without_cache(model: ARModel, request: Request, frames: int) -> float:
    """Seconds for `frames` frames by a whole pass for each, integrated over some lengths."""
    device = model.code.weight.device
    phonemes = request.phonemes[None].to(device)
    lengths = torch.tensor([phonemes.shape[1]], device=device)
    voice = None if request.time_invariant is None else request.time_invariant[None].to(device)
    ends = [request.prompt_frames + round(i * frames / (NO_CACHE_LENGTHS - 1)) for i in range(NO_CACHE_LENGTHS)]
    passes = []
    for end in ends:
        codes = torch.zeros(1, end, dtype=torch.long, device=device)
        durations = torch.zeros_like(phonemes)
        durations[:, 0] = end
        steps = model.steps(lengths, codes, torch.tensor([end], device=device), durations)
        passes.append(min(timings(partial(model, phonemes, lengths, steps, voice), device)))
    step_ends = torch.tensor(ends, dtype=torch.float32) / model.config.group_size
    return float(torch.trapezoid(torch.tensor(passes), step_ends))


def _peak_memory(device: torch.device) -> float:
    """Bytes."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(peak_bytes())
