"""Programs: a plan written out as a function with its docstring.

def collect_scores(values):
    \"\"\"Keep only the even numbers of values, then square each of them and return
    the sum of the result.\"\"\"
    first = [x for x in values if x % 2 == 0]
    second = [x ** 2 for x in first]
    return sum(second)
"""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

from seedjax.tasks.lab import vocabulary
from seedjax.tasks.lab.compose import Parameter, Plan, Step
from seedjax.tasks.lab.grammar.primitives import ANNOTATIONS
from seedjax.tasks.lab.wording import Wording, phrases

_QUESTIONS = ("how ", "by how ", "what ", "at which ", "on which ", "which ", "where ")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A function or class that does what its docstring says.

    Attributes:
      name: of the function or class.
      parameters: of the function; empty for a class.
      head: the text up to the body: signature and docstring.
      body: the text of the body, which ends with a line break.
      description: the docstring's first sentence.
      composition: names of the primitives in order.
      tier: how many primitives it counts.
      protocol: for a class, the methods that feed it and that ask it; else None.
    """

    name: str
    parameters: tuple[Parameter, ...]
    head: str
    body: str
    description: str
    composition: tuple[str, ...]
    tier: int
    protocol: tuple[str, str] | None = None

    @property
    def source(self) -> str:
        return self.head + self.body


def render_body(plan: Plan, indent: str = "    ") -> str:
    """The body of a plan's function."""
    names = plan.names
    lines: list[str] = []
    carried = names.inputs[0]
    for number, step in enumerate(plan.steps):
        last = number == len(plan.steps) - 1
        out = names.result if last else names.results[number]
        code = step.form.code.format(
            x=carried,
            y=names.inputs[-1],
            o=out,
            i=names.item if names.item != out else names.item + "_",
            j=vocabulary.other_name(step.primitive.takes, step.primitive.name),
            f=names.function,
            **step.in_code(),
        )
        if not step.form.is_expression:
            lines += code.split("\n")
            if last and not lines[-1].startswith("return"):
                lines.append(f"return {out}")
            carried = out
        elif last:
            lines.append(f"return {code}")
        elif plan.inline[number]:
            carried = code
        else:
            lines.append(f"{out} = {code}")
            carried = out
    return "".join(f"{indent}{line}\n" for line in lines)


def parameters_of(plan: Plan) -> tuple[Parameter, ...]:
    """The parameters of a plan's function, in the order of its signature."""
    first = plan.steps[0].primitive
    kinds = (first.takes, first.also) if first.also else (first.takes,)
    found = [Parameter(n, k) for n, k in zip(plan.names.inputs, kinds, strict=True)]
    for step in plan.steps:
        found += [v for v in step.constants.values() if isinstance(v, Parameter)]
    # A recursive call passes its arguments in the order written.
    if plan.swapped and len(found) > 1 and plan.steps[0].form.style != "recursion":
        found.reverse()
    return tuple(found)


def signature(plan: Plan) -> str:
    """The line that begins the function."""
    listed = [p.name for p in parameters_of(plan)]
    result = ""
    if plan.annotated:
        listed = [f"{p.name}: {ANNOTATIONS[p.kind]}" for p in parameters_of(plan)]
        result = f" -> {ANNOTATIONS[plan.steps[-1].primitive.gives]}"
    return f"def {plan.names.function}({', '.join(listed)}){result}:\n"


