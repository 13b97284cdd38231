"""Requests that no client should send: schemathesis over the OpenAPI document, and raw
garbage. No status from 500 on, no traceback, no hang, and the next request works."""

import json
import socket
import threading
import time

import httpx
import pytest
import uvicorn

from seedjax.cli.serve import listening
from seedjax.server import ServerConfig, bodies, create_app

GOOD = {"prompt": "x", "max_tokens": 2}


@pytest.fixture(scope="module")
def address(chatting):
    """A server on a real socket, ready."""
    config = ServerConfig(name="tiny", num_slots=2, max_new_tokens=16, page=True)
    sock = listening("127.0.0.1", 0)
    app = create_app(chatting, config)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    url = "http://{}:{}".format(*sock.getsockname())
    end = time.monotonic() + 480
    while httpx.get(f"{url}/health", timeout=100).status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    yield url
    server.should_exit = True
    thread.join()


def works(url: str) -> bool:
    found = httpx.post(f"{url}/v1/completions", json=GOOD, timeout=60)
    return found.status_code == 200


def raw(url: str, content: bytes, *, wait: float = 30) -> bytes:
    """The bytes that come back for some bytes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as sock:
        sock.sendall(content)
        sock.shutdown(socket.SHUT_WR)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


BODIES = {
    "truncated": b'{"prompt": "x"',
    "ten megabytes": b'{"prompt": "' + b"x" * 10_000_000 + b'"}',
    "surrogate": b'{"prompt": "\\udc00"}',
    "negative": b'{"prompt": "x", "max_tokens": -5, "seed": -1}',
    "infinite": b'{"prompt": "x", "temperature": 1e999}',
    "huge integer": b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    "deep": b'{"a":' * 50_000,
    "twice": b'{"prompt": "x", "prompt": ["y", 3]}',
    "nul": b'{"prompt": "\\u0000\\u0000"}',
    "wrong types": b'{"prompt": {"x": [null]}, "stop": 3, "n": "two"}',
    "no JSON": bytes(range(256)),
    "none": b"",
}
PATHS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/fim/completions",
    "/v1/edit/completions",
    "/generate",
    "/infill",
    "/v1/feedback",
]


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BODIES)
def test_garbage_is_refused_in_one_line(address, name, path):
    found = httpx.post(f"{address}{path}", content=BODIES[name], timeout=60)
    assert found.status_code < 500, found.text
    if found.status_code != 200:
        message = found.json()["error"]["message"]
        assert "\n" not in message and "Traceback" not in found.text
        assert len(message) < 500


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        b"\x00" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /page/%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models/" + b"%F0%9F%92%A9" * 9 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: \xff\xfe\r\n\r\n",
    ],
)
def test_no_http_breaks_the_server(address, content):
    found = raw(address, content)
    assert b" 500 " not in found[:20] and b"Traceback" not in found
    assert works(address)


@pytest.mark.slow
def test_a_slow_body_hinders_nobody(address, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 1.0)
    host, port = address.removeprefix("http://").split(":")
    socks = [socket.create_connection((host, int(port)), timeout=30) for _ in range(50)]
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1000\r\n\r\n{"
    )
    for sock in socks:
        sock.sendall(head)
    assert works(address)
    for sock in socks:
        assert b" 408 " in sock.recv(65536)[:20]
        sock.close()


@pytest.mark.slow
def test_schemathesis_finds_nothing(address):
    """Bodies that the document describes, and bodies that it does not."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    statuses: dict[int, int] = {}
    modes = (
        schemathesis.GenerationMode.POSITIVE,
        schemathesis.GenerationMode.NEGATIVE,
    )
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in modes if operation.method == "post" else modes[:1]:

            @settings(
                max_examples=6,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                derandomize=True,
                database=None,
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case):
                response = case.call(timeout=60)
                count = statuses.get(response.status_code, 0)
                statuses[response.status_code] = count + 1
                assert response.status_code < 500, (case.body, response.text)
                assert "Traceback" not in response.text
                if response.status_code >= 400:
                    assert "\n" not in response.json()["error"]["message"]

            check()
    print(json.dumps(statuses))
    assert 200 in statuses and 400 in statuses and works(address)
