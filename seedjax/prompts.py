"""Prompts: how each task is laid out in tokens, for training data and `Model` alike.

    continuation   <bos> text
    infilling      <bos> <fim_prefix> prefix <fim_suffix> suffix <fim_middle>
    editing        <bos> <user> request <end_of_turn> <assistant>

The answer stands right behind its prompt, and EOS behind the answer. Texts come as
token ids, each encoded as a whole, so that a caller can encode a batch in one call.
"""

from collections.abc import Sequence

from seedjax.tokenizer import SpecialTokens


def continuation(text: Sequence[int], special: SpecialTokens) -> list[int]:
    """The prompt of a text that goes on.

    <bos> text | what follows
    """
    return [special.bos, *text]


def infilling(
    prefix: Sequence[int], suffix: Sequence[int], special: SpecialTokens
) -> list[int]:
    """The prompt of a hole between two texts, either of which may be empty.

    <bos> <fim_prefix> prefix <fim_suffix> suffix <fim_middle> | middle
    """
    head, tail, hole = special.fim_prefix, special.fim_suffix, special.fim_middle
    return [special.bos, head, *prefix, tail, *suffix, hole]


def editing(request: Sequence[int], special: SpecialTokens) -> list[int]:
    """The prompt of a change to a program, for the tokens of an `edit_request`.

    <bos> <user> request <end_of_turn> <assistant> | the whole changed program
    """
    user, assistant = special.user, special.assistant
    return [special.bos, user, *request, special.end_of_turn, assistant]


def edit_request(code: str, instruction: str) -> str:
    """What a user says who wants a program changed: the instruction, a line break, and
    the whole program."""
    return f"{instruction}\n{code}"
