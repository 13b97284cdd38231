"""Completions in the words of Diffulex: POST /generate.

append            tokens of a finished block, and their text
buffer_snapshot   the current block after a denoising step; `absolute_start` and
                  `absolute_end` are its places in prompt and completion
final             the whole
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from seedjax.inference.in_flight import Completion
from seedjax.server.canvases import MASK, LiveCanvas
from seedjax.server.errors import ApiError
from seedjax.server.streams import DONE, Numbered, sent


def final(completion: Completion, name: str) -> dict[str, Any]:
    """The whole of a completion."""
    return {
        "id": name,
        "text": completion.text,
        "token_ids": completion.tokens,
        "nfe": completion.steps,
        "finish_reason": completion.finish_reason,
        "full_text": completion.text,
        "full_token_ids": completion.tokens,
    }


async def events(
    updates: AsyncGenerator[Numbered, None],
    canvas: LiveCanvas,
    name: str,
    snapshots: bool,
) -> AsyncIterator[bytes]:
    """The events of a stream.

    Args:
      updates: of one job.
      canvas: of it.
      name: of the request.
      snapshots: whether each denoising step is an event.
    """
    async with contextlib.aclosing(updates) as news:
        try:
            async for _, update in news:
                offset = len(canvas.tokens)
                for step in update.steps:
                    drawn = canvas.apply(step)
                    if snapshots:
                        yield sent(snapshot(drawn, canvas, name))
                completion = update.completion
                whole = canvas.tokens if completion is None else completion.tokens
                if whole[offset:]:
                    yield sent(
                        {
                            "event": "append",
                            "id": name,
                            "token_offset": offset,
                            "text": update.text,
                            "token_ids": whole[offset:],
                            "nfe": canvas.step + 1,
                            "finished": completion is not None,
                        }
                    )
                if completion is not None:
                    yield sent({"event": "final"} | final(completion, name))
        except ApiError as error:
            yield sent({"event": "error", "id": name, "message": error.message})
    yield DONE


def snapshot(drawn: dict[str, Any], canvas: LiveCanvas, name: str) -> dict[str, Any]:
    """The current block, masks included, as an event."""
    begin, end = drawn["begin"], drawn["end"]
    cells = [cell for cell in drawn["cells"] if cell["state"] != "deleted"][begin:]
    mask = canvas.model.config.mask_token_id
    return {
        "event": "buffer_snapshot",
        "id": name,
        "token_offset": begin,
        "absolute_start": canvas.prompt_tokens + begin,
        "absolute_end": canvas.prompt_tokens + end,
        "text": "".join(MASK if c["token"] is None else c["text"] for c in cells),
        "token_ids": [mask if c["token"] is None else c["token"] for c in cells],
        "nfe": canvas.step + 1,
        "finished": False,
    }
