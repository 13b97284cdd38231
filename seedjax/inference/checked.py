"""Code that parses: what does not is decoded again, more carefully.

    edit_checked      ─▶ decode ─▶ objection? ─▶ one token a step ─▶ block by block ─▶
    infill_checked                 of a row's     from the left,     or, if that cannot
                                   `Frame`        that row alone     be, draws

    generate_checked  ─▶ block by block:
                             state ─▶ advance ─▶ may the text go on? ─ yes ─▶ next block
                               ▲                        │ no
                               └── another attempt ◀────┘

A grammar of Python is no regular language, so it cannot be looked up on the device as
`seedjax.sampling.grammar.decode` does; block by block, this loop returns to the host
after every block, parses what is there (`seedjax.inference.syntax`), and decodes a
block that went wrong again: one token a step, which is the most careful way, and then
at a rising temperature.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Unpack

from seedjax.config import require
from seedjax.inference.compiled import OnBlock
from seedjax.inference.frames import Frame, frame_of_hole, frame_of_program
from seedjax.inference.generation import Generation, Seeds, Stop, judged
from seedjax.inference.model import Model
from seedjax.sampling import arguments, loop
from seedjax.sampling.loop import DecodeResult
from seedjax.sampling.options import SamplerOptions
from seedjax.sampling.policy import LeftToRight
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.state import DecodeState
from seedjax.sampling.stop_strings import conclude, readable
from seedjax.text.prompts import edit_request, editing, infilling

CAREFUL: dict[str, Any] = {
    "policy": LeftToRight(threshold=None),
    "ahead": None,
    "revision": None,
    "speculation": None,
}
"""Fields of the most careful recipe: one token a step, from the left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntaxCheck:
    """The treatment of a block, or of a whole completion, that does not parse."""

    attempts: int = 3  # besides the first; then the first one stays
    temperature: float = 0.4  # of the second attempt; it rises by as much with each

    def __post_init__(self):
        require(self.attempts >= 1, self, "attempts", "at least 1")
        require(self.temperature > 0.0, self, "temperature", "above 0")

    def recipes(self, sampler: SamplerConfig) -> list[SamplerConfig]:
        """The recipe of every attempt, the first included."""
        careful = dataclasses.replace(sampler, **CAREFUL)
        return [sampler, careful, *self.draws(careful)]

    def draws(self, careful: SamplerConfig) -> list[SamplerConfig]:
        """The recipes of the attempts that draw."""
        return [
            dataclasses.replace(careful, temperature=number * self.temperature)
            for number in range(1, self.attempts)
        ]


def generate_checked(
    model: Model,
    prompts: str | Sequence[str],
    *,
    check: SyntaxCheck | None = None,
    seed: int = 0,
    stop: Stop = None,
    **overrides: Unpack[SamplerOptions],
) -> Generation:
    """Continues Python programs so that they stay programs, as far as the model can.

    Args:
      model: what continues them.
      prompts: one program's beginning or several; they are worked on one by one.
      check: what to do about a block that cannot be continued; None is the default.
      seed: chooses the draws.
      stop: as for `Model.generate`.
      **overrides: fields of `SamplerConfig`.

    Returns:
      The completions. `fits` says which of them can be continued to a program;
      `forwards` counts what was thrown away, too.

    Raises:
      InputError: as `Model.generate`.
    """
    texts = arguments.texts(prompts, "prompts")
    most = arguments.MOST_SEEDS - max(1, len(texts))
    seed = arguments.integer(seed, "seed", least=0, most=most)
    sampler = model.sampler.vary(**overrides)
    strings = arguments.stop_strings(stop)
    chosen = check or SyntaxCheck()
    parts = [
        _decode_blocks(
            model,
            model.prompt_ids(text),
            Frame(before=text, language="python"),
            sampler,
            chosen.recipes(sampler),
            seed + number,
            strings,
        )
        for number, text in enumerate(texts)
    ]
    return Generation(
        texts=[part.texts[0] for part in parts],
        tokens=[part.tokens[0] for part in parts],
        new_tokens=[part.new_tokens[0] for part in parts],
        steps=[part.steps[0] for part in parts],
        forwards=sum(part.forwards for part in parts),
        seconds=sum(part.seconds for part in parts),
        compile_seconds=sum(part.compile_seconds for part in parts),
        finish_reason=[part.finish_reason[0] for part in parts],
        prompt_tokens=[part.prompt_tokens[0] for part in parts],
        fits=[part.fits[0] for part in parts],
        parses=[part.parses[0] for part in parts],
        logprobs=[part.logprobs[0] for part in parts if part.logprobs]
        if sampler.logprobs
        else None,
    )


