"""EnCodec at 24 kHz (arXiv 2210.13438): the encoder and decoder of the `encodec` package, behind our interface."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from valle.common.errors import UserError
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodec, SpeechCodes, frame_mask
from valle.tokenizers.codecs.encodec_stream import START, EncodecStream
from valle.tokenizers.codecs.quantizers import ResidualQuantizer

QUANTIZERS = {1.5: 2, 3.0: 4, 6.0: 8, 12.0: 16, 24.0: 32}
"""Codes per frame by bandwidth in kbit/s: 75 frames a second, 10 bits a code."""
WEIGHTS_URL = "https://dl.fbaipublicfiles.com/encodec/v0/encodec_24khz-d7cc33bc.th"


class Encodec(SpeechCodec):
    """EnCodec, causal, 24 kHz. `bandwidth` (kbit/s) picks how many of its 32 quantizers are used.

    A last frame that is partly filled is filled up with silence, where the package reflects the signal in each layer:
    else an utterance's codes would depend on the padding of its batch. All other frames are those of the package.
    """

    def __init__(self, bandwidth: float = 6.0) -> None:
        super().__init__()
        if bandwidth not in QUANTIZERS:
            raise UserError(
                f"EnCodec's bandwidth must be one of {', '.join(map(str, QUANTIZERS))} kbit/s: not {bandwidth}"
            )
        self.config: dict[str, Any] = {"bandwidth": float(bandwidth)}
        self.spec = CodecSpec(
            "encodec", sample_rate=24000, hop_length=320, n_q=QUANTIZERS[bandwidth], codebook_size=1024
        )
        self.encoder, self.decoder = _seanet()
        self.quantizer = ResidualQuantizer(128, self.spec.n_q, self.spec.codebook_size)

    @classmethod
    def pretrained(cls, bandwidth: float = 6.0, weights: str | Path | None = None) -> Encodec:
        """The released model, in eval mode; `weights` is its file (default: torch.hub's cache, or else the network)."""
        codec = cls(bandwidth)
        given = _download() if weights is None else _read(Path(weights))
        names = {name: _released_name(name) for name in codec.state_dict()}
        if missing := sorted(set(names.values()) - set(given)):
            raise UserError(f"{weights or WEIGHTS_URL} is not EnCodec for 24 kHz: it lacks {', '.join(missing[:4])}")
        try:
            codec.load_state_dict({name: given[released] for name, released in names.items()})
        except RuntimeError as error:
            raise UserError(f"{weights or WEIGHTS_URL} is not EnCodec for 24 kHz: {error}") from error
        return codec.eval()

    def code_vectors(self) -> Tensor:
        return self.quantizer.code_vectors()

    def decoding_parts(self) -> list[nn.Module]:
        return [self.decoder]

    @torch.no_grad()
    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> SpeechCodes:
        size = wav.shape[-1]
        samples = torch.full(wav.shape[:1], size, device=wav.device) if lengths is None else lengths
        frames, longest = -(-samples // self.spec.hop_length), self.spec.frames(size)
        wav = wav * frame_mask(samples, size)[:, None]
        wav = F.pad(wav, (0, max(longest, START) * self.spec.hop_length - size))
        latent = self.encoder(wav)[..., :longest].transpose(1, 2)
        codes = self.quantizer(latent).codes.masked_fill(~frame_mask(frames, longest)[..., None], 0)
        return SpeechCodes(codes.transpose(1, 2), frames)

    @torch.no_grad()
    def decode(self, codes: SpeechCodes) -> Tensor:
        self.check_codes(codes)
        longest = codes.codes.shape[-1]
        known = codes.codes * frame_mask(codes.lengths, longest)[:, None]
        known = F.pad(known, (0, max(0, START - longest)))
        wav = self.decoder(self.quantizer.decode(known.transpose(1, 2)).transpose(1, 2))
        wav = wav[..., : longest * self.spec.hop_length]
        return wav * frame_mask(codes.lengths * self.spec.hop_length, wav.shape[-1])[:, None]

    def decode_stream(self, time_invariant: Tensor | None = None) -> EncodecStream:
        return EncodecStream(self)


def _seanet() -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder without their weights."""
    try:
        with _stand_in_for_torchaudio():
            from encodec.modules import SEANetDecoder, SEANetEncoder
    except ModuleNotFoundError as error:
        raise UserError(
            f"codec 'encodec' needs {error.name}, not installed: pip install --no-deps encodec einops"
        ) from error
    with warnings.catch_warnings():
        # The package uses the older of torch's two implementations of weight normalisation.
        warnings.simplefilter("ignore", FutureWarning)
        return SEANetEncoder(causal=True), SEANetDecoder(causal=True)


@contextmanager
def _stand_in_for_torchaudio() -> Iterator[None]:
    """Let `import torchaudio` succeed meanwhile.

    The package needs it for reading files alone, which we do not use it for; and where torchaudio was built for another
    torch than the one that is installed, importing it fails.
    """
    if "torchaudio" in sys.modules:
        yield
        return
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    try:
        yield
    finally:
        del sys.modules["torchaudio"]


def _released_name(name: str) -> str:
    """What the released file calls the tensor that we call `name`."""
    if not name.startswith("quantizer."):
        return name
    return name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(".codebook", "._codebook.embed")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        given = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"EnCodec's weights {path} do not exist; their file is {WEIGHTS_URL}") from error
    except Exception as error:  # torch raises many types for files that are damaged or something else
        raise UserError(f"{path} cannot be read as EnCodec's weights: {str(error).splitlines()[0]}") from error
    if not isinstance(given, dict):
        raise UserError(f"{path} is not EnCodec for 24 kHz: it holds no state dict")
    return given


def _download() -> dict[str, Tensor]:
    """From torch.hub's cache, or else from the network into the cache."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_URL.rpartition("/")[2]
    if not cached.exists():
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(WEIGHTS_URL, str(cached), hash_prefix=cached.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"EnCodec's weights cannot be downloaded ({error}); get {WEIGHTS_URL} elsewhere and name the file"
                f" with --weights, or put it at {cached}"
            ) from error
    return _read(cached)
