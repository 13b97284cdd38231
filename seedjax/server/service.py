"""A model being served: its worker, and what the server says of itself."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Unpack

import jax
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from seedjax.errors import InputError
from seedjax.inference.engine import Engine
from seedjax.inference.in_flight import Completion
from seedjax.inference.model import Model
from seedjax.sampling.grammar.build import is_available as grammar_is_available
from seedjax.sampling.options import SamplerOptions
from seedjax.sampling.policy import LeftToRight
from seedjax.server import bodies, streams
from seedjax.server.canvases import LiveCanvas
from seedjax.server.config import ServerConfig
from seedjax.server.errors import ApiError
from seedjax.server.gate import LOG
from seedjax.server.metrics import Metrics
from seedjax.server.openapi import document
from seedjax.server.worker import Job, Update, Worker


class Service:
    """One model, the thread that decodes with it, and handlers that only read."""

    def __init__(self, model: Model, config: ServerConfig, overrides: SamplerOptions):
        """Checks the recipe; `start` starts the worker."""
        self.model, self.config, self.overrides = model, config, overrides
        self.metrics = Metrics()
        self.started = int(time.time())
        self.worker: Worker
        self.one_by_one: Worker | None = None
        # Refuses a recipe before a client comes.
        self.sampler = self.new_engine(config.num_slots).sampler

    def new_engine(self, num_slots: int, **changes: Unpack[SamplerOptions]) -> Engine:
        """An engine of a worker."""
        config = self.config
        return Engine(
            self.model,
            num_slots=num_slots,
            max_prompt_tokens=config.max_prompt_tokens,
            **self.overrides
            | {"max_new_tokens": config.max_new_tokens, "logprobs": True}
            | changes,
        )

    def start(self) -> None:
        """Starts the worker, which compiles."""

        def make_engine() -> Engine:
            engine = self.new_engine(self.config.num_slots)
            template = getattr(self.model.tokenizer, "chat_template", None)
            # Of all requests only chats have a form.
            engine.warm_up(grammars=template is not None and grammar_is_available())
            self.metrics.programs.set(self.model.num_programs)
            return engine

        self.worker = self.new_worker(make_engine, self.metrics)

    def new_worker(self, make_engine: Callable[[], Engine], metrics: Metrics) -> Worker:
        """A worker within the server's limits."""
        return Worker(
            make_engine,
            metrics,
            max_waiting=self.config.max_waiting,
            timeout_s=self.config.timeout_s,
        )

    @property
    def is_compiling(self) -> bool:
        """Whether the worker is not ready yet."""
        return self.worker.failure is None and not self.worker.ready.is_set()

    def close(self) -> None:
        """Ends the workers after their current block, or at once if the server is not
        ready yet."""
        if self.is_compiling:
            LOG.warning("stopped before all programs were compiled")
        self.worker.close()
        if self.one_by_one is not None:
            self.one_by_one.close()

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

    def worker_of(self, job: Job) -> Worker:
        """The worker of a job's policy. That of `one_by_one` is made, and compiles,
        when it is first asked for: most servers never need it.

        Raises:
          ApiError: for a server without the page, or a recipe without that policy.
        """
        if not job.one_by_one:
            return self.worker
        if self.one_by_one is None:
            fault = None if self.config.page else "the server has no page"
            # Rows cost time on a CPU; elsewhere one is as fast, and spares memory.
            slots = self.config.num_slots if jax.default_backend() == "cpu" else 1
            try:
                engine = self.new_engine(slots, policy=LeftToRight(threshold=None))
            except InputError as error:
                fault = str(error)
            if fault is not None:
                message = f"the policy one_by_one is not to be had: {fault}"
                code = "unsupported_parameter"
                raise ApiError(400, message, param="policy", code=code)
            self.one_by_one = self.new_worker(lambda: engine, Metrics())
            self.one_by_one.ready.wait()  # nothing is compiled yet
        return self.one_by_one

    def run(self, request: Request, job: Job) -> AsyncGenerator[Update, None]:
        """The updates of a job of a request, as `Worker.run`."""
        job = dataclasses.replace(job, client=request.state.client)
        return self.worker_of(job).run(job)

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
        jobs = [dataclasses.replace(job, streams=False) for job in jobs]

        async def work() -> None:
            updates = streams.merged([self.run(request, job) for job in jobs])
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
