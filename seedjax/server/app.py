"""The ASGI application: routes, keys, limits and responses."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Unpack

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from seedjax.inference.engine import Completion, Engine
from seedjax.inference.model import Model
from seedjax.sampling.options import SamplerOptions
from seedjax.server import answers, bodies, holes
from seedjax.server.config import ServerConfig
from seedjax.server.errors import ApiError
from seedjax.server.feedback import Choice, FeedbackStore
from seedjax.server.jobs import Jobs
from seedjax.server.metrics import Metrics
from seedjax.server.openapi import document
from seedjax.server.worker import Job, Update, Worker

LOG = logging.getLogger("seedjax.server")
BODY_SECONDS = 20.0  # that a client may take to send a request
Handler = Callable[[Request], Awaitable[Response]]


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

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await run_in_threadpool(service.worker.close)
            if service.feedback is not None:
                service.feedback.close()

    def post(path: str, handler: Handler) -> Route:
        return Route(path, service.answering(handler), methods=["POST"])

    def get(path: str, handler: Handler, *, free: bool = False) -> Route:
        answering = service.answering(handler, free=free)
        return Route(path, answering, methods=["GET"])

    return Starlette(
        routes=[
            get("/health", service.health, free=True),
            get("/metrics", service.numbers),
            get("/openapi.json", service.openapi, free=True),
            get("/v1/models", service.models),
            get("/v1/models/{name:path}", service.one_model),
            post("/v1/chat/completions", service.chat),
            post("/v1/completions", service.completion),
            post("/v1/fim/completions", service.completion),
            post("/v1/edit/completions", service.edit),
            post("/infill", service.infill),
            post("/v1/feedback", service.store_choice),
            get("/v1/feedback", service.count_choices),
        ],
        exception_handlers={HTTPException: refuse_http},
        lifespan=lifespan,
    )


async def refuse_http(request: Request, error: Exception) -> Response:
    """An unknown path or method, as an API error."""
    assert isinstance(error, HTTPException)
    message = {404: "there is no such path", 405: "the path takes another method"}
    text = f"{request.method} {request.url.path}: " + message.get(
        error.status_code, error.detail
    )
    return ApiError(error.status_code, text, code="not_found").response()


class Service:
    """The handlers of one model."""

    def __init__(self, model: Model, config: ServerConfig, overrides: SamplerOptions):
        """Checks the recipe; `start` starts the worker."""
        self.model, self.config, self.overrides = model, config, overrides
        self.metrics, self.jobs = Metrics(), Jobs(model, config)
        self.started = int(time.time())
        file = config.feedback
        self.feedback = None if file is None else FeedbackStore(file)
        self.worker: Worker
        self.new_engine()  # refuses a recipe before a client comes

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
                if not free:
                    self.check_key(request)
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

    def check_key(self, request: Request) -> None:
        """Raises `ApiError` if there are keys and the request has none of them."""
        if not self.config.key_digests:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(key.strip().encode()).hexdigest()
        known = [hmac.compare_digest(given, each) for each in self.config.key_digests]
        if scheme.lower() != "bearer" or not any(known):
            message = "the API key is missing or wrong; send Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key")

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

    async def chat(self, request: Request) -> Response:
        """Completes a conversation."""
        body, dropped = await self.read(request, bodies.ChatBody)
        jobs = await run_in_threadpool(self.jobs.of_chat, body)
        form = answers.ChatForm(self.model.tokenizer, logprobs=bool(body.logprobs))
        return await self.respond(
            request, body, jobs, form, "chat.completion", dropped=dropped
        )

    async def completion(self, request: Request) -> Response:
        """Continues texts, or fills holes in them."""
        body, dropped = await self.read(request, bodies.CompletionBody)
        jobs = await run_in_threadpool(self.jobs.of_completion, body)
        form = answers.TextForm()
        return await self.respond(
            request, body, jobs, form, "text_completion", dropped=dropped
        )

    async def edit(self, request: Request) -> Response:
        """Edits code by Mercury's tags. A result that does not parse where the code did
        is not handed out: the content is "None" then, and no edit."""
        body, dropped = await self.read(request, bodies.EditBody)
        job, _, frame = await run_in_threadpool(self.jobs.of_edit, body)
        (found,) = await self.collect(request, [job])
        cut_off = found.finish_reason == "length"
        objection = frame.objection(found.text, cut_off=cut_off)
        content = holes.NO_EDIT if objection else f"```\n{found.text}```"
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": found.finish_reason}
        return JSONResponse(
            answers.envelope("edit.completion", self.config.name)
            | {"choices": [choice], "usage": answers.usage([found])}
            | warning_of(dropped + ([objection] if objection else []))
        )

    async def infill(self, request: Request) -> Response:
        """Fills a hole, for editors that speak to llama.cpp."""
        found = await read_json(request, self.config.max_body_bytes)
        body, _ = bodies.parse(bodies.InfillBody, found)
        jobs = await run_in_threadpool(self.jobs.of_infill, body)
        began = time.monotonic()
        completions = await self.collect(request, jobs)
        ms = 1000 * (time.monotonic() - began)
        first = completions[0] if completions else None
        new = 0 if first is None else len(first.tokens)
        prompt = 0 if first is None else first.prompt_tokens
        timings = {
            "prompt_n": prompt,
            "prompt_ms": 0.0,
            "prompt_per_token_ms": 0.0,
            "prompt_per_second": 0.0,
            "predicted_n": new,
            "predicted_ms": round(ms, 3),
            "predicted_per_token_ms": round(ms / new, 3) if new else 0.0,
            "predicted_per_second": round(1000 * new / ms, 3) if ms else 0.0,
        }
        answer: dict[str, Any] = {
            "content": "" if first is None else first.text,
            "model": self.config.name,
            "stop": True,
            "tokens_predicted": new,
            "tokens_evaluated": prompt,
            "tokens_cached": 0,
            "truncated": first is not None and first.finish_reason == "length",
            "timings": timings,
        }
        if body.response_fields is not None:
            flat = answer | {f"timings/{k}": v for k, v in timings.items()}
            answer = {name: flat[name] for name in body.response_fields if name in flat}
        return JSONResponse(answer)

    async def store_choice(self, request: Request) -> Response:
        """Stores whether a completion was accepted."""
        store = self.open_store()
        body, _ = await self.read(request, bodies.FeedbackBody)
        choice = Choice(
            model=self.config.name,
            prompt=body.prompt,
            completion=body.completion,
            accepted=body.accepted,
            suffix=body.suffix,
            instruction=body.instruction,
        )
        try:
            await run_in_threadpool(store.add, choice)
        except sqlite3.Error as error:
            LOG.error("feedback is not stored: %s", error)
            message = f"the choice could not be stored: {error}"
            raise ApiError(503, message, code="not_stored") from None
        return await self.count_choices(request)

    async def count_choices(self, request: Request) -> Response:
        """How many completions were accepted and rejected."""
        accepted, rejected = await run_in_threadpool(self.open_store().counts)
        return JSONResponse({"accepted": accepted, "rejected": rejected})

    def open_store(self) -> FeedbackStore:
        """The store of choices; raises `ApiError` if there is none."""
        if self.feedback is None:
            message = "this server stores no feedback; start it with --feedback FILE"
            raise ApiError(404, message, code="no_feedback")
        return self.feedback

    async def read(
        self, request: Request, kind: type[bodies.BodyT]
    ) -> tuple[bodies.BodyT, list[str]]:
        """The body of a request to this model, and the fields that are ignored."""
        found = await read_json(request, self.config.max_body_bytes)
        body, dropped = bodies.parse(kind, found, self.config.ignored)
        self.check_model(getattr(body, "model", None))
        return body, dropped

    async def respond(
        self,
        request: Request,
        body: bodies.ChatBody | bodies.CompletionBody,
        jobs: Sequence[Job],
        form: answers.Form,
        kind: str,
        *,
        dropped: list[str],
    ) -> Response:
        """The choices of some jobs, at once or as a stream."""
        if body.stream_options is not None and not body.stream:
            message = "stream_options are for stream=true"
            raise ApiError(400, message, param="stream_options", code="invalid_value")
        if not body.stream:
            found = await self.collect(request, jobs)
            choices = [form.choice(i, each) for i, each in enumerate(found)]
            return JSONResponse(
                answers.envelope(kind, self.config.name)
                | {"choices": choices, "usage": answers.usage(found)}
                | warning_of(dropped)
            )
        updates = merged([self.worker.run(job) for job in jobs])
        try:
            first = await anext(updates)  # a refusal is still a status of its own
        except BaseException:
            await updates.aclose()
            raise
        options = body.stream_options
        with_usage = options is not None and options.include_usage
        chunk = f"{kind}.chunk" if kind.startswith("chat") else kind
        around = answers.envelope(chunk, self.config.name) | warning_of(dropped)
        events = self.events(first, updates, len(jobs), form, around, with_usage)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            events, media_type="text/event-stream", headers=headers
        )

    async def events(
        self,
        first: "Numbered",
        updates: AsyncGenerator["Numbered", None],
        count: int,
        form: answers.Form,
        around: dict[str, Any],
        with_usage: bool,
    ) -> AsyncIterator[bytes]:
        """The events of a stream; the last of them is [DONE]."""

        def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
            return sent(around | {"choices": choices} | more)

        finished: list[Completion] = []
        async with contextlib.aclosing(chained(first, updates)) as news:
            openings = [form.opening(i) for i in range(count)]
            for opening in filter(None, openings):
                yield event([opening])
            try:
                async for index, update in news:
                    if update.text:
                        yield event([form.delta(index, update.text)])
                    if update.completion is not None:
                        finished.append(update.completion)
                        yield event([form.end(index, update.completion)])
            except ApiError as error:
                yield sent(error.body())
                return
        if with_usage:
            yield event([], usage=answers.usage(finished))
        yield b"data: [DONE]\n\n"

    async def collect(self, request: Request, jobs: Sequence[Job]) -> list[Completion]:
        """The completions of jobs. They are cancelled if the client leaves.

        Raises:
          ApiError: if a job fails.
        """
        found: dict[int, Completion] = {}

        async def work() -> None:
            updates = merged([self.worker.run(job) for job in jobs])
            async with contextlib.aclosing(updates):
                async for index, update in updates:
                    if update.completion is not None:
                        found[index] = update.completion

        working = asyncio.ensure_future(work())
        leaving = asyncio.ensure_future(disconnection(request))
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


Numbered = tuple[int, Update]


async def merged(
    sources: Sequence[AsyncGenerator[Update, None]],
) -> AsyncGenerator[Numbered, None]:
    """The updates of several jobs, each with the number of its job, as they come."""
    queue: asyncio.Queue[Numbered | BaseException | None] = asyncio.Queue()

    async def pump(index: int, source: AsyncGenerator[Update, None]) -> None:
        try:
            async for update in source:
                queue.put_nowait((index, update))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)
        finally:
            await source.aclose()

    tasks = [asyncio.create_task(pump(i, each)) for i, each in enumerate(sources)]
    running = len(tasks)
    try:
        while running:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def chained(
    first: Numbered, rest: AsyncGenerator[Numbered, None]
) -> AsyncGenerator[Numbered, None]:
    """An update, and those after it."""
    async with contextlib.aclosing(rest):
        yield first
        async for item in rest:
            yield item


async def disconnection(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def read_json(request: Request, most: int) -> Any:
    """The JSON value in the body of a request.

    Raises:
      ApiError: for a body that is larger than `most` bytes, slow to come, or no JSON.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    message = f"the body has more than {most} bytes; send less"
                    raise ApiError(413, message, code="body_too_large")
                parts.append(part)
    except TimeoutError:
        message = f"the body was not complete after {BODY_SECONDS:g} s"
        raise ApiError(408, message, code="timeout") from None
    try:
        found = json.loads(b"".join(parts).decode("utf-8"))
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # no lone surrogates
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        message = f"the body is no JSON in UTF-8: {reason}"
        raise ApiError(400, message, code="invalid_json") from None
    return found


def sent(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def warning_of(dropped: Sequence[str]) -> dict[str, str]:
    """The field that says what was ignored; none if nothing was."""
    return {"warning": "ignored: " + ", ".join(dropped)} if dropped else {}
