"""Bodies of requests: which fields there are, and which values they may have.

An unknown field is refused, and so is a known one that the server cannot honour:
nothing that a client asks for is silently left out. `REFUSED` fields are named so that
the message can say what is wrong with them instead of that they are unknown.
"""

import asyncio
import json
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from starlette.requests import Request

from seedjax.errors import did_you_mean
from seedjax.server.errors import ApiError
from seedjax.server.tools import as_template_reads

BODY_SECONDS = 20.0  # that a client may take to send a request
BodyT = TypeVar("BodyT", bound=BaseModel)
Stop = Annotated[str, Field(min_length=1)]
TokenId = Annotated[str, Field(pattern="^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100, strict=False)]
Stops = Stop | Annotated[list[Stop], Field(max_length=16)] | None


class Body(BaseModel):
    """Fields of every request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    # Fields with the only values that change nothing.
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "presence_penalty": (0, None),
        "frequency_penalty": (0, None),
        "repetition_penalty": (1, None),
        "repeat_penalty": (1, None),
        "best_of": (1, None),
        "echo": (False, None),
        "min_p": (0, None),
        "functions": ([], None),
        "diffusing": (False, None),
        "stream_mode": ("commit", None),
        "function_call": ("none", None),
        "prediction": (None,),
        "audio": (None,),
        "web_search_options": (None,),
        "reasoning_effort": ("instant", "none", None),
        "reasoning_summary": (False, None),
        "realtime": (False, None),
        "verbosity": ("medium", None),
        "prompt_cache_retention": (None,),
        "store": (False, None),
        "service_tier": ("auto", "default", None),
        "modalities": (["text"], None),
        "top_logprobs": (0, None),
    }

    model: str | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=0)] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    logit_bias: dict[TokenId, Bias] | None = None
    stop: Stops = None
    stream: bool | None = False
    # Said of the request; nothing that a completion depends on.
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none if they are left out."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def budget(self) -> int | None:
        """Longest completion; None is the server's."""
        return self.max_tokens


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False


class Streamed(Body):
    """Fields of a request whose completions may be streamed. The policy `one_by_one`
    unmasks a token per step, from the left, to compare with; else it is the model's."""

    stream_mode: Literal["commit", "denoise", "block_append"] = "commit"
    diffusing: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int | None, Field(ge=1, le=8)] = 1
    policy: Literal["one_by_one"] | None = None

    @property
    def mode(self) -> Literal["commit", "denoise", "block_append", "diffusing"]:
        """The content of a stream."""
        return "diffusing" if self.diffusing else self.stream_mode

    @model_validator(mode="after")
    def check_stream(self) -> "Streamed":
        """Raises `ApiError` for fields of a stream without one."""
        given = {
            "stream_options": self.stream_options is not None,
            "diffusing": bool(self.diffusing),
            "stream_mode": self.stream_mode != "commit",
        }
        for name, is_given in given.items():
            if is_given and not self.stream:
                message = f"{name} is for stream=true; leave it out, or stream"
                raise ApiError(400, message, param=name, code="invalid_value")
        if self.diffusing and self.stream_mode != "commit":
            message = "give diffusing or stream_mode, not both"
            raise ApiError(400, message, param="diffusing", code="invalid_value")
        return self


class TextPart(BaseModel):
    """A part of a message that is text; there are no others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    """A function that the model called, and with what: JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call of an earlier turn."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Function(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: Literal[False] | None = None  # arguments are not held to the schema


class Tool(BaseModel):
    """A tool; there are none but functions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: Function


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCall] | None = None

    def plain(self) -> dict[str, Any]:
        """As a chat template reads it."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        fields = {"name": self.name, "tool_call_id": self.tool_call_id}
        kept: dict[str, Any] = {k: v for k, v in fields.items() if v is not None}
        if self.tool_calls:
            calls = [call.model_dump() for call in self.tool_calls]
            kept["tool_calls"] = list(map(as_template_reads, calls))
        return {"role": role, "content": content or "", **kept}


class ResponseFormat(BaseModel):
    """The form of a completion."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, JsonValue] | None = None


class ChatBody(Streamed):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = False
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: Literal[True] | None = None

    @property
    def offered(self) -> list[Tool]:
        """The tools that the model is told of."""
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def budget(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(Streamed):
    """POST /v1/completions and /v1/fim/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=8)]
    suffix: str | None = None
    logprobs: Literal[0] | None = None  # 0: of the tokens themselves
    environment: None = None  # sent, always empty, by an editor


