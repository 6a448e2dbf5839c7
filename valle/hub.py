"""Where a model is: inside the package, in a folder, or on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from valle.tokenizers.errors import UserError

EMBEDDED = Path(__file__).parent / "assets" / "model"


def find_model(model: str | Path | None) -> Path:
    """The folder of a model: the embedded one (None), a folder, or a Hugging Face Hub id 'owner/name', downloaded."""
    if model is None:
        if not (EMBEDDED / "config.json").exists():
            raise UserError("this installation has no embedded model; name one with --model (a folder or a Hub id)")
        return EMBEDDED
    if Path(model).is_dir():
        return Path(model)
    name = str(model)
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/"):
        raise UserError(f"model folder not found: {name}")
    return _download(name)


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(
            f"model folder not found: {name}; if it is a model of the Hugging Face Hub: pip install huggingface_hub"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "README.md"]))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"'{name}' is no folder here, and the Hugging Face Hub cannot be reached to look it up there"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"'{name}' is no folder here, and not to be had from the Hugging Face Hub: {reason}") from error
