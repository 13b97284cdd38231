"""Completions as server-sent events, while they are decoded.

commit         text that will not change any more, block by block
denoise        that, and the canvas after each denoising step (`canvases`)
block_append   that, and the tokens of each block
diffusing      the whole text after each step, masks in it, in place of the others
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import StreamingResponse

from seedjax.inference.in_flight import Completion
from seedjax.server import answers
from seedjax.server.canvases import LiveCanvas
from seedjax.server.errors import ApiError
from seedjax.server.worker import Update

Mode = Literal["commit", "denoise", "block_append", "diffusing"]
Numbered = tuple[int, Update]
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
DONE = b"data: [DONE]\n\n"


@dataclass
class Choice:
    """A choice of a stream.

    Attributes:
      index: of the choice.
      form: how its interface writes it.
      mode: what is streamed.
      canvas: of the choice; not read in mode `commit`.
    """

    index: int
    form: answers.Form
    mode: Mode
    canvas: LiveCanvas

    def news(self, update: Update) -> Iterator[dict[str, Any]]:
        """The choices that say what an update brings."""
        index, form, canvas = self.index, self.form, self.canvas
        completion = update.completion
        offset = len(canvas.tokens)
        for step in update.steps:
            drawn = canvas.apply(step)
            if self.mode == "denoise":
                yield form.delta(index, "") | {"canvas": drawn}
            elif self.mode == "diffusing":
                yield form.delta(index, canvas.text)
        tokens = canvas.tokens[offset:]
        if completion is not None:
            tokens = completion.tokens[offset:]
        if self.mode == "block_append" and tokens:
            appended = {"token_offset": offset, "token_ids": tokens}
            appended["nfe"] = canvas.step + 1
            yield form.delta(index, update.text) | {"append": appended}
        elif self.mode == "diffusing":
            if completion is not None and completion.text != canvas.text:
                yield form.delta(index, completion.text)
        elif update.text:
            yield form.delta(index, update.text)
        if completion is not None:
            end = form.end(index, completion)
            if self.mode == "denoise":
                end |= {"canvas": canvas.finish(completion.tokens)}
            yield end


async def chunks(
    updates: AsyncGenerator[Numbered, None],
    choices: Sequence[Choice],
    around: dict[str, Any],
    with_usage: bool,
) -> AsyncIterator[bytes]:
    """The events of a stream in OpenAI's form.

    Args:
      updates: of the jobs.
      choices: one for each job.
      around: fields of every event.
      with_usage: whether the last event says how many tokens there were.
    """

    def event(found: list[dict[str, Any]], **more: Any) -> bytes:
        return sent(around | {"choices": found} | more)

    finished: list[Completion] = []
    async with contextlib.aclosing(updates) as news:
        openings = [choice.form.opening(choice.index) for choice in choices]
        for opening in filter(None, openings):
            yield event([opening])
        try:
            async for index, update in news:
                for each in choices[index].news(update):
                    yield event([each])
                if update.completion is not None:
                    finished.append(update.completion)
        except ApiError as error:
            yield sent(error.body())
            return
    if with_usage:
        yield event([], usage=answers.usage(finished))
    yield DONE


async def begun(
    sources: Sequence[AsyncGenerator[Update, None]],
) -> AsyncGenerator[Numbered, None]:
    """The updates of jobs, of which the first is there: a refusal before it still has a
    status of its own.

    Raises:
      ApiError: if a job is refused.
    """
    updates = merged(sources)
    try:
        return chained(await anext(updates), updates)
    except BaseException:
        await updates.aclose()
        raise


def response(events: AsyncIterator[bytes]) -> StreamingResponse:
    """Server-sent events as a response."""
    return StreamingResponse(events, media_type="text/event-stream", headers=HEADERS)


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


def sent(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
