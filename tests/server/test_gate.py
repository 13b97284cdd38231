"""Before every handler: rates, and whose web page a request comes from."""

import dataclasses

from starlette.testclient import TestClient

from seedjax.server import ServerConfig, create_app
from seedjax.server.rates import MOST_CLIENTS, Rates


def test_a_bucket_is_refilled_evenly():
    now = 0.0
    rates = Rates(per_minute=60, clock=lambda: now)
    assert [rates.take("a") for _ in range(60)] == [0.0] * 60
    assert rates.take("a") == 1.0 and rates.take("b") == 0.0
    now = 0.75
    assert rates.take("a") == 0.25
    now = 2.0
    assert [rates.take("a") for _ in range(3)] == [0.0, 0.0, 1.0]
    now = 1e6
    assert [rates.take("a") for _ in range(61)] == [0.0] * 60 + [1.0]
    assert {Rates().take("a") for _ in range(999)} == {0.0}


def test_clients_are_forgotten_in_the_end():
    rates = Rates(per_minute=1, clock=lambda: 0.0)
    assert rates.take("first") == 0.0 and rates.take("first") > 0.0
    for number in range(MOST_CLIENTS):
        rates.take(str(number))
    assert rates.take("first") == 0.0


def test_rates_and_origins(chatting):
    config = ServerConfig(name="tiny", max_new_tokens=16, requests_per_minute=3)
    client = TestClient(create_app(chatting, config), base_url="http://localhost")
    for origin, status in (
        ("http://localhost", 200),
        ("https://example.org", 403),
        ("null", 403),
    ):
        found = client.get("/v1/models", headers={"Origin": origin})
        assert found.status_code == status, origin
    found = client.get("/v1/models")
    assert found.status_code == 429 and 1 < int(found.headers["retry-after"]) <= 20
    assert found.json()["error"]["code"] == "rate_limit_exceeded"
    assert client.get("/openapi.json").status_code == 200


def test_a_message_is_one_line_whatever_fields_are_called(chatting):
    client = TestClient(
        create_app(chatting, ServerConfig(name="tiny", max_new_tokens=16)),
        base_url="http://localhost",
    )
    body = {"prompt": "x", "metadata": {"a\nb": 1}}
    error = client.post("/v1/completions", json=body).json()["error"]
    assert error["message"] == "metadata.a b: input should be a valid string"


def test_a_page_whose_name_was_made_to_mean_this_machine_is_refused(chatting):
    """DNS rebinding: `Origin` and `Host` agree, and the name is a stranger's."""
    config = ServerConfig(name="tiny", max_new_tokens=16)
    client = TestClient(create_app(chatting, config), base_url="http://localhost")
    own = ("localhost", "LOCALHOST:8000", "127.0.0.1:9", "[::1]:8000", "[::1]")
    strange = (
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "",
        "[::2]",
    )
    for host, status in (*((name, 200) for name in own), *((n, 403) for n in strange)):
        headers = {"Host": host, "Origin": f"http://{host}"}
        found = client.get("/v1/models", headers=headers)
        assert found.status_code == status, host
    assert found.json()["error"]["code"] == "other_host"
    for path in ("/openapi.json", "/v1/models"):
        assert client.get(path, headers={"Host": "a.example"}).status_code == 403
    keys = frozenset({"0" * 64})
    for changes, status in (
        ({"hosts": frozenset({"a.example"})}, 200),
        ({"key_digests": keys}, 401),
        ({"key_digests": keys, "hosts": frozenset({"localhost"})}, 403),
    ):
        app = create_app(chatting, dataclasses.replace(config, **changes))
        client = TestClient(app, base_url="http://a.example:8000")
        assert client.get("/v1/models").status_code == status, changes
