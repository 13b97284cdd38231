"""Skeletons: what is done with a leaf over a list or a dictionary, written once for any
type of element.

`{p}`, `{e}` and `{q}` in a skeleton's code stand for the code of its predicate, change
or key; `{w}` in its phrases for the leaf's words.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from seedjax.tasks.lab.grammar.leaves import Leaf
from seedjax.tasks.lab.grammar.primitives import Form, Kind, Primitive


@dataclass(frozen=True)
class Elements:
    """What a list is of, in code and in words.

    Attributes:
      many: type of the list.
      one: type of an element.
      nouns: plural nouns for the elements.
      none: what stands for an element that is not there, as code.
      nothing: the same in words.
    """

    many: Kind
    one: Kind
    nouns: tuple[str, ...]
    none: str
    nothing: str


NUMBERS = Elements("ints", "int", ("numbers", "values", "entries"), "0", "zero")
WORDS = Elements(
    "words", "text", ("words", "strings", "names"), '""', "an empty string"
)


def join(
    elements: Elements,
    leaf: Leaf,
    slot: str,
    words: Iterable[str],
    verb: str,
    gives: Kind,
    templates: tuple[Form, ...],
    phrases: tuple[str, ...],
    clauses: tuple[str, ...] = (),
) -> Primitive:
    """The primitive that a skeleton and a leaf make.

    Args:
      elements: what the input is a list of.
      leaf: the predicate or key.
      slot: field of the templates that takes the leaf's code.
      words: what takes the place of `{w}`, in turns.
      verb: the skeleton's name.
      gives: type of the result.
      templates: the skeleton's forms.
      phrases: its phrases.
      clauses: its clauses.
    """
    words = tuple(words)
    return Primitive(
        name=f"{verb}_{leaf.name}_{elements.many}",
        takes=elements.many,
        gives=gives,
        phrases=spread(phrases, words),
        clauses=spread(clauses, words) if clauses else (),
        forms=insert(templates, **{slot: leaf.code}),
        constants=leaf.constants,
    )


def insert(templates: tuple[Form, ...], **codes: str) -> tuple[Form, ...]:
    """Forms with leaf code put in."""
    result = []
    for form in templates:
        code = form.code
        for name, leaf_code in codes.items():
            code = code.replace(f"{{{name}}}", leaf_code)
        result.append(Form(form.style, code))
    return tuple(result)


def spread(frames: Iterable[str], words: Iterable[str]) -> tuple[str, ...]:
    """Frames with words put into `{w}`: the first frame with the first words and so on,
    as often as the longer list has entries. The last frame meets the last words, so
    that what is kept from training stays last."""
    *frames, last_frame = frames
    *words, last_words = words
    count = max(len(frames), len(words))
    pairs = [(frames[n % len(frames)], words[n % len(words)]) for n in range(count)]
    pairs.append((last_frame, last_words))
    return tuple(frame.replace("{w}", put) for frame, put in pairs)


def of_elements(elements: Elements, test: Leaf) -> tuple[str, ...]:
    """The phrases of a predicate, about the elements by their several nouns."""
    noun, second, third = elements.nouns
    nouns = (noun, noun, second, noun, third, noun)
    return tuple(
        phrase.format(n=name, k="{k}", c="{c}")
        for phrase, name in zip(test.phrases, nouns, strict=True)
    )
