"""Completions as the JSON objects that clients of each interface read."""

import itertools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from seedjax.inference.frames import Frame
from seedjax.inference.in_flight import Completion
from seedjax.sampling.stop_strings import readable
from seedjax.server.holes import NO_EDIT
from seedjax.server.tools import OPENING, Calls, split_calls
from seedjax.text.tokenizer import Tokenizer


class Form(Protocol):
    """How an interface writes its choices."""

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        """A finished choice."""
        ...

    def delta(self, index: int, text: str) -> dict[str, Any]:
        """A choice in a stream, with the text that is added to it."""
        ...

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        """The last of a choice in a stream."""
        ...

    def opening(self, index: int) -> dict[str, Any] | None:
        """The first of a choice in a stream, if it begins with more than text."""
        ...


class ChatForm:
    """chat.completion"""

    def __init__(
        self, tokenizer: Tokenizer, *, logprobs: bool = False, calls: bool = False
    ):
        """Log-probabilities of tokens only if these are to be shown, and calls of tools
        only if there are tools."""
        self.tokenizer, self.logprobs, self.calls = tokenizer, logprobs, calls
        self._texts: dict[int, str] = {}  # so far, by choice
        self._sent: dict[int, int] = {}  # characters of its content

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        content, calls = self._parts(completion)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        message["refusal"] = None
        if calls:
            message["content"], message["tool_calls"] = content or None, calls
        return self._choice(index, {"message": message}, completion, calls)

    def opening(self, index: int) -> dict[str, Any] | None:
        return self._choice(index, {"delta": {"role": "assistant", "content": ""}})

    def delta(self, index: int, text: str) -> dict[str, Any]:
        if self.calls:
            # What may begin a call is held back, and so are calls.
            self._texts[index] = whole = self._texts.get(index, "") + text
            certain, _ = readable(whole, [OPENING])
            text = whole[:certain].rstrip()[self._sent.get(index, 0) :]
            self._sent[index] = self._sent.get(index, 0) + len(text)
        return self._choice(index, {"delta": {"content": text}})

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        content, calls = self._parts(completion)
        delta: dict[str, Any] = {}
        if self.calls and (rest := content[self._sent.get(index, 0) :]):
            delta["content"] = rest
        if calls:
            numbered = [{"index": i} | call for i, call in enumerate(calls)]
            delta["tool_calls"] = numbered
        return self._choice(index, {"delta": delta}, completion, calls)

    def _parts(self, completion: Completion) -> Calls:
        if not self.calls:
            return Calls(completion.text, [])
        return split_calls(completion.text)

    def _choice(
        self,
        index: int,
        held: dict[str, Any],
        completion: Completion | None = None,
        calls: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Any]:
        reason: str | None = None
        if completion is not None:
            reason = completion.finish_reason
        if calls and reason == "stop":
            reason = "tool_calls"
        found = None
        if completion is not None and self.logprobs:
            found = {"content": token_logprobs(completion, self.tokenizer)}
        return {"index": index, **held, "logprobs": found, "finish_reason": reason}


class TextForm:
    """text_completion"""

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool = False):
        """Log-probabilities of tokens only if these are to be shown."""
        self.tokenizer, self.logprobs = tokenizer, logprobs

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        return self._choice(index, completion.text, completion)

    def opening(self, index: int) -> dict[str, Any] | None:
        return None

    def delta(self, index: int, text: str) -> dict[str, Any]:
        return self._choice(index, text)

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        return self._choice(index, "", completion)

    def _choice(
        self, index: int, text: str, completion: Completion | None = None
    ) -> dict[str, Any]:
        reason = None if completion is None else completion.finish_reason
        found = None
        if completion is not None and self.logprobs:
            pieces = [self.tokenizer.pieces[token] for token in completion.tokens]
            texts = [piece.decode(errors="replace") for piece in pieces]
            starts = itertools.accumulate(map(len, texts), initial=0)
            found = {
                "tokens": texts,
                "token_logprobs": completion.logprobs,
                "top_logprobs": None,
                "text_offset": list(starts)[:-1],
            }
        return {
            "index": index,
            "text": text,
            "logprobs": found,
            "finish_reason": reason,
        }


