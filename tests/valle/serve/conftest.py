"""A server with a random model behind it: all of it but the sound is real."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient

from valle.serve.app import LOCAL_HOSTS, create_app
from valle.serve.auth import ApiKeys
from valle.serve.limits import Limits
from valle.serve.listener import listener
from valle.serve.service import Service
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle
from valle.synthesis.voice_store import VoiceStore

HOSTS = (*LOCAL_HOSTS, "testserver")


@pytest.fixture(scope="session")
def tiny_cloner(bundle: Bundle) -> VoiceCloner:
    return VoiceCloner(replace(bundle, languages=["en-us"]), precision="fp32")


@pytest.fixture
def make_service(tiny_cloner: VoiceCloner, tmp_path: Path) -> Callable[..., Service]:
    """A service over voices of its own; arguments are limits, `keys` and `watermark_key`."""

    def make(keys: dict[str, str] | None = None, watermark_key: str | None = None, **limits: float) -> Service:
        chosen = Limits(**limits)  # type: ignore[arg-type]
        voices = VoiceStore(tmp_path / "voices", chosen.voices)
        return Service.build(tiny_cloner, voices, chosen, ApiKeys(keys or {}), watermark_key)

    return make


@pytest.fixture
def client(make_service: Callable[..., Service]) -> Iterator[TestClient]:
    with TestClient(create_app(make_service(), HOSTS)) as client:
        yield client


@dataclass
class Running:
    """A server that listens on loopback."""

    url: str
    service: Service

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")


@contextmanager
def running(service: Service) -> Iterator[Running]:
    """A real uvicorn on a free port, in a thread."""
    door = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(listener(create_app(service), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Running(f"http://127.0.0.1:{door.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving() -> Callable[[Service], AbstractContextManager[Running]]:
    """`with serving(service) as server`: a real uvicorn; `server.url` is where."""
    return running


@pytest.fixture
def server(make_service: Callable[..., Service]) -> Iterator[Running]:
    with running(make_service()) as found:
        yield found
