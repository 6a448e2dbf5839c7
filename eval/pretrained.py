"""Models of other projects through transformers: from a local folder, the Hub's cache or the Hub."""

from __future__ import annotations

from typing import Any

from valle.common.errors import UserError
from valle.eval.measure import optional_package


def load_pretrained(kind: str, model: str, what: str) -> Any:
    """`transformers.<kind>.from_pretrained(model)`.

    model: a folder made by `save_pretrained` (or copied from the Hub), or a Hub id
    what:  who needs it, for the message of the `UserError` that is raised when it cannot be had
    """
    transformers = optional_package("transformers", "transformers>=4.45")
    try:
        return getattr(transformers, kind).from_pretrained(model)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".:")
        raise UserError(
            f"the weights of {what} cannot be loaded from '{model}' ({reason}); on a machine that reaches the Hugging "
            f"Face Hub: hf download {_hub_id(model)} --local-dir DIR; then give DIR instead"
        ) from error


def _hub_id(model: str) -> str:
    return model if model.count("/") == 1 and not model.startswith((".", "/")) else "OWNER/NAME"
