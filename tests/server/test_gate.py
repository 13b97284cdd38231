"""Before every handler: rates, and whose web page a request comes from."""

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
    client = TestClient(create_app(chatting, config))
    for origin, status in (
        ("http://testserver", 200),
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
        create_app(chatting, ServerConfig(name="tiny", max_new_tokens=16))
    )
    body = {"prompt": "x", "metadata": {"a\nb": 1}}
    error = client.post("/v1/completions", json=body).json()["error"]
    assert error["message"] == "metadata.a b: input should be a valid string"
