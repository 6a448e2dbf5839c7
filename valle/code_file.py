"""Speech as codes in a file: a safetensors file that says which codec made it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from valle.tokenizers.codecs.base import CodecSpec, SpeechCodes
from valle.tokenizers.errors import UserError

FORMAT = "valle-codes"
FORMAT_VERSION = 1


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
        largest = max(self.spec.codebook_size, self.spec.time_invariant_size)
        dtype = torch.int16 if largest <= 2**15 else torch.int32
        tensors = {"codes": self.codes.codes[0].to("cpu", dtype).contiguous()}
        if self.codes.time_invariant is not None:
            tensors["time_invariant"] = self.codes.time_invariant[0].to("cpu", dtype).contiguous()
        about = {"spec": self.spec.to_dict(), "codec_hash": self.codec_hash, "samples": self.samples}
        metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "about": json.dumps(about)}
        try:
            save_file(tensors, path, metadata)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> CodeFile:
        """Raises `UserError` when the file is missing, damaged or something else."""
        if not Path(path).is_file():
            raise UserError(f"code file not found: {path}")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name).long()[None] for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{path} is no code file of 'valle codec encode': {error}") from error
        if metadata.get("format") != FORMAT or metadata.get("format_version") != str(FORMAT_VERSION):
            raise UserError(f"{path} is no code file of version {FORMAT_VERSION}; 'valle codec encode' makes them")
        about = json.loads(metadata["about"])
        codes = tensors["codes"]
        speech = SpeechCodes(codes, torch.tensor([codes.shape[-1]]), tensors.get("time_invariant"))
        return cls(CodecSpec.from_dict(about["spec"]), about["codec_hash"], speech, about["samples"])
