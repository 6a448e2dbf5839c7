"""Where a model is: inside the package, in a folder, or on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from valle.common.errors import UserError

EMBEDDED = Path(__file__).parents[1] / "assets" / "model"
_FILES = (".json", ".safetensors")
"""What a model folder consists of."""


def find_model(model: str | Path | None) -> Path:
    """The folder of a model, or a file of it, by its name.

    `model` is "embedded" (or None), a path, or a Hugging Face Hub id "owner/name", which is downloaded; or one of these
    and a file in it: "embedded/aligner.safetensors". Raises `UserError` when there is no such thing.
    """
    name = "embedded" if model is None else str(model)
    path = Path(name)
    if name.split("/")[0] == "embedded":  # a folder of that name is ./embedded
        if not (EMBEDDED / "config.json").exists():
            raise UserError("this installation has no embedded model; name one with --model (a folder or a Hub id)")
        path = EMBEDDED.joinpath(*path.parts[1:])
    if path.exists():
        return path
    place, file = (path.parent, path.name) if path.suffix in _FILES else (path, "")
    if len(place.parts) != 2 or name.startswith((".", "/", "~")):
        raise UserError(f"not found: {name}; give a file or folder, 'embedded', or an id of the Hugging Face Hub")
    path = _download(place.as_posix()) / file
    if not path.exists():
        raise UserError(f"'{place}' on the Hugging Face Hub has no {file}")
    return path


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(
            f"there is no folder {name}; if it is a model of the Hugging Face Hub: pip install huggingface_hub"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "README.md"]))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"there is no folder {name}; the Hugging Face Hub, whose id it could be, cannot be reached"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"there is no folder {name}, nor can the Hugging Face Hub give a model of that id: {reason}"
        ) from error