def describe(words: Wording, plan: Plan) -> str:
    """A sentence that says what the plan computes, without a full stop."""
    rng = words.rng
    given = plan.names.inputs[0]
    *early, last = plan.steps
    if not early:
        if last.primitive.clauses and rng.random() < 0.35:
            text = _capital(_clause(words, plan, last, given))
            ending = rng.choice(("", " and return the result", ", then return it"))
            comma = "," if "," in text and ending.startswith(" ") else ""
            return text + comma + ending
        verb = rng.choice(("Return", "Return", "Return", "Compute", "Give back"))
        text = phrase(words, plan, last, given)
        if verb == "Compute" and text.startswith(("True if ", "whether ")):
            verb = "Return"
        return f"{verb} {text}"
    if rng.random() < 0.45 - 0.1 * len(early):
        texts = [words.pick(step.primitive.phrases) for step in plan.steps]
        for text, step in zip(texts, plan.steps, strict=True):
            given = _worded(text, plan, step, given)
        if _nest(texts):
            return f"Return {given}"
        # What is drawn for the other words must not move the draws that follow.
        words = dataclasses.replace(words, rng=random.Random(given))
    return _describe_in_turn(words, plan)


def _nest(phrases: Sequence[str]) -> bool:
    """Whether noun phrases, each put inside the next, can be read in one way only. What
    one has after its `{x}` (", or zero", " in reverse order") might belong to another,
    so that only the last may, after a comma. Nor are questions put inside others."""
    *inner, last = phrases
    return last.partition("{x}")[2][:1] in ("", ",") and not any(
        "," in text
        or " or " in text
        or text.startswith(_QUESTIONS)
        or not text.endswith("{x}")
        for text in inner
    )


def _describe_in_turn(words: Wording, plan: Plan) -> str:
    """A sentence with a clause for each step of a plan."""
    rng = words.rng
    given = plan.names.inputs[0]
    *early, last = plan.steps
    clauses = []
    for step in early:
        clauses.append(_clause(words, plan, step, given))
        given = rng.choice(("the result", "it", "what you get"))
    ending = f"return {phrase(words, plan, last, given)}"
    layout = rng.randrange(3)
    if layout == 0:
        return _capital(", then ".join(clauses)) + f", and {ending}"
    if layout == 1:
        return "First " + "; then ".join(clauses) + f"; finally {ending}"
    return ". ".join(_capital(text) for text in [*clauses, ending])


def phrase(words: Wording, plan: Plan, step: Step, given: str) -> str:
    """A noun phrase for the result of a step, with `given` for its input."""
    return _worded(words.pick(step.primitive.phrases), plan, step, given)


def _clause(words: Wording, plan: Plan, step: Step, given: str) -> str:
    """An order that names a step."""
    texts = step.primitive.clauses
    if not texts:
        verb = words.rng.choice(("take", "compute", "get"))
        text = phrase(words, plan, step, given)
        if text.startswith(f"{given} "):
            verb = "take"
        elif text.startswith(_QUESTIONS):
            verb = "find out"
        return f"{verb} {text}"
    return _worded(words.pick(texts), plan, step, given)


def _worded(template: str, plan: Plan, step: Step, given: str) -> str:
    if "what {x}" in template and given == "what you get":
        given = "the result"
    return template.format(x=given, y=plan.names.inputs[-1], **step.in_words())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def finish_program(
    plan: Plan, description: str, *, remarks: Sequence[str] = (), examples: str = ""
) -> Program:
    """A plan with its docstring."""
    text = " ".join([f"{description}.", *remarks])
    if examples:
        shown = "".join(f"    {line}\n" for line in examples.splitlines())
        docstring = f'    """{text}\n\n{shown}    """\n'
    else:
        docstring = f'    """{text}"""\n'
    return Program(
        name=plan.names.function,
        parameters=parameters_of(plan),
        head=signature(plan) + docstring,
        body=render_body(plan),
        description=description,
        composition=plan.composition,
        tier=plan.tier,
    )


def remarks(rng: random.Random, plan: Plan) -> list[str]:
    """Further sentences of a docstring: the style that is required, and things that do
    not matter."""
    found = []
    styles = {step.form.style for step in plan.steps}
    hinted = 0.85 if "recursion" in styles else 0.3
    if len(styles) == 1 and rng.random() < hinted:
        found.append(rng.choice(phrases(f"hint {styles.pop()}")))
    if rng.random() < 0.2:
        found.append(rng.choice(phrases("remark")).format(x=plan.names.inputs[0]))
    return found