def edit_checked(
    model: Model,
    code: str | Sequence[str],
    instruction: str | Sequence[str],
    *,
    language: str | None = None,
    check: SyntaxCheck | None = None,
    seed: Seeds = 0,
    stop: Stop = None,
    on_block: OnBlock | None = None,
    **overrides: Any,
) -> Generation:
    """Changes programs by an instruction; they stay programs if the model can do it.

    A result is decoded again if the program parses and the result does not, or if it is
    empty or cut off by its budget. What cannot be mended stays as `Model.edit` gives
    it: look at `parses`, or at the objection of its `frame_of_program`.

    Args:
      model: what changes them.
      code: the program to change, or several. Only those whose results are at fault are
        decoded again.
      instruction: as for `Model.edit`.
      language: of the programs, of `seedjax.inference.syntax.LANGUAGES`, or "text" for
        no check; None takes those that parse as Python for Python.
      check: how often a completion is tried again; None is the default.
      seed: as for `Model.edit`.
      stop: as for `Model.edit`.
      on_block: as for `Model.generate`, of the first attempt.
      **overrides: fields of `SamplerConfig`.

    Returns:
      The completions. `forwards` counts what was thrown away, too.

    Raises:
      InputError: as `Model.edit`, or for a language that there is not.
    """
    codes = arguments.texts(code, "code")
    instructions = arguments.texts(instruction, "instruction")
    if isinstance(instruction, str):
        instructions *= len(codes)
    frames = [frame_of_program(text, language) for text in codes]

    def decode(rows: list[int], seed: Seeds, changes: dict[str, Any]) -> Generation:
        chosen = [codes[row] for row in rows], [instructions[row] for row in rows]
        return model.edit(*chosen, seed=seed, stop=stop, **overrides | changes)

    def prompt(row: int) -> list[int]:
        request = model.tokenizer.encode(edit_request(codes[row], instructions[row]))
        return editing(request, model.tokenizer.special)

    more: dict[str, Any] = {"stop": stop, "on_block": on_block}
    result = model.edit(codes, instructions, seed=seed, **more, **overrides)
    if "max_new_tokens" not in overrides:
        prompts = [prompt(row) for row in range(len(codes))]
        overrides["max_new_tokens"] = model.edit_budget(codes, prompts)
    sampler = model.sampler.vary(**overrides)
    job = _Job(model, frames, sampler, seed, arguments.stop_strings(stop))
    return job.mended(result, decode, prompt, check or SyntaxCheck())


def infill_checked(
    model: Model,
    prefix: str | Sequence[str],
    suffix: str | Sequence[str],
    *,
    length: int | None = None,
    language: str | None = None,
    check: SyntaxCheck | None = None,
    seed: Seeds = 0,
    stop: Stop = None,
    on_block: OnBlock | None = None,
    **overrides: Any,
) -> Generation:
    """Fills holes in programs so that they are programs, as far as the model can.

    A completion is decoded again if the whole does not parse with it, and would with
    something simple in its place. What cannot be mended stays as `Model.infill` gives
    it: look at `parses`, or at the objection of its `frame_of_hole`.

    Args:
      model: what fills them.
      prefix: as for `Model.infill`.
      suffix: as for `Model.infill`.
      length: as for `Model.infill`.
      language: as for `edit_checked`.
      check: as for `edit_checked`.
      seed: as for `Model.infill`.
      stop: as for `Model.infill`.
      on_block: as for `Model.generate`, of the first attempt.
      **overrides: fields of `SamplerConfig`.

    Returns:
      The completions. `forwards` counts what was thrown away, too.

    Raises:
      InputError: as `Model.infill`, or for a language that there is not.
    """
    prefixes = arguments.texts(prefix, "prefix")
    suffixes = arguments.texts(suffix, "suffix")
    same: dict[str, Any] = {"length": length, "stop": stop}

    def decode(rows: list[int], seed: Seeds, changes: dict[str, Any]) -> Generation:
        return model.infill(
            [prefixes[row] for row in rows],
            [suffixes[row] for row in rows],
            seed=seed,
            **same,
            **overrides | changes,
        )

    def prompt(row: int) -> list[int] | None:
        if length is not None:  # a hole of known length is decoded as a whole
            return None
        special, order = model.tokenizer.special, model.tokenizer.infill_order
        before, after = model.tokenizer.encode_batch([prefixes[row], suffixes[row]])
        return infilling(before, after, special, order)

    more = same | {"seed": seed, "on_block": on_block}
    result = model.infill(prefixes, suffixes, **more, **overrides)
    pairs = zip(prefixes, suffixes, strict=True)
    frames = [frame_of_hole(*pair, language) for pair in pairs]
    sampler = model.sampler.vary(**overrides)
    job = _Job(model, frames, sampler, seed, arguments.stop_strings(stop))
    return job.mended(result, decode, prompt, check or SyntaxCheck())