class EditBody(Body):
    """POST /v1/edit/completions: one message that holds code between tags."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1)]
    stream_mode: Literal["commit", "denoise"] = "commit"


class GenerateBody(Body):
    """POST /generate, in the words of Diffulex."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "max_nfe": (None,),
        "max_repetition_run": (None,),
        "ignore_eos": (False, None),
    }

    prompt: str | Annotated[list[int], Field(min_length=1)]
    stream_mode: Literal["denoise", "block_append"] = "denoise"


class ExtraInput(BaseModel):
    """Another file, for the context of a hole."""

    model_config = ConfigDict(extra="allow", strict=True)

    text: str = ""
    filename: str = ""


class InfillBody(BaseModel):
    """POST /infill, in the words of llama.cpp. `samplers` matter at a temperature
    above 0 only. `t_max_prompt_ms` does nothing in llama.cpp either."""

    model_config = ConfigDict(extra="forbid", strict=True)

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {"id_slot": (-1, None)}

    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: list[ExtraInput] = []
    prompt: str = ""
    n_predict: Annotated[int, Field(ge=-1)] = -1
    n_indent: Annotated[int, Field(ge=0)] = 0  # least indentation of further lines
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_k: Annotated[int | None, Field(ge=0)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    samplers: list[str] | None = None
    seed: int | None = None
    stop: list[Stop] = []
    stream: Literal[False] = False
    cache_prompt: bool = True
    t_max_prompt_ms: int | None = None
    t_max_predict_ms: Annotated[int | None, Field(ge=0)] = None
    response_fields: list[str] | None = None

    @property
    def max_seconds(self) -> float | None:
        """Longest time of decoding; 0 is no limit, as in llama.cpp."""
        return self.t_max_predict_ms / 1000 if self.t_max_predict_ms else None


class FeedbackBody(BaseModel):
    """POST /v1/feedback: a completion that was accepted or rejected. `prompt` and
    `suffix` are those of a text completion, `messages` those of a chat; for an edit
    `prompt` is the program, and `instruction` what to change in it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message] | None, Field(min_length=1)] = None
    suffix: str | None = None
    instruction: Annotated[str | None, Field(min_length=1)] = None
    completion: str
    accepted: bool

    @model_validator(mode="after")
    def check_prompt(self) -> "FeedbackBody":
        """Raises `ApiError` unless it is of a text, a hole, an edit or a chat."""
        is_chat = self.messages is not None
        if is_chat == (self.prompt is not None):
            message = "give the prompt of a text or an edit, or the messages of a chat"
            raise ApiError(400, message, param="prompt", code="invalid_value")
        given = {"messages": is_chat, "suffix": self.suffix is not None}
        given["instruction"] = self.instruction is not None
        names = [name for name, is_given in given.items() if is_given]
        if len(names) > 1:
            message = f"give {' or '.join(names)}, not both"
            raise ApiError(400, message, param=names[1], code="invalid_value")
        return self


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


def parse(
    kind: type[BodyT], found: Any, ignored: frozenset[str] = frozenset()
) -> tuple[BodyT, list[str]]:
    """A body of a kind, and the names of the fields that were ignored.

    Raises:
      ApiError: for what is no such body, or asks for what is not supported.
    """
    if not isinstance(found, dict):
        raise ApiError(400, "the body is no JSON object", code="invalid_body")
    given, dropped = dict(found), []
    for name, neutral in getattr(kind, "NEUTRAL", {}).items():
        if name in kind.model_fields or name not in given:
            continue
        value = given.pop(name)
        if value in neutral:
            continue
        if name not in ignored:
            values = " or ".join(repr(v) for v in neutral if v is not None)
            message = (
                f"{name} is not supported here; leave it out, or give {values}. The "
                f"server ignores it if started with --ignore {name}"
            )
            raise ApiError(400, message, param=name, code="unsupported_parameter")
        dropped.append(name)
    for name in sorted(set(given) & ignored):
        del given[name]
        dropped.append(name)
    try:
        return kind.model_validate(given), dropped
    except ValidationError as error:
        raise _refusal(error, kind) from None


def _refusal(error: ValidationError, kind: type[BaseModel]) -> ApiError:
    """The first fault of a body, as an error."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        hint = did_you_mean(name, kind.model_fields) if len(first["loc"]) == 1 else ""
        message = f"unknown parameter {path!r}{hint}"
        return ApiError(400, message, param=path, code="unknown_parameter")
    reason = first["msg"].lower()
    if first["type"] == "literal_error" and "content" in path and "type" in path:
        reason = "only parts of type 'text' are supported; the model reads no images"
    return ApiError(400, f"{path}: {reason}", param=path, code="invalid_value")
