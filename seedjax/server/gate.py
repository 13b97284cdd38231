"""The gate before every handler: the API key, a number for the request, a line of log,
and errors as clients of OpenAI's API read them."""

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from seedjax.server.errors import ApiError
from seedjax.server.metrics import Metrics
from seedjax.server.rates import Rates

LOG = logging.getLogger("seedjax.server")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Gate:
    """Lets requests in.

    Attributes:
      key_digests: SHA-256 of the keys; without any, no key is needed.
      metrics: where responses are counted.
      rates: how often a client may ask; paths that need no key are not counted.
      hosts: names under which the server may be called; None is any.
    """

    key_digests: frozenset[str]
    metrics: Metrics
    rates: Rates
    hosts: frozenset[str] | None = None

    def answering(self, handler: Handler, *, free: bool = False) -> Handler:
        """A handler after the check of the key, which turns errors into responses and
        logs each request without its text.

        Args:
          handler: of a path.
          free: whether it needs no key.
        """

        async def answer(request: Request) -> Response:
            began, number = time.monotonic(), secrets.token_hex(8)
            try:
                self.check_host(request.headers.get("host", ""))
                if not free:
                    request.state.client = self.check_key(request)
                    self.check_rate(request.state.client)
                    check_origin(request)
                response = await handler(request)
            except ApiError as error:
                response = error.response()
            except ClientDisconnect:
                response = Response(status_code=499)
            except Exception as error:
                LOG.exception("%s %s failed", request.method, request.url.path)
                fault = f"the server failed: {type(error).__name__}"
                response = ApiError(500, fault, code="server_error").response()
            response.headers["x-request-id"] = number
            path, status = request.scope["route"].path, response.status_code
            self.metrics.responses.labels(path, str(status)).inc()
            LOG.info(
                json.dumps(
                    {
                        "request": number,
                        "method": request.method,
                        "path": path,
                        "status": status,
                        "seconds": round(time.monotonic() - began, 4),
                    }
                )
            )
            return response

        return answer

    def check_host(self, host: str) -> None:
        """Raises `ApiError` for a request under another name: a web page whose name was
        made to mean this machine (DNS rebinding) would pass for the server's own."""
        if self.hosts is not None and name_in(host) not in self.hosts:
            message = (
                f"the server is not called {host!r}; ask {min(self.hosts)}, or start "
                f"it with --allowed-host {name_in(host) or 'NAME'}"
            )
            raise ApiError(403, message, code="other_host")

    def check_rate(self, client: str) -> None:
        """Raises `ApiError` for a client that asks too often."""
        if wait := self.rates.take(client):
            self.metrics.refused.inc()
            most = self.rates.per_minute
            message = f"more than {most} requests a minute; go on in {wait:.1f} s"
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=wait)

    def check_key(self, request: Request) -> str:
        """Who asks: the digest of the key, or, where none is needed, the address.

        Raises:
          ApiError: if there are keys and the request has none of them.
        """
        if not self.key_digests:
            return request.client.host if request.client else ""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(key.strip().encode()).hexdigest()
        known = [hmac.compare_digest(given, each) for each in self.key_digests]
        if scheme.lower() != "bearer" or not any(known):
            message = "the API key is missing or wrong; send Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key")
        return given


def check_origin(request: Request) -> None:
    """Raises `ApiError` for a request that another web page makes a browser send: a
    server on this machine would answer it, though its own page alone may ask."""
    origin = request.headers.get("origin")
    if origin and origin.partition("://")[2] != request.headers.get("host"):
        message = f"requests of web pages from {origin} are not served"
        raise ApiError(403, message, code="other_origin")


def name_in(host: str) -> str:
    """The name in a `Host` header: without the port, in small letters."""
    name = re.sub(r":\d*$", "", host.strip().lower())
    return name.removeprefix("[").removesuffix("]").removesuffix(".")


async def refuse_http(request: Request, error: Exception) -> Response:
    """An unknown path or method, as an API error."""
    assert isinstance(error, HTTPException)
    message = {404: "there is no such path", 405: "the path takes another method"}
    text = f"{request.method} {request.url.path}: " + message.get(
        error.status_code, error.detail
    )
    return ApiError(error.status_code, text, code="not_found").response()
