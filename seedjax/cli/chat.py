"""`seedjax chat`."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import answer, options, progress, streams
from seedjax.errors import InputError

if TYPE_CHECKING:
    from seedjax.inference.model import Model

PROMPT = "> "
RESET, EXIT = "/reset", "/exit"

System = Annotated[
    str | None, typer.Option(help="What the model is told before the first turn.")
]


def chat(
    model: options.Model = "mini",
    quantization: options.Quantization = None,
    adapter: options.Adapter = None,
    device: options.Device = None,
    dtype: options.DType = None,
    system: System = None,
    max_new_tokens: answer.MaxNewTokens = None,
    temperature: answer.Temperature = None,
    top_k: answer.TopK = None,
    top_p: answer.TopP = None,
    threshold: answer.Threshold = None,
    order: answer.Order = None,
    steps: answer.Steps = None,
    block_size: answer.BlockSize = None,
    context: answer.Context = None,
    settings: answer.Settings = None,
    stop: answer.Stop = None,
    seed: options.Seed = 0,
    json: options.Json = False,
    no_compile_cache: options.NoCompileCache = False,
) -> None:
    """Talk with a model that was trained on conversations. Each line is a turn, from
    the terminal or a pipe; /reset begins anew, /exit or Ctrl-D ends.

    Example: seedjax chat --model runs/instruct --system "Answer in one line."
    """
    options.start_jax(compile_cache=not no_compile_cache)
    from seedjax.inference.loading import load

    with progress.waiting(f"loading {model}") as status:
        loaded = load(
            model,
            quantization=quantization,
            adapter=adapter,
            device=device,
            dtype=dtype,
            report=status.report,
        )
    overrides = answer.sampler_overrides(
        loaded.sampler,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        threshold=threshold,
        order=order,
        steps=steps,
        block_size=block_size,
        context=context,
        settings=settings,
        ignore_eos=False,
        trace=False,
    )
    said: list[dict[str, str]] = []
    if system is not None:
        said.append({"role": "system", "content": system})
    # A model that cannot chat says so before anything is typed.
    loaded.tokenizer.encode_chat([*said, {"role": "user", "content": "?"}])
    conversation = Conversation(loaded, said, {"seed": seed, "stop": stop, **overrides})
    for line in turns():
        if line == RESET:
            conversation.reset()
        elif json:
            conversation.reply(line)
        else:
            show(conversation, line)
    if json:
        streams.print_json(conversation.report())


class Conversation:
    """The messages so far, and the model that answers them."""

    def __init__(self, model: "Model", opening: list[dict[str, str]], asked: Any):
        """Begins with the messages of `opening`; `asked` goes to every call."""
        self.model, self.opening, self.asked = model, opening, asked
        self.messages = list(opening)
        self.turns: list[dict[str, Any]] = []

    def reset(self) -> None:
        """Forgets all but the opening."""
        self.messages = list(self.opening)

    def reply(self, line: str) -> None:
        """Answers a turn of the user, at once."""
        said = [*self.messages, {"role": "user", "content": line}]
        result = self.model.chat(said, **self.asked)
        self.turns.append({"prompt": line} | answer.report(result))
        self._keep(said, result.texts[0])

    def stream(self, line: str) -> Iterator[str]:
        """The answer to a turn of the user, piece by piece."""
        said = [*self.messages, {"role": "user", "content": line}]
        pieces = []
        for piece in self.model.stream(messages=said, **self.asked):
            pieces.append(piece)
            yield piece
        self._keep(said, "".join(pieces))

    def report(self) -> dict[str, Any]:
        """The conversation as `--json` prints it: all messages since the last reset,
        and the numbers of every turn."""
        return {"messages": self.messages, "turns": self.turns}

    def _keep(self, said: list[dict[str, str]], text: str) -> None:
        self.messages = [*said, {"role": "assistant", "content": text}]


def turns() -> Iterator[str]:
    """The user's lines, without empty ones, up to `/exit`, the end of the input or
    Ctrl-C."""
    interactive = sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  lets `input` edit lines and remember them
    while True:
        try:
            line = input(PROMPT) if interactive else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not interactive and not line:
            return
        line = line.strip()
        if line == EXIT:
            return
        if line:
            yield line


def show(conversation: Conversation, line: str) -> None:
    """Prints an answer as it comes. At a terminal, Ctrl-C leaves off the answer, and a
    turn that cannot be answered is no end."""
    written = ""
    try:
        for piece in conversation.stream(line):
            print(piece, end="", flush=True)
            written += piece
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
    except InputError as error:
        if not sys.stdin.isatty():
            raise
        print(f"{error} ({RESET} begins anew)", file=sys.stderr)
        return
    if not written.endswith("\n"):
        print()
