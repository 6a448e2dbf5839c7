"""Who may ask: API keys, and pages of other sites that must not."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from valle.common.errors import UserError
from valle.serve.errors import ApiError
from valle.serve.protocol import KEY_PREFIX

_SHORTEST_KEY = 16


class ApiKeys:
    """The keys that are accepted; none at all means that everybody is."""

    def __init__(self, keys: dict[str, str]) -> None:
        """`keys`: name -> key."""
        self._digests = {name: _digest(key) for name, key in keys.items()}

    @classmethod
    def read(cls, path: str | Path) -> ApiKeys:
        """A file of lines `name:key`; empty lines and those that begin with # do not count. Raises `UserError`."""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--api-key-file {path} cannot be read: {error}") from error
        keys: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, key = (part.strip() for part in line.partition(":"))
            if not colon or not name or len(key) < _SHORTEST_KEY or not key.isascii():
                raise UserError(
                    f"{path}, line {number}: needs 'name:key' with a key of {_SHORTEST_KEY} or more plain characters"
                )
            if name in keys:
                raise UserError(f"{path}, line {number}: the name '{name}' is there twice")
            keys[name] = key
        if not keys:
            raise UserError(f"{path} holds no key; write a line 'name:key' for each")
        return cls(keys)

    def check(self, headers: Headers, subprotocols: Sequence[str] = ()) -> str | None:
        """The name of the key in a request; None where no keys are needed. Raises `ApiError` 401.

        subprotocols: of a WebSocket, where the key may stand, too
        """
        if not self._digests:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = next((s.removeprefix(KEY_PREFIX) for s in subprotocols if s.startswith(KEY_PREFIX)), "")
        # Digests have one length and all are compared: the time taken tells nothing of the keys.
        digest = _digest(given.strip())
        matches = [name for name, known in self._digests.items() if hmac.compare_digest(digest, known)]
        if not matches:
            message = "this API key is not known" if given else "an API key is needed: Authorization: Bearer KEY"
            raise ApiError(401, "invalid_api_key", message)
        return matches[0]


@dataclass(frozen=True)
class Sites:
    """What a browser may say of where a request comes from and where it goes; in both, `*` stands for anything."""

    hosts: Sequence[str]
    """Names under which this server is reached."""
    origins: Sequence[str] = ()
    """Sites whose pages may use it, such as https://app.example.org, beside its own."""

    def check(self, headers: Headers) -> None:
        """Refuse pages of other sites, which a browser lets talk to servers on the visitor's machine.

        Raises `ApiError` 403 for another name (DNS rebinding) and for another page's request.
        """
        host = headers.get("host", "")
        if "*" not in self.hosts and _name(host) not in self.hosts and not _is_address(_name(host)):
            raise ApiError(403, "unknown_host", f"this server does not go by the name '{host[:100]}'; see --allow-host")
        origin = headers.get("origin")
        own = origin is None or _netloc(origin) == host
        if not own and "*" not in self.origins and origin not in self.origins:
            raise ApiError(403, "foreign_origin", "pages of other sites may not use this server; see --allow-origin")


def check_origin(origin: str) -> str:
    """`origin` as browsers send it, or `*`. Raises `UserError` for anything else, which would never match."""
    parts = urlsplit(origin)
    if (origin != "*" and origin != f"{parts.scheme}://{parts.netloc}".lower()) or not parts.netloc:
        raise UserError(f"--allow-origin '{origin}': write it as browsers do, https://app.example.org[:PORT], or '*'")
    return origin


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    """An IP address is nobody's to point elsewhere: it cannot be rebound, and probes by address are answered."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """Without the port; of an IPv6 address without the brackets, too."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
