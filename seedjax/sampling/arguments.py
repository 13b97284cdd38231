"""Validation of what callers of the Python functions give for texts, numbers, seeds,
token ids and conversations.

Every public function passes its arguments through here, so that all of them accept and
refuse the same: `InputError` names the argument, the value and what to give. NumPy's
integers are integers, its floats are floats; `bool` is neither.
"""

import numbers
import os
import reprlib
from collections.abc import Iterable, Mapping, Set
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from seedjax.config import DType, coerce
from seedjax.errors import InputError
from seedjax.sampling.grammar.build import JsonSchema, Regex

MOST_SEEDS = 2**32


def texts(value: Any, name: str) -> list[str]:
    """One text or several as a list.

    Args:
      value: a string, or strings in a list, tuple or array.
      name: of the argument, for the error.

    Raises:
      InputError: for anything else, naming the first that is no string.
    """
    if isinstance(value, str):
        return [text(value, name)]
    if not _is_listing(value):
        raise _invalid(name, value, "a string, or a list of strings")
    return [text(item, f"{name}[{i}]") for i, item in enumerate(value)]


def several(value: Any, name: str) -> list[Any]:
    """The items of a list, tuple, array or generator.

    Raises:
      InputError: for a single text and whatever else has no items in order.
    """
    if not _is_listing(value):
        raise _invalid(name, value, "a list")
    return list(value)


def text(value: Any, name: str) -> str:
    """A string, as Python's own class.

    Raises:
      InputError: for anything else.
    """
    if not isinstance(value, str):
        hint = "decode it first" if isinstance(value, bytes) else ""
        raise _invalid(name, value, "a string", hint)
    return str(value)


def integer(
    value: Any, name: str, *, least: int | None = None, most: int | None = None
) -> int:
    """An integer in a range, as Python's own class.

    Raises:
      InputError: for another type or a number outside the range.
    """
    span = f"from {least} to {most}" if most is not None else f"of at least {least}"
    expected = "an integer" if least is None else f"an integer {span}"
    plain = value
    if isinstance(value, np.ndarray | jax.Array) and value.ndim == 0:
        plain = value.item()  # an array without axes is a number
    if isinstance(plain, bool) or not isinstance(plain, numbers.Integral):
        raise _invalid(name, value, expected)
    number = int(plain)
    if not (least is None or least <= number) or not (most is None or number <= most):
        raise InputError(f"{name} is {number}; give {expected}")
    return number


def seed(value: Any) -> int:
    """A seed.

    Raises:
      InputError: for another type, or a number outside [0, 2^32).
    """
    return integer(value, "seed", least=0, most=MOST_SEEDS - 1)


def seeds(value: Any, num_rows: int | None = None) -> int | list[int]:
    """A seed for all rows, or one for each.

    Raises:
      InputError: for another type, a seed outside [0, 2^32), or a wrong number of them.
    """
    most = MOST_SEEDS - 1
    if not _is_listing(value):
        return seed(value)
    found = [
        integer(item, f"seed[{i}]", least=0, most=most) for i, item in enumerate(value)
    ]
    if num_rows is not None and len(found) != num_rows:
        raise InputError(
            f"{len(found)} seeds for {num_rows} prompts; give one, or one each"
        )
    return found


def token_ids(value: Any, name: str, vocab_size: int) -> list[int]:
    """Token ids as a list.

    Raises:
      InputError: for another type, or an id that the model does not have.
    """
    if not _is_listing(value):
        raise _invalid(name, value, "a string, or token ids in a list")
    return [
        integer(token, f"{name}[{i}]", least=0, most=vocab_size - 1)
        for i, token in enumerate(value)
    ]


def forced_tokens(
    value: Any, *, num_places: int, vocab_size: int, mask_token_id: int
) -> dict[int, int]:
    """Ids by place of the completion.

    Raises:
      InputError: for another type, a place or an id that there is not, or the mask,
        which stands for no token.
    """
    if not isinstance(value, Mapping):
        raise _invalid("forced_tokens", value, "a mapping from places to token ids")
    found: dict[int, int] = {}
    for place, token in value.items():
        name = f"forced_tokens[{place}]"
        place = integer(place, "a place of forced_tokens", least=0, most=num_places - 1)
        found[place] = integer(token, name, least=0, most=vocab_size - 1)
        if found[place] == mask_token_id:
            raise InputError(f"{name} is {token}, the mask; leave the place out")
    return found


