"""A model being served: its worker, and what the server says of itself."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from seedjax.inference.engine import Engine
from seedjax.inference.in_flight import Completion
from seedjax.inference.model import Model
from seedjax.sampling.options import SamplerOptions
from seedjax.server import bodies, streams
from seedjax.server.canvases import LiveCanvas
from seedjax.server.config import ServerConfig
from seedjax.server.errors import ApiError
from seedjax.server.metrics import Metrics
from seedjax.server.openapi import document
from seedjax.server.worker import Job, Worker


class Service:
    """One model, the thread that decodes with it, and handlers that only read."""

    def __init__(self, model: Model, config: ServerConfig, overrides: SamplerOptions):
        """Checks the recipe; `start` starts the worker."""
        self.model, self.config, self.overrides = model, config, overrides
        self.metrics = Metrics()
        self.started = int(time.time())
        self.worker: Worker
        # Refuses a recipe before a client comes.
        self.sampler = self.new_engine().sampler

    def new_engine(self) -> Engine:
        """The engine of the worker."""
        config = self.config
        return Engine(
            self.model,
            num_slots=config.num_slots,
            max_prompt_tokens=config.max_prompt_tokens,
            **self.overrides
            | {"max_new_tokens": config.max_new_tokens, "logprobs": True},
        )

    def start(self) -> None:
        """Starts the worker, which compiles."""

        def make_engine() -> Engine:
            engine = self.new_engine()
            engine.warm_up()
            self.metrics.programs.set(self.model.num_programs)
            return engine

        self.worker = Worker(
            make_engine,
            self.metrics,
            max_waiting=self.config.max_waiting,
            timeout_s=self.config.timeout_s,
        )

    async def health(self, request: Request) -> Response:
        """Whether requests are served."""
        worker = self.worker
        if worker.failure is not None:
            return JSONResponse({"status": "failed"}, status_code=503)
        if not worker.ready.is_set():
            return JSONResponse({"status": "compiling"}, status_code=503)
        engine = worker.engine
        return JSONResponse(
            {
                "status": "ok",
                "slots": engine.num_slots,
                "running": engine.num_running,
                "waiting": engine.num_waiting,
            }
        )

    async def numbers(self, request: Request) -> Response:
        """The metrics."""
        return Response(
            self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def openapi(self, request: Request) -> Response:
        """The description of all paths."""
        return JSONResponse(document())

    async def models(self, request: Request) -> Response:
        """The one model, in a list."""
        return JSONResponse({"object": "list", "data": [self.card()]})

    async def one_model(self, request: Request) -> Response:
        """The model, by its name."""
        self.check_model(request.path_params["name"])
        return JSONResponse(self.card())

    def card(self) -> dict[str, Any]:
        """The model as clients see it."""
        return {
            "id": self.config.name,
            "object": "model",
            "created": self.started,
            "owned_by": "seedjax",
            "context_length": self.model.config.max_positions,
            "max_output_length": self.config.max_new_tokens,
        }

    def check_model(self, name: str | None) -> None:
        """Raises `ApiError` for the name of another model."""
        if name not in (None, "", self.config.name):
            message = (
                f"there is no model {name!r}; this server has {self.config.name!r}"
            )
            raise ApiError(404, message, param="model", code="model_not_found")

    async def read(
        self, request: Request, kind: type[bodies.BodyT]
    ) -> tuple[bodies.BodyT, list[str]]:
        """The body of a request to this model, and the fields that are ignored."""
        found = await bodies.read_json(request, self.config.max_body_bytes)
        body, dropped = bodies.parse(kind, found, self.config.ignored)
        self.check_model(getattr(body, "model", None))
        return body, dropped

    def canvas(self, job: Job) -> LiveCanvas:
        """The canvas of a job, nothing of it unmasked."""
        length = job.max_new_tokens
        return LiveCanvas(self.model, self.sampler, len(job.prompt), length)

    async def collect(self, request: Request, jobs: Sequence[Job]) -> list[Completion]:
        """The completions of jobs. They are cancelled if the client leaves.

        Raises:
          ApiError: if a job fails.
        """
        found: dict[int, Completion] = {}

        async def work() -> None:
            updates = streams.merged([self.worker.run(job) for job in jobs])
            async with contextlib.aclosing(updates):
                async for index, update in updates:
                    if update.completion is not None:
                        found[index] = update.completion

        working = asyncio.ensure_future(work())
        leaving = asyncio.ensure_future(streams.disconnection(request))
        try:
            await asyncio.wait({working, leaving}, return_when="FIRST_COMPLETED")
            if not working.done():
                raise ClientDisconnect
            working.result()
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
        return [found[index] for index in range(len(jobs))]
