"""Weights that the authors of HiFi-Codec and TiCodec give away, read into our codecs.

Their files hold {'encoder': ..., 'quantizer': ..., 'generator': ...} state dicts, and come with a JSON configuration.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.tokenizers.codecs.conv import ConvCodec, HifiCodec, TiCodec

KINDS: dict[str, type[ConvCodec]] = {"hificodec": HifiCodec, "ticodec": TiCodec}
_OPTIONS = {
    "sampling_rate": "sample_rate",
    "upsample_rates": "upsample_rates",
    "upsample_kernel_sizes": "upsample_kernels",
    "upsample_initial_channel": "decoder_channels",
    "resblock_kernel_sizes": "residual_kernels",
    "resblock_dilation_sizes": "residual_dilations",
    "n_codes": "codebook_size",
}
"""The authors' settings and ours; the others are of their training (`hop_size` is that of a mel loss)."""
_PARTS = [
    (r"decoder\.", r"generator."),
    (r"\.parametrizations\.weight\.original0", r".weight_g"),
    (r"\.parametrizations\.weight\.original1", r".weight_v"),
    (r"\.first\.", r".conv_pre."),
    (r"\.last\.", r".conv_post."),
    (r"\.stages\.(\d+)\.resample", r".ups.\1"),
    (r"\.dilated\.", r".convs1."),
    (r"\.plain\.", r".convs2."),
    (r"time_invariant\.encoder\.linear", r"encoder.GlobalTokenEncoder.fn.0"),
    (r"time_invariant\.encoder\.norm", r"encoder.GlobalTokenEncoder.fn.2"),
    (
        r"time_invariant\.quantizer\.layers\.(\d+)\.codebook",
        r"quantizer.quantizer_modules_globaltokens.\1.embedding.weight",
    ),
]
_UNUSED = re.compile(r"encoder\.linear\.0\.(weight|bias)")
"""TiCodec's files hold a layer that its code never calls."""


def read_released(kind: str, checkpoint: str | Path, config: str | Path) -> ConvCodec:
    """The codec of a released `checkpoint`, in eval mode; `kind` is one of `KINDS`.

    Raises `UserError` for files that cannot be read or that do not belong together.
    """
    codec = KINDS[kind](**_read_config(kind, Path(config)))
    given = _read_checkpoint(Path(checkpoint))
    blocks = len(codec.config["residual_kernels"])
    names = {name: released_name(name, blocks) for name in codec.state_dict()}
    _compare(set(names.values()), {name for name in given if not _UNUSED.fullmatch(name)}, checkpoint, config)
    try:
        codec.load_state_dict({name: given[released] for name, released in names.items()})
    except RuntimeError as error:
        raise UserError(f"{checkpoint} does not fit {config}: {error}") from error
    return codec.eval()


def released_name(name: str, blocks: int) -> str:
    """What the authors call the tensor that we call `name`, their part in front: 'encoder.conv_pre.bias'.

    blocks: residual blocks in a stage; theirs are numbered through all stages.
    """
    for pattern, replacement in _PARTS:
        name = re.sub(pattern, replacement, name)
    name = re.sub(
        r"\.stages\.(\d+)\.(blocks|norms)\.(\d+)",
        lambda m: f".{'resblocks' if m[2] == 'blocks' else 'normalize'}.{int(m[1]) * blocks + int(m[3])}",
        name,
    )
    name = re.sub(
        r"time_invariant\.encoder\.convs\.(\d+)",
        lambda m: f"encoder.GlobalTokenEncoder.conv.{2 * int(m[1])}",
        name,
    )
    return re.sub(
        r"quantizer\.groups\.(\d+)\.layers\.(\d+)\.codebook",
        lambda m: f"quantizer.quantizer_modules{'' if m[2] == '0' else int(m[2]) + 1}.{m[1]}.embedding.weight",
        name,
    )


def _read_config(kind: str, path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        options = {ours: given[theirs] for theirs, ours in _OPTIONS.items()}
        groups = given["n_code_groups"]
        # HiFi-Codec's files do not name its two layers.
        layers = given["residul_layer"] if kind == "ticodec" else 2
        if kind == "ticodec":
            options["time_invariant_groups"] = given["global_code_num"]
            options["time_invariant_size"] = given["n_codes"]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no JSON configuration of {kind}: {error}") from error
    except KeyError as error:
        raise UserError(f"{path} is no configuration of {kind}: it has no {error}") from error
    if given.get("resblock", "1") != "1":
        raise UserError(f"{path}: residual blocks of kind {given['resblock']!r} are not supported, only '1'")
    return {**options, "groups": groups, "n_q": groups * layers}


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """All tensors of the file by 'part.name'."""
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except Exception as error:  # torch raises many types for files that are damaged or something else
        raise UserError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    wanted = ("encoder", "quantizer", "generator")
    if not isinstance(parts, dict) or any(not isinstance(parts.get(part), dict) for part in wanted):
        raise UserError(f"{path} is no released codec: it must hold the state dicts {', '.join(wanted)}")
    return {f"{part}.{name}": tensor for part in wanted for name, tensor in parts[part].items()}


def _compare(wanted: set[str], given: set[str], checkpoint: str | Path, config: str | Path) -> None:
    wrong = [
        f"{what} {len(names)} tensors ({', '.join(sorted(names)[:4])}{', ...' if len(names) > 4 else ''})"
        for what, names in (("lacks", wanted - given), ("has", given - wanted))
        if names
    ]
    if wrong:
        unknown = " that are unknown" if given - wanted else ""
        raise UserError(f"{checkpoint} does not fit {config}: it {' and '.join(wrong)}{unknown}")