@dataclass(frozen=True)
class EditForm:
    """edit.completion

    Attributes:
      frame: what the edited program has to parse as.
    """

    frame: Frame

    def objection(self, completion: Completion) -> str | None:
        """Why an edit is not handed out; None if it is."""
        cut_off = completion.finish_reason == "length"
        return self.frame.objection(completion.text, cut_off=cut_off)

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        message = {"role": "assistant", "content": self._content(completion)}
        return self._choice(index, {"message": message}, completion)

    def opening(self, index: int) -> dict[str, Any] | None:
        return self._choice(index, {"delta": {"role": "assistant", "content": ""}})

    def delta(self, index: int, text: str) -> dict[str, Any]:
        """No text: the whole comes at the end, if it parses."""
        return self._choice(index, {"delta": {"content": ""}})

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        delta = {"content": self._content(completion)}
        objection = self.objection(completion)
        return self._choice(index, {"delta": delta}, completion) | warning(
            [objection] if objection else []
        )

    def _content(self, completion: Completion) -> str:
        if self.objection(completion):
            return NO_EDIT
        return f"```\n{completion.text}```"

    def _choice(
        self, index: int, held: dict[str, Any], completion: Completion | None = None
    ) -> dict[str, Any]:
        reason = None if completion is None else completion.finish_reason
        return {"index": index, **held, "finish_reason": reason}


def token_logprobs(
    completion: Completion, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """Each token with its log-probability, and its bytes."""
    found = []
    for token, logprob in zip(
        completion.tokens, completion.logprobs or [], strict=True
    ):
        piece = tokenizer.pieces[token]
        found.append(
            {
                "token": piece.decode(errors="replace"),
                "logprob": logprob,
                "bytes": list(piece),
                "top_logprobs": [],
            }
        )
    return found


def envelope(kind: str, model: str) -> dict[str, Any]:
    """The fields around the choices of a response.

    Args:
      kind: the "object", such as chat.completion.
      model: its name.
    """
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def usage(completions: Sequence[Completion]) -> dict[str, Any]:
    """Tokens of all choices of a request. A prompt counts once, however many choices it
    has; `forwards` are the denoising steps that its choices took part in."""
    prompt = max((each.prompt_tokens for each in completions), default=0)
    cached = max((each.cached_tokens for each in completions), default=0)
    new = sum(len(each.tokens) for each in completions)
    forwards = sum(each.steps for each in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": cached},
        "forwards": forwards,
        "tokens_per_forward": round(new / forwards, 3) if forwards else None,
    }


def infill(completion: Completion | None, seconds: float, model: str) -> dict[str, Any]:
    """The response to a hole in llama.cpp's words.

    Args:
      completion: of the hole; None for a request that only warms up.
      seconds: that it took.
      model: its name.
    """
    ms = 1000 * seconds
    new = 0 if completion is None else len(completion.tokens)
    prompt = 0 if completion is None else completion.prompt_tokens
    return {
        "content": "" if completion is None else completion.text,
        "model": model,
        "stop": True,
        "tokens_predicted": new,
        "tokens_evaluated": prompt,
        "tokens_cached": 0 if completion is None else completion.cached_tokens,
        "truncated": completion is not None and completion.finish_reason == "length",
        "timings": {
            "prompt_n": prompt,
            "prompt_ms": 0.0,
            "prompt_per_token_ms": 0.0,
            "prompt_per_second": 0.0,
            "predicted_n": new,
            "predicted_ms": round(ms, 3),
            "predicted_per_token_ms": round(ms / new, 3) if new else 0.0,
            "predicted_per_second": round(1000 * new / ms, 3) if ms else 0.0,
        },
    }


def warning(dropped: Sequence[str]) -> dict[str, str]:
    """The field that says what was ignored; none if nothing was."""
    return {"warning": "ignored: " + ", ".join(dropped)} if dropped else {}
