"""`seedjax chat`."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import answer, options, progress, streams
from seedjax.cli.decoding import Decoding
from seedjax.errors import InputError

if TYPE_CHECKING:
    from seedjax.inference.model import Model

PROMPT = "> "
RESET, EXIT = "/reset", "/exit"


@options.grouped
def chat(
    *,
    loading: options.Loading,
    system: Annotated[
        str | None, typer.Option(help="The system message before the first turn.")
    ] = None,
    decoding: Decoding,
    json: options.Json = False,
) -> None:
    """Talk with a model that was trained on conversations. Each line is a turn, from
    the terminal or a pipe; /reset begins anew, /exit or Ctrl-D ends.

    Example: seedjax chat --model runs/instruct --system "Answer in one line."
    """
    with progress.waiting(f"loading {loading.model}") as status:
        model = loading.load(status)
    opening = [] if system is None else [{"role": "system", "content": system}]
    # A model that cannot chat says so before anything is typed.
    model.tokenizer.encode_chat([*opening, {"role": "user", "content": "?"}])
    conversation = Conversation(model, opening, decoding.overrides(model.sampler))
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

    def __init__(self, model: "Model", opening: list[dict[str, str]], options: Any):
        """Begins with the messages of `opening`; every call takes the `options`."""
        self.model, self.opening, self.options = model, opening, options
        self.messages = list(opening)
        self.turns: list[dict[str, Any]] = []

    def reset(self) -> None:
        """Forgets all but the opening."""
        self.messages = list(self.opening)

    def reply(self, line: str) -> None:
        """Answers a turn of the user, at once."""
        messages = [*self.messages, {"role": "user", "content": line}]
        result = self.model.chat(messages, **self.options)
        self.turns.append({"prompt": line} | answer.report(result))
        self._keep(messages, result.texts[0])

    def stream(self, line: str) -> Iterator[str]:
        """The answer to a turn of the user, piece by piece."""
        messages = [*self.messages, {"role": "user", "content": line}]
        pieces = []
        for piece in self.model.stream(messages=messages, **self.options):
            pieces.append(piece)
            yield piece
        self._keep(messages, "".join(pieces))

    def report(self) -> dict[str, Any]:
        """The conversation as `--json` prints it: all messages since the last reset,
        and the numbers of every turn."""
        return {"messages": self.messages, "turns": self.turns}

    def _keep(self, messages: list[dict[str, str]], text: str) -> None:
        self.messages = [*messages, {"role": "assistant", "content": text}]


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
