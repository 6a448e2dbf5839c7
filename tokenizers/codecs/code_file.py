"""Speech as codes in a file that says which codec made it, at the codec's bitrate.

    magic and version            5 bytes: VALC, 2
    CRC-32 of all that follows   4 bytes, little-endian
    length of the header         4 bytes, little-endian
    header                       JSON: spec, codec_hash, samples, n_q
    codes                        frame by frame, then the time-invariant ones

A code takes the bits that its codebook needs (10 for 1024 codes); the last byte is filled up with zeros.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.common.files import writing
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodes

MAGIC = b"VALC"
FORMAT_VERSION = 2
_START, _LENGTH = struct.Struct("<4sBI"), struct.Struct("<I")


@dataclass(frozen=True)
class CodeFile:
    """One utterance.

    codes:      a batch of one
    codec_hash: of the codec's weights: others cannot decode it
    samples:    length of the audio that was encoded; the last frame may be partly filled
    """

    spec: CodecSpec
    codec_hash: str
    codes: SpeechCodes
    samples: int

    def save(self, path: str | Path) -> None:
        facts = {"codec_hash": self.codec_hash, "samples": self.samples, "n_q": self.codes.codes.shape[1]}
        header = json.dumps({"spec": self.spec.to_dict(), **facts}, separators=(",", ":")).encode()
        bits = [_to_bits(self.codes.codes[0].T, self.spec.codebook_size)]
        if self.codes.time_invariant is not None:
            bits.append(_to_bits(self.codes.time_invariant, self.spec.time_invariant_size))
        rest = _LENGTH.pack(len(header)) + header + np.packbits(np.concatenate(bits)).tobytes()
        with writing(path):
            Path(path).write_bytes(_START.pack(MAGIC, FORMAT_VERSION, zlib.crc32(rest)) + rest)

    @classmethod
    def load(cls, path: str | Path) -> CodeFile:
        """Raises `UserError` when the file is missing, cut short, damaged or something else."""
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"code file not found: {path}") from error
        except OSError as error:
            raise UserError(f"code file {path} cannot be read: {error.strerror or error}") from error
        if len(content) < _START.size or content[:4] != MAGIC:
            raise UserError(f"{path} is no code file; 'valle codec encode' makes them")
        _, version, checksum = _START.unpack_from(content)
        if version != FORMAT_VERSION:
            raise UserError(f"{path} is a code file of version {version}, this program reads {FORMAT_VERSION}")
        rest = content[_START.size :]
        if zlib.crc32(rest) != checksum:
            raise UserError(f"{path} is cut short or damaged; copy it again")
        try:
            end = _LENGTH.size + _LENGTH.unpack_from(rest)[0]
            return cls._read(json.loads(rest[_LENGTH.size : end]), rest[end:])
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} does not describe its codes: {error!r}; encode the audio again") from error

    @classmethod
    def _read(cls, header: dict[str, Any], packed: bytes) -> CodeFile:
        spec, n_q, samples = CodecSpec.from_dict(header["spec"]), int(header["n_q"]), int(header["samples"])
        frames, groups = spec.frames(samples), spec.n_time_invariant
        bits, end = np.unpackbits(np.frombuffer(packed, np.uint8)), frames * n_q * _width(spec.codebook_size)
        codes = _from_bits(bits[:end], (frames, n_q), spec.codebook_size).T[None]
        ti = None
        if groups:
            size = groups * _width(spec.time_invariant_size)
            ti = _from_bits(bits[end : end + size], (1, groups), spec.time_invariant_size)
        return cls(spec, header["codec_hash"], SpeechCodes(codes, torch.tensor([frames]), ti), samples)


def _width(codebook_size: int) -> int:
    """Bits of a code."""
    return max(1, (codebook_size - 1).bit_length())


def _to_bits(codes: Tensor, codebook_size: int) -> np.ndarray:
    """Bits, uint8 [codes * width], of codes of any shape, the highest of each first."""
    places = np.arange(_width(codebook_size))[::-1]
    return (codes.cpu().numpy().reshape(-1, 1) >> places & 1).astype(np.uint8).reshape(-1)


def _from_bits(bits: np.ndarray, shape: tuple[int, int], codebook_size: int) -> Tensor:
    width = _width(codebook_size)
    codes = (bits.reshape(-1, width).astype(np.int64) << np.arange(width)[::-1]).sum(1).reshape(shape)
    if codes.size and codes.max() >= codebook_size:
        raise ValueError(f"a code of {codes.max()} in a codebook of {codebook_size}")
    return torch.from_numpy(codes)
