"""Keys, host names, pages of other sites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from valle.common.errors import UserError
from valle.serve.app import create_app
from valle.serve.auth import ApiKeys, check_origin
from valle.serve.service import Service

KEY = "0123456789abcdef"


@pytest.fixture
def locked(make_service: Callable[..., Service]) -> TestClient:
    return TestClient(create_app(make_service(keys={"anna": KEY}), ("testserver",)))


def test_key_is_needed_for_all_but_the_page_and_health(locked: TestClient) -> None:
    with locked as client:
        for path in ("/v1/voices", "/v1/models", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        for path in ("/", "/healthz", "/page/app.js", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_key_for_websockets(locked: TestClient) -> None:
    with locked as client:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/audio/speech", ["tts-1.0"]):
            pass
        with client.websocket_connect("/v1/audio/speech", ["tts-1.0", f"api-key.{KEY}"]) as socket:
            assert socket.accepted_subprotocol == "tts-1.0"


def test_pages_of_other_sites_and_other_names_are_refused(client: TestClient) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert client.get("/v1/voices", headers=headers).status_code == 403
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/v1/audio/speech", ["tts-1.0"], headers=headers),
        ):
            pass
    assert client.get("/v1/voices", headers={"Origin": "http://testserver"}).status_code == 200
    assert client.get("/v1/voices", headers={"Host": "localhost:8000"}).status_code == 200


def test_addresses_and_probes_are_answered(client: TestClient) -> None:
    """An address cannot be made to lead elsewhere; a probe asks for nothing but whether the server works."""
    for host in ("10.0.0.5", "10.0.0.5:8000", "[fd00::1]:8000"):
        assert client.get("/v1/voices", headers={"Host": host}).status_code == 200
    for host in ("valle.svc.cluster.local", "10.0.0.5.evil.example", ""):
        assert client.get("/healthz", headers={"Host": host}).json()["status"] == "ok"
        assert client.get("/v1/voices", headers={"Host": host}).status_code == 403


def test_pages_of_allowed_sites(make_service: Callable[..., Service]) -> None:
    """A browser asks first, without the key; then it shows the answer to the page only if this header is there."""
    site, allowed = "https://app.example.org", "access-control-allow-origin"
    app = create_app(make_service(keys={"anna": KEY}), ("testserver",), (site,))
    question = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with TestClient(app) as client:
        answer = client.options("/v1/audio/speech", headers={"Origin": site, **question})
        assert answer.status_code == 200 and answer.headers[allowed] == site
        assert "authorization" in answer.headers["access-control-allow-headers"]
        answer = client.get("/v1/voices", headers={"Origin": site, "Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200 and answer.headers[allowed] == site
        assert client.get("/v1/voices", headers={"Origin": site}).status_code == 401
        for other in ("https://app.example.org.evil.example", "http://app.example.org", "null"):
            answer = client.get("/v1/voices", headers={"Origin": other, "Authorization": f"Bearer {KEY}"})
            assert answer.status_code == 403 and allowed not in answer.headers
        protocols, headers = ["tts-1.0", f"api-key.{KEY}"], {"Origin": site}
        with client.websocket_connect("/v1/audio/speech", protocols, headers=headers) as socket:
            assert socket.accepted_subprotocol == "tts-1.0"


@pytest.mark.parametrize("origin", ["app.example.org", "https://app.example.org/", "https://App.example.org", ""])
def test_origins_that_no_browser_sends_are_refused(origin: str) -> None:
    with pytest.raises(UserError, match="--allow-origin"):
        check_origin(origin)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "no key"), (f"{KEY}\n", "line 1"), ("a:short\n", "line 1"), (f"a:{KEY}\n\na:{KEY}\n", "line 3")],
)
def test_key_files_with_mistakes(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=reason):
        ApiKeys.read(path)