class _Job(NamedTuple):
    """Completions that have to parse with the frames of their rows."""

    model: Model
    frames: list[Frame]
    sampler: SamplerConfig
    seed: Seeds
    stop: tuple[str, ...]

    def mended(
        self,
        result: Generation,
        decode: Callable[[list[int], Seeds, dict[str, Any]], Generation],
        prompt: Callable[[int], list[int] | None],
        check: SyntaxCheck,
    ) -> Generation:
        """A result in which rows that are at fault were decoded again, where that
        helped.

        Args:
          result: of the first attempt, all rows.
          decode: decodes some rows anew, with seeds and changes of the recipe.
          prompt: the token ids of a row's prompt, for decoding it block by block; None
            if it cannot be.
          check: how often to try.
        """
        careful = dataclasses.replace(self.sampler, **CAREFUL)
        faulty = self._faulty(result, range(len(self.frames)))
        if faulty and careful != self.sampler:
            seeds = [self._seed(row) for row in faulty]
            result = self._merged(result, faulty, decode(faulty, seeds, CAREFUL))
            faulty = self._faulty(result, faulty)
        draws = check.draws(careful)
        for row in faulty:
            ids = None if self.sampler.trace else prompt(row)
            if ids is not None and self.frames[row].language == "python":
                part = _decode_blocks(
                    self.model,
                    ids,
                    self.frames[row],
                    careful,
                    [careful, *draws],
                    self._seed(row),
                    self.stop,
                )
                result = self._merged(result, [row], part)
                continue
            for number, recipe in enumerate(draws, 1):
                changes = CAREFUL | {"temperature": recipe.temperature}
                part = decode([row], [self._seed(row, number)], changes)
                result = self._merged(result, [row], part)
                if not self._faulty(result, [row]):
                    break
        return judged(result, self.frames)

    def _seed(self, row: int, attempt: int = 0) -> int:
        seed = self.seed + row if isinstance(self.seed, int) else self.seed[row]
        return (int(seed) + attempt) % arguments.MOST_SEEDS

    def _objection(self, result: Generation, row: int, place: int) -> str | None:
        cut_off = result.finish_reason[place] == "length"
        return self.frames[row].objection(result.texts[place], cut_off=cut_off)

    def _faulty(self, result: Generation, rows: Iterable[int]) -> list[int]:
        return [row for row in rows if self._objection(result, row, row) is not None]

    def _merged(
        self, whole: Generation, rows: Sequence[int], part: Generation
    ) -> Generation:
        """A result with those of the `rows` that `part` decoded without a fault; the
        work for all of them counts."""
        taken = {
            row: place
            for place, row in enumerate(rows)
            if self._objection(part, row, place) is None
        }
        changed: dict[str, Any] = {}
        for field in dataclasses.fields(Generation):
            old, new = getattr(whole, field.name), getattr(part, field.name)
            if field.name in ("forwards", "seconds", "compile_seconds"):
                changed[field.name] = old + new
            elif field.name == "trace":
                kept = [step for step in old or [] if step.row not in taken]
                for row, place in taken.items():
                    steps = [step for step in new or [] if step.row == place]
                    kept += [dataclasses.replace(step, row=row) for step in steps]
                changed["trace"] = None if old is None else kept
            elif old is not None and len(old) == len(self.frames):
                changed[field.name] = [
                    new[taken[row]] if row in taken and new else value
                    for row, value in enumerate(old)
                ]
        return dataclasses.replace(whole, **changed)


def _decode_blocks(
    model: Model,
    prompt: list[int],
    frame: Frame,
    sampler: SamplerConfig,
    recipes: Sequence[SamplerConfig],
    seed: int,
    stop: tuple[str, ...],
) -> Generation:
    """Decodes a completion block by block. A block after which the text cannot be
    continued, or which ends the completion with an objection of its frame, is tried
    with one recipe after the other; if none helps, the first attempt stays."""
    began, compile_seconds, wasted = time.perf_counter(), 0.0, 0
    state, canvas, seconds = model.begin(prompt, sampler, surface="checked")
    compile_seconds += seconds
    fits = frame.can_go_on("")
    while True:
        tried: list[tuple[DecodeState, DecodeResult]] = []
        for number, recipe in enumerate(recipes):
            following, answer, seconds = model.advance(
                canvas, recipe, state, seed=seed + number
            )
            compile_seconds += seconds
            written = loop.new_tokens(answer)[0]
            row = conclude(written, model.tokenizer, stop, sampler.max_new_tokens)
            goes_on = frame.can_go_on(row.text)
            if goes_on and (row.stopped or bool(following.done.all())):
                cut_off = row.finish_reason == "length"
                goes_on = frame.objection(row.text, cut_off=cut_off) is None
            tried.append((following, answer))
            # Nothing can be mended after a fault that has been committed.
            if goes_on or not fits:
                break
            wasted += int(following.forwards - state.forwards)
        else:
            fits = False
            following, answer = tried[0]
            wasted -= int(following.forwards - state.forwards)
        state = following
        tokens = loop.new_tokens(answer)[0]
        _, has_stopped = readable(model.tokenizer.decode(tokens), stop)
        if has_stopped or bool(state.done.all()):
            row = conclude(tokens, model.tokenizer, stop, sampler.max_new_tokens)
            return Generation(
                texts=[row.text],
                tokens=[row.tokens],
                new_tokens=[len(row.tokens)],
                steps=answer.steps.tolist(),
                forwards=int(state.forwards) + wasted,
                seconds=time.perf_counter() - began - compile_seconds,
                compile_seconds=compile_seconds,
                finish_reason=[row.finish_reason],
                prompt_tokens=[len(prompt)],
                fits=[fits],
                parses=[frame.parses(row.text, cut_off=row.finish_reason == "length")],
                logprobs=loop.new_logprobs(answer, [row.tokens]),
            )
