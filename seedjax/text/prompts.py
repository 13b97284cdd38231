"""Prompts: how each task is laid out in tokens, for training data and `Model` alike.

    continuation   <bos> text
    infilling      <bos> <fim_suffix> suffix <fim_prefix> prefix <fim_middle>
                or <bos> <fim_prefix> prefix <fim_suffix> suffix <fim_middle>
    editing        <bos> <user> request <end_of_turn> <assistant>

The completion follows its prompt at once, and EOS the completion. Texts come as
token ids, each encoded as a whole, so that a caller can encode a batch in one call. A
tokenizer without BOS, as Qwen's, leaves it out; which order a hole's surroundings come
in is the tokenizer's `infill_order`. Conversations of published models have layouts of
their own: see `seedjax.text.chat`.
"""

from collections.abc import Sequence

from seedjax.text.tokenizer import InfillOrder, SpecialTokens

EDIT_GROWTH = 64  # tokens by which an edit may lengthen a program by default


def continuation(text: Sequence[int], special: SpecialTokens) -> list[int]:
    """The prompt of a text that goes on.

    <bos> text | what follows
    """
    return [*_opening(special), *text]


def infilling(
    prefix: Sequence[int],
    suffix: Sequence[int],
    special: SpecialTokens,
    order: InfillOrder,
) -> list[int]:
    """The prompt of a hole between two texts, either of which may be empty.

    <bos> <fim_suffix> suffix <fim_prefix> prefix <fim_middle> | middle

    In this order the middle goes on where the prefix ends, which a small model learns
    much sooner than to find that place; some published models take the prefix first.

    Raises:
      InputError: if the tokenizer lacks one of the three tokens.
    """
    return [*_opening(special), *around_hole(prefix, suffix, special, order)]


def around_hole(
    prefix: Sequence[int],
    suffix: Sequence[int],
    special: SpecialTokens,
    order: InfillOrder,
) -> list[int]:
    """`infilling` without BOS.

    Raises:
      InputError: as `infilling`.
    """
    head = [special.require("fim_prefix", "infill"), *prefix]
    tail = [special.require("fim_suffix", "infill"), *suffix]
    hole = special.require("fim_middle", "infill")
    if order == "suffix_prefix_middle":
        return [*tail, *head, hole]
    return [*head, *tail, hole]


def editing(request: Sequence[int], special: SpecialTokens) -> list[int]:
    """The prompt of a change to a program, for the tokens of an `edit_request`.

    <bos> <user> request <end_of_turn> <assistant> | the whole changed program

    Raises:
      InputError: if the tokenizer lacks one of the three tokens.
    """
    purpose = "edit as seedjax's own models do; describe the change in a chat"
    user, end, assistant = (
        special.require(name, purpose) for name in ("user", "end_of_turn", "assistant")
    )
    return [*_opening(special), user, *request, end, assistant]


def edit_request(code: str, instruction: str) -> str:
    """A user's message for an edit: the instruction, a line break, and
    the whole program."""
    return f"{instruction}\n{code}"


def edit_budget(
    programs: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    default: int,
    room: int,
) -> int:
    """How many tokens edits may have by default: the default, or as many as the
    longest program has and `EDIT_GROWTH` more, if that is more and there is room.

    Args:
      programs: the tokens of each program to change.
      prompts: the tokens of each prompt.
      default: the model's own budget.
      room: positions of the model, for prompt and answer.
    """
    longest = max(map(len, programs), default=0)
    left = room - max(map(len, prompts), default=0)
    # With nothing left, one token more is what the canvas complains of.
    return max(1, min(max(default, longest + EDIT_GROWTH), left))


def _opening(special: SpecialTokens) -> list[int]:
    return [] if special.bos is None else [special.bos]
