"""From the body of a request to completions to decode.

chat               the model's chat template
completion         text to continue; with a suffix, or another model's
                   fill-in-the-middle tokens in the prompt, a hole
infill             llama.cpp's words for a hole
edit               code between tags, and what to do with it
"""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seedjax.errors import InputError
from seedjax.inference.frames import Frame, frame_of_program
from seedjax.inference.model import Model
from seedjax.inference.requests import read_edits, read_holes, read_prompts
from seedjax.sampling.grammar.build import Grammar, JsonSchema
from seedjax.sampling.recipe import SamplerConfig
from seedjax.server import holes
from seedjax.server.bodies import (
    Body,
    ChatBody,
    CompletionBody,
    EditBody,
    GenerateBody,
    InfillBody,
    ResponseFormat,
)
from seedjax.server.config import ServerConfig
from seedjax.server.errors import ApiError
from seedjax.server.tools import takes_tools
from seedjax.server.worker import Job
from seedjax.text.prompts import edit_budget

INFILL_TOKENS = 128  # longest completion of a hole without a limit of its own


@dataclass(frozen=True)
class Jobs:
    """Makes jobs for one model, within the limits of a server.

    Attributes:
      model: that decodes them.
      config: the limits.
      sampler: the server's recipe.
    """

    model: Model
    config: ServerConfig
    sampler: SamplerConfig

    def of_chat(self, body: ChatBody) -> list[Job]:
        """One job for each of the `n` choices.

        Raises:
          ApiError: for a model without a chat template, messages that it does not
            take, or what is too long.
        """
        messages = [message.plain() for message in body.messages]
        called = any(message.tool_calls for message in body.messages)
        tokenizer = self.model.tokenizer
        template = getattr(tokenizer, "chat_template", None)
        if (body.offered or called) and not takes_tools(template):
            text = (
                "the model's chat template knows no tools; leave tools and tool_calls "
                "out, or serve a model that was taught them"
            )
            param = "tools" if body.offered else "messages"
            raise ApiError(400, text, param=param, code="unsupported_parameter")
        offered = [tool.model_dump(exclude_none=True) for tool in body.offered]
        variables = {"tools": offered} if offered else None
        prompt = self._tokens(
            lambda: tokenizer.encode_chat(messages, variables=variables)
        )
        grammar = self._grammar(body.response_format)
        return self._jobs(body, [prompt], body.budget, n=body.n or 1, grammar=grammar)

    def of_completion(self, body: CompletionBody) -> list[Job]:
        """One job for each prompt and choice.

        Raises:
          ApiError: for an empty or too long prompt, or a hole in a text for a model
            that fills none.
        """
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        found = [self._completion_prompt(prompt, body.suffix) for prompt in prompts]
        return self._jobs(body, found, body.budget, n=body.n or 1)

    def _completion_prompt(self, prompt: str, suffix: str | None) -> list[int]:
        tokenizer = self.model.tokenizer
        hole = holes.hole_in(prompt) if suffix is None else holes.Hole(prompt, suffix)
        if hole is None:
            return self._tokens(lambda: read_prompts(prompt, tokenizer)[0])
        return self._hole_prompt(*hole)

    def _hole_prompt(self, prefix: str, suffix: str) -> list[int]:
        tokenizer = self.model.tokenizer
        return self._tokens(
            lambda: read_holes(prefix, suffix, tokenizer).prompts(tokenizer)[0]
        )

    def of_generate(self, body: GenerateBody) -> Job:
        """The one job of a prompt, a text or token ids.

        Raises:
          ApiError: for an empty or too long prompt.
        """
        prompt, tokenizer = body.prompt, self.model.tokenizer
        if isinstance(prompt, str):
            text = prompt
            prompt = self._tokens(lambda: read_prompts(text, tokenizer)[0])
        (job,) = self._jobs(body, [prompt], body.budget)
        return job

    def of_infill(self, body: InfillBody) -> list[Job]:
        """One job; none for the request that only warms up, `n_predict` 0. Other files
        stand before the prefix, the last of them next to it, as far as there is room.

        Raises:
          ApiError: for a model that fills no holes, or what is too long.
        """
        if body.n_predict == 0:
            return []
        budget = min(
            body.n_predict if body.n_predict > 0 else INFILL_TOKENS,
            self.config.max_new_tokens,
        )
        prefix = body.input_prefix + body.prompt
        given = [f"# {file.filename}\n{file.text}\n" for file in body.input_extra]
        while True:
            whole = "".join(given) + prefix
            prompt = self._hole_prompt(whole, body.input_suffix)
            if not given or len(prompt) <= self._room:
                break
            given.pop(0)
        self._check(prompt, budget)
        self._check_samplers(body)
        return [
            Job(
                prompt=prompt,
                max_new_tokens=budget,
                temperature=body.temperature,
                top_k=self._top_k(body.top_k),
                top_p=body.top_p,
                seed=abs(body.seed or 0),
                stop=tuple(body.stop),
                max_seconds=body.max_seconds,
            )
        ]

    def of_edit(
        self, body: EditBody, read: Callable[[str], holes.EditRequest]
    ) -> tuple[Job, Frame]:
        """The job, and what the result has to parse as.

        Args:
          body: with one message.
          read: the edit that the message describes.

        Raises:
          ApiError: for a message without code to edit, a model that does not edit, or
            what is too long.
        """
        content = str(body.messages[0].plain()["content"])
        request = read(content)
        tokenizer = self.model.tokenizer
        prompt = self._tokens(
            lambda: read_edits(request.code, request.instruction, tokenizer)[1][0]
        )
        codes = tokenizer.encode_batch([request.code])
        most = self.config.max_new_tokens
        room = len(prompt) + most
        if len(codes[0]) > most:
            raise ApiError(
                400,
                f"the code to edit has {len(codes[0])} tokens, and this server writes "
                f"at most {most}; send less of it, or start the server with a larger "
                "--max-new-tokens",
                param="messages",
                code="context_length_exceeded",
            )
        usual = edit_budget(codes, [prompt], min(64, most), room)
        budget = body.budget or min(usual, most)
        (job,) = self._jobs(body, [prompt], budget)
        return job, frame_of_program(request.code)

    def _jobs(
        self,
        body: Body,
        prompts: Sequence[list[int]],
        budget: int | None,
        *,
        n: int = 1,
        grammar: Grammar | None = None,
    ) -> list[Job]:
        config = self.config
        if budget is not None and budget > config.max_new_tokens:
            raise ApiError(
                400,
                f"max_tokens is {budget}; this server writes at most "
                f"{config.max_new_tokens}",
                param="max_tokens",
                code="invalid_value",
            )
        first = secrets.randbits(31) if body.seed is None else body.seed
        for prompt in prompts:
            self._check(prompt, budget or config.max_new_tokens)
        return [
            Job(
                prompt=prompt,
                max_new_tokens=budget or config.max_new_tokens,
                temperature=body.temperature,
                top_k=self._top_k(body.top_k),
                top_p=body.top_p,
                logit_bias={int(k): v for k, v in (body.logit_bias or {}).items()},
                seed=first + number,
                stop=body.stop_strings(),
                grammar=grammar,
                one_by_one=getattr(body, "policy", None) is not None,
            )
            for prompt in prompts
            for number in range(n)
        ]

    def _top_k(self, given: int | None) -> int | None:
        """For the engine; 0 keeps all."""
        return self.model.config.vocab_size if given == 0 else given

    def _check_samplers(self, body: InfillBody) -> None:
        """Raises `ApiError` for samplers of llama.cpp that would draw otherwise than
        this server."""
        usual = self.sampler.temperature
        draws = (usual if body.temperature is None else body.temperature) > 0
        if body.samplers is None or not draws:
            return
        filters = {"top_k": body.top_k, "top_p": body.top_p}
        left_out = [
            name
            for name, value in filters.items()
            if value is not None and name not in body.samplers
        ]
        unknown = [s for s in body.samplers if s not in (*filters, "temperature")]
        if unknown or left_out or "temperature" not in body.samplers:
            names = ", ".join(body.samplers)
            raise ApiError(
                400,
                f"samplers are {names}; above temperature 0 this server has top_k, "
                "top_p and temperature: leave samplers out, or give temperature 0",
                param="samplers",
                code="unsupported_parameter",
            )

    @property
    def _room(self) -> int:
        """Tokens of the longest prompt."""
        most = self.config.max_prompt_tokens
        whole = self.model.config.max_positions - self.config.max_new_tokens
        return whole if most is None else most

    def _check(self, prompt: list[int], budget: int) -> None:
        if (excess := len(prompt) - self._room) > 0:
            raise ApiError(
                400,
                f"the prompt has {len(prompt)} tokens, {excess} more than this server "
                f"has room for beside {budget} new ones; shorten it",
                param="prompt",
                code="context_length_exceeded",
            )

    def _grammar(self, form: ResponseFormat | None) -> Grammar | None:
        """The grammar that a completion of a form has to match; None if that is any
        text. Its automaton is made here, where nobody else waits for it.

        Raises:
          ApiError: for a schema that is missing or not supported.
        """
        if form is None or form.type == "text":
            return None
        schema: object = {"type": "object"}
        if form.type == "json_schema":
            schema = (form.json_schema or {}).get("schema")
        fault = "response_format.json_schema.schema is missing; give a JSON schema"
        if isinstance(schema, dict):
            try:
                grammar = JsonSchema(schema=json.dumps(schema))
                self.model.automaton(grammar, self.sampler)
                return grammar
            except InputError as error:
                fault = str(error)
        raise ApiError(400, fault, param="response_format", code="invalid_value")

    @staticmethod
    def _tokens(encode: Callable[[], list[int]]) -> list[int]:
        """The tokens of a prompt; what its reader refuses is the client's fault."""
        try:
            return encode()
        except InputError as error:
            raise ApiError(400, str(error), code="invalid_value") from None
