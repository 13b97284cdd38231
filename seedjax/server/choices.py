"""The handlers of feedback: completions that users accepted or rejected."""

import json
import sqlite3
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from seedjax.server.bodies import FeedbackBody
from seedjax.server.errors import ApiError
from seedjax.server.feedback import Choice, FeedbackStore
from seedjax.server.gate import LOG
from seedjax.server.service import Service


@dataclass(frozen=True)
class Choices:
    """Handlers over one store.

    Attributes:
      service: the model whose completions are judged.
      store: None if the server stores none.
    """

    service: Service
    store: FeedbackStore | None

    async def add(self, request: Request) -> Response:
        """Stores whether a completion was accepted."""
        store = self.open_store()
        body, _ = await self.service.read(request, FeedbackBody)
        messages = None
        if body.messages is not None:
            messages = json.dumps([message.plain() for message in body.messages])
        choice = Choice(
            model=self.service.config.name,
            prompt=body.prompt or "",
            completion=body.completion,
            accepted=body.accepted,
            suffix=body.suffix,
            instruction=body.instruction,
            messages=messages,
        )
        try:
            await run_in_threadpool(store.add, choice)
        except sqlite3.Error as error:
            LOG.error("feedback is not stored: %s", error)
            message = f"the choice could not be stored: {error}"
            raise ApiError(503, message, code="not_stored") from None
        return await self.count(request)

    async def count(self, request: Request) -> Response:
        """How many completions were accepted and rejected."""
        accepted, rejected = await run_in_threadpool(self.open_store().counts)
        return JSONResponse({"accepted": accepted, "rejected": rejected})

    def open_store(self) -> FeedbackStore:
        """The store of choices; raises `ApiError` if there is none."""
        if self.store is None:
            message = "this server stores no feedback; start it with --feedback FILE"
            raise ApiError(404, message, code="no_feedback")
        return self.store
