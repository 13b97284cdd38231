"""The ASGI application: which path has which handler."""

import contextlib
from collections.abc import AsyncIterator
from typing import Unpack

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from seedjax.inference.model import Model
from seedjax.sampling.options import SamplerOptions
from seedjax.server.choices import Choices
from seedjax.server.config import ServerConfig
from seedjax.server.endpoints import Endpoints
from seedjax.server.feedback import FeedbackStore
from seedjax.server.gate import Gate, Handler, refuse_http
from seedjax.server.jobs import Jobs
from seedjax.server.page import Page
from seedjax.server.rates import Rates
from seedjax.server.service import Service


def create_app(
    model: Model, config: ServerConfig, **overrides: Unpack[SamplerOptions]
) -> Starlette:
    """The application that serves a model. It answers /health with status 503 until
    all programs are compiled.

    Args:
      model: that is served.
      config: limits.
      **overrides: fields of `SamplerConfig`, for all requests.

    Raises:
      InputError: for a recipe that slots cannot take, or limits beyond the model's.
    """
    service = Service(model, config, overrides)
    endpoints = Endpoints(service, Jobs(model, config, service.sampler))
    store = None if config.feedback is None else FeedbackStore(config.feedback)
    choices = Choices(service, store)
    rates = Rates(config.requests_per_minute)
    gate = Gate(config.key_digests, service.metrics, rates, config.served_hosts)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await run_in_threadpool(service.close)
            if choices.store is not None:
                choices.store.close()

    def post(path: str, handler: Handler) -> Route:
        return Route(path, gate.answering(handler), methods=["POST"])

    def get(path: str, handler: Handler, *, free: bool = False) -> Route:
        return Route(path, gate.answering(handler, free=free), methods=["GET"])

    page = Page() if config.page else None
    shown = [] if page is None else [get("/", page.file, free=True)]
    if page is not None:
        shown.append(get("/page/{name:path}", page.file, free=True))
    app = Starlette(
        routes=[
            *shown,
            get("/health", service.health, free=True),
            get("/metrics", service.numbers),
            get("/openapi.json", service.openapi, free=True),
            get("/v1/models", service.models),
            get("/v1/models/{name:path}", service.one_model),
            post("/v1/chat/completions", endpoints.chat),
            post("/v1/completions", endpoints.completion),
            post("/v1/fim/completions", endpoints.completion),
            post("/v1/edit/completions", endpoints.edit),
            post("/v1/apply/completions", endpoints.apply),
            post("/infill", endpoints.infill),
            post("/generate", endpoints.generate),
            post("/v1/feedback", choices.add),
            get("/v1/feedback", choices.count),
        ],
        exception_handlers={HTTPException: refuse_http},
        lifespan=lifespan,
    )
    app.state.service = service
    return app
