"""The handlers that decode: chat, completions, edits and holes."""

import dataclasses
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from seedjax.inference.in_flight import Completion
from seedjax.server import answers, bodies, diffulex, holes, streams
from seedjax.server.jobs import Jobs
from seedjax.server.service import Service
from seedjax.server.streams import Choice, Mode
from seedjax.server.worker import Job


@dataclass(frozen=True)
class Endpoints:
    """Handlers over one service.

    Attributes:
      service: the model and its worker.
      jobs: from bodies to jobs.
    """

    service: Service
    jobs: Jobs

    async def chat(self, request: Request) -> Response:
        """Completes a conversation."""
        body, dropped = await self.service.read(request, bodies.ChatBody)
        jobs = await run_in_threadpool(self.jobs.of_chat, body)
        tokenizer = self.service.model.tokenizer
        form = answers.ChatForm(
            tokenizer, logprobs=bool(body.logprobs), calls=bool(body.offered)
        )
        return await self.respond(request, body, jobs, form, "chat.completion", dropped)

    async def completion(self, request: Request) -> Response:
        """Continues texts, or fills holes in them."""
        body, dropped = await self.service.read(request, bodies.CompletionBody)
        jobs = await run_in_threadpool(self.jobs.of_completion, body)
        shows = body.logprobs is not None
        form = answers.TextForm(self.service.model.tokenizer, logprobs=shows)
        return await self.respond(request, body, jobs, form, "text_completion", dropped)

    async def edit(self, request: Request) -> Response:
        """Edits code by Mercury's tags."""
        return await self._edit(request, holes.edit_in, "edit.completion")

    async def apply(self, request: Request) -> Response:
        """Merges an update into code, by Mercury's tags."""
        return await self._edit(request, holes.update_in, "apply.completion")

    async def _edit(
        self, request: Request, read: Callable[[str], holes.EditRequest], kind: str
    ) -> Response:
        """The response to an edit. A result that does not parse where the code did is
        not handed out: the content is "None" then, and no edit."""
        body, dropped = await self.service.read(request, bodies.EditBody)
        job, frame = await run_in_threadpool(self.jobs.of_edit, body, read)
        form = answers.EditForm(frame)
        if not body.stream:
            (found,) = await self.service.collect(request, [job])
            objection = form.objection(found)
            dropped += [objection] if objection else []
            return self.whole([found], form, kind, dropped)
        return await self.stream(request, [job], form, kind, body.stream_mode, dropped)

    async def generate(self, request: Request) -> Response:
        """Continues a text in the words of Diffulex."""
        body, _ = await self.service.read(request, bodies.GenerateBody)
        job = await run_in_threadpool(self.jobs.of_generate, body)
        name = f"gen-{secrets.token_hex(12)}"
        if not body.stream:
            (found,) = await self.service.collect(request, [job])
            return JSONResponse(diffulex.final(found, name))
        job = dataclasses.replace(job, shows=True)
        updates = await streams.begun([self.service.run(request, job)])
        canvas = self.service.canvas(job)
        snapshots = body.stream_mode == "denoise"
        return streams.response(diffulex.events(updates, canvas, name, snapshots))

    async def infill(self, request: Request) -> Response:
        """Fills a hole, for editors that speak to llama.cpp."""
        found = await bodies.read_json(request, self.service.config.max_body_bytes)
        body, _ = bodies.parse(bodies.InfillBody, found, self.service.config.ignored)
        jobs = await run_in_threadpool(self.jobs.of_infill, body)
        began = time.monotonic()
        completions = await self.service.collect(request, jobs)
        seconds = time.monotonic() - began
        first = completions[0] if completions else None
        answer = answers.infill(first, seconds, self.service.config.name)
        answer["content"] = holes.cut_at_dedent(answer["content"], body.n_indent)
        if body.response_fields is not None:
            flat = answer | {f"timings/{k}": v for k, v in answer["timings"].items()}
            answer = {name: flat[name] for name in body.response_fields if name in flat}
        return JSONResponse(answer)

    async def respond(
        self,
        request: Request,
        body: bodies.ChatBody | bodies.CompletionBody,
        jobs: Sequence[Job],
        form: answers.Form,
        kind: str,
        dropped: list[str],
    ) -> Response:
        """The choices of some jobs, at once or as a stream."""
        if not body.stream:
            found = await self.service.collect(request, jobs)
            return self.whole(found, form, kind, dropped)
        options = body.stream_options
        with_usage = options is not None and options.include_usage
        return await self.stream(
            request, jobs, form, kind, body.mode, dropped, with_usage
        )

    def whole(
        self,
        found: Sequence[Completion],
        form: answers.Form,
        kind: str,
        dropped: Sequence[str],
    ) -> JSONResponse:
        """A response that is no stream."""
        return JSONResponse(
            answers.envelope(kind, self.service.config.name)
            | {"choices": [form.choice(i, each) for i, each in enumerate(found)]}
            | {"usage": answers.usage(found)}
            | answers.warning(dropped)
        )

    async def stream(
        self,
        request: Request,
        jobs: Sequence[Job],
        form: answers.Form,
        kind: str,
        mode: Mode,
        dropped: Sequence[str],
        with_usage: bool = False,
    ) -> Response:
        """A response that is a stream; it begins with the first update."""
        service = self.service
        jobs = [dataclasses.replace(job, shows=mode != "commit") for job in jobs]
        updates = await streams.begun([service.run(request, job) for job in jobs])
        kind = kind if kind == "text_completion" else f"{kind}.chunk"
        around = answers.envelope(kind, service.config.name) | answers.warning(dropped)
        choices = [
            Choice(index, form, mode, service.canvas(job))
            for index, job in enumerate(jobs)
        ]
        return streams.response(streams.chunks(updates, choices, around, with_usage))