def stop_strings(value: Any) -> tuple[str, ...]:
    """Stop strings: none for None, one for a string.

    Raises:
      InputError: for another type, or an empty string.
    """
    found = tuple(dict.fromkeys(texts([] if value is None else value, "stop")))
    for string in found:
        if not string:
            raise InputError(
                "a stop string is empty; give one of at least one character, or none"
            )
        if any("\ud800" <= c <= "\udfff" or c == "\ufffd" for c in string):
            raise InputError(
                f"the stop string {string!r} holds half of a surrogate pair or U+FFFD, "
                "which no tokens spell; drop it"
            )
    return found


def grammar(value: Any) -> Any:
    """A grammar as it is, or None.

    Raises:
      InputError: for what is none; the error for a string shows how to make one of it.
    """
    if value is None or isinstance(value, Regex | JsonSchema):
        return value
    hint = f"Regex(pattern={reprlib.repr(value)})" if isinstance(value, str) else ""
    raise _invalid("grammar", value, "a Regex or a JsonSchema", hint)


def path(value: Any, name: str) -> str:
    """A path as a string.

    Raises:
      InputError: for what is none.
    """
    if not isinstance(value, str | os.PathLike):
        raise _invalid(name, value, "a name or a directory")
    return os.fsdecode(value)


def dtype(value: Any) -> DType:
    """A dtype to compute in, by its name or as JAX and NumPy have it.

    Raises:
      InputError: for another one.
    """
    if not isinstance(value, str) and value is not None:
        try:
            value = np.dtype(value).name
        except TypeError:
            raise _invalid("dtype", value, "'float32' or 'bfloat16'") from None
    return coerce(DType, value, "dtype")


def device(value: Any) -> jax.Device | None:
    """One of this machine's devices: by its platform, "gpu", or with its number,
    "gpu:1".

    Raises:
      InputError: for a device that is not here.
    """
    if value is None or isinstance(value, jax.Device):
        return value
    here = sorted({f"{d.platform}:{d.id}" for d in jax.devices()} | {"cpu"})
    expected = f"None, a device of JAX, or one of {', '.join(here)}"
    if not isinstance(value, str):
        raise _invalid("device", value, expected)
    platform, _, number = value.partition(":")
    if not (number or "0").isdecimal():
        raise InputError(f"device is {value!r}; give {expected}")
    try:
        return jax.devices(platform)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError):
        raise InputError(f"device is {value!r}; give {expected}") from None


def mesh(value: Any) -> str | Mesh:
    """A mesh of JAX, or the description of one.

    Raises:
      InputError: for what is neither.
    """
    if not isinstance(value, str | Mesh):
        raise _invalid("mesh", value, "axes and sizes such as 'tensor=4,data=2'")
    return value


def conversations(value: Any) -> list[Any]:
    """One conversation or several as a list of conversations, whose messages are for
    the chat template to check.

    Raises:
      InputError: for what is no list of messages.
    """
    expected = (
        "a list of messages, each a mapping with 'role' and 'content', or several such "
        "lists"
    )
    if not _is_listing(value):
        hint = f"as [{{'role': 'user', 'content': {reprlib.repr(value)}}}]"
        raise _invalid(
            "messages", value, expected, hint if isinstance(value, str) else ""
        )
    listed = list(value)
    if not listed or isinstance(listed[0], Mapping):
        return [listed]
    for conversation in listed:
        if not _is_listing(conversation):
            raise _invalid("a conversation", conversation, expected)
    return [list(conversation) for conversation in listed]


def _is_listing(value: Any) -> bool:
    """Whether a value holds others in an order of its own; an array without axes does
    not."""
    unordered = (str, bytes, bytearray, Mapping, Set)
    is_listing = isinstance(value, Iterable) and not isinstance(value, unordered)
    return is_listing and getattr(value, "ndim", 1) != 0


def _invalid(name: str, value: Any, expected: str, hint: str = "") -> InputError:
    shown = "None" if value is None else f"{reprlib.repr(value)}, {_class_of(value)}"
    end = f"; {hint}" if hint else ""
    return InputError(f"{name} is {shown}; give {expected}{end}")


def _class_of(value: Any) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def seed_array(seed: Any, num_rows: int) -> jax.Array:
    """One seed for all rows, or one per row, uint32 on the device.

    Raises:
      InputError: for a seed that is none, or more or fewer seeds than rows.
    """
    return jax.device_put(np.asarray(seeds(seed, num_rows), np.uint32))
