"""Chat templates: a conversation as the text that a model was taught to answer.

Published chat models bring a Jinja template. It is somebody else's program, so it runs
in Jinja's sandbox on plain JSON values, with what Hugging Face's templates may count
on: `raise_exception`, `strftime_now`, `tojson` without HTML escapes, `break` and
`continue`, `generation` blocks, and blocks that leave no line of their own.

Messages are somebody else's text. A user who spells `<|im_end|>` must not end a turn,
and text is all that a template gives. So `render_marked` has the template write each of
its own special tokens as a mark, which no message can hold, for the tokenizer to find:

    template  <|im_start|>{{ role }}    user  say <|im_end|>
    rendered  @7f..:0@user say <|im_end|>@7f..:1@      two special tokens, not three

What a template looks for in a message, as in `'</think>' in message.content`, it finds
where it is spelled, as it does in Hugging Face's hands: see
`seedjax.text.chat_content`.
"""

import datetime
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from seedjax.deadline import OutOfTimeError, deadline
from seedjax.errors import InputError
from seedjax.text.chat_content import Marks, spelled, spelled_type
from seedjax.text.chat_limits import (
    SECONDS,
    check_call,
    check_format,
    check_operation,
    check_size,
    joined,
    limited,
)

Messages = Sequence[Mapping[str, Any]]
ROLE = re.compile(r"[A-Za-z][\w-]*")
NEUTRAL = "\u25a1"  # stands for a character that could begin or end a special token


def render_marked(
    template: str,
    messages: Messages,
    *,
    marks: Mapping[str, str],
    names: Mapping[str, str],
    add_generation_prompt: bool = True,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The text of a conversation, with the special tokens that the template writes as
    marks. Those that a message spells stay as they are spelled.

    Args:
      template: Jinja source.
      messages: each a mapping with "role", "content" and whatever else the template
        reads; values are those of JSON.
      marks: a mark for each special token's spelling. No message may hold a mark.
      names: the spelling of each token that the template may use by name, such as
        "bos_token".
      add_generation_prompt: whether to open the assistant's next turn.
      variables: what else the template reads, such as "tools" or "enable_thinking".

    Raises:
      InputError: for messages that are no conversation, a malformed template, one that
        touches what the sandbox forbids, takes too long or makes too long a text, or
        refuses the messages; also if the template puts special tokens together from
        parts and the messages spell some too, so that their owner is ambiguous.
    """
    plain = _checked(messages)
    given = _plain(variables or {}, "variables")
    named = {name: marks.get(token, token) for name, token in names.items()}
    pairs = tuple(marks.items())

    def render(messages: Any, given: Any) -> str:
        return _render(
            template, messages, {**named, **given}, add_generation_prompt, pairs
        )

    text = render(plain, given)
    spelled = _spelling(pairs)
    found = spelled.findall(text) if pairs else []
    if not found:
        return text
    # Written out by the messages, or by a template such as '<|' + role + '|>'. The
    # latter are there all the same when no message has what a token begins or ends in.
    edges = {ord(token[end]): NEUTRAL for token in marks for end in (0, -1)}
    composed = spelled.findall(render(_neutral(plain, edges), _neutral(given, edges)))
    users = any(spelled.search(part) for part in _strings([plain, given]))
    if not composed:
        return text
    if users or composed != found:
        raise InputError(
            f"the messages spell {found[0]!r}, a special token that this model's chat "
            "template puts together itself, so the two cannot be told apart; write it "
            "otherwise, with a space inside, say"
        )
    return spelled.sub(lambda match: marks[match[0]], text)


def _checked(messages: Any) -> list[dict[str, Any]]:
    """The messages as plain values. As Hugging Face does, None counts as absent."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise InputError(
            f"messages are a {type(messages).__name__}; they must be a list of "
            "mappings with 'role' and 'content'"
        )
    if not messages:
        raise InputError("the chat is empty; give it at least one message")
    checked = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise InputError(
                f"a message is {message!r}; it must be a mapping with 'role' and "
                "'content'"
            )
        role = message.get("role")
        if not isinstance(role, str) or not ROLE.fullmatch(role):
            raise InputError(
                f"the role of a message is {role!r}; it must be a word such as 'user'"
            )
        plain = _plain(message, "a message")
        checked.append({k: v for k, v in plain.items() if v is not None})
    return checked


def _plain(value: Any, where: str) -> Any:
    """The value made of JSON's types alone, so that a template meets no object whose
    methods the sandbox does not know."""
    if value is None or isinstance(value, bool):
        return value
    for plain in (str, int, float):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item, where) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    raise InputError(
        f"{where} holds a {type(value).__name__}; it must be text, numbers, true, "
        "false, null, lists and mappings"
    )


def _neutral(value: Any, edges: Mapping[int, str]) -> Any:
    """The value with every special token in its strings spoiled, also a part of one.
    Roles stay, for they are words."""
    if isinstance(value, str):
        return value.translate(edges)
    if isinstance(value, list):
        return [_neutral(item, edges) for item in value]
    if isinstance(value, dict):
        return {
            name: item if name == "role" else _neutral(item, edges)
            for name, item in value.items()
        }
    return value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        yield from _strings([*value, *value.values()])


def _render(
    template: str,
    messages: list[dict[str, Any]],
    given: Mapping[str, Any],
    add_generation_prompt: bool,
    marks: Marks,
) -> str:
    from jinja2.exceptions import SecurityError, TemplateError

    if marks:
        # Names, such as bos_token, are the template's own.
        names = {n: v for n, v in given.items() if v in dict(marks).values()}
        messages, given = spelled(messages, marks), {**spelled(given, marks), **names}
    values = {
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **given,
    }
    try:
        with deadline(SECONDS):
            return str.__str__(_compiled(template, marks).render(values))
    except OutOfTimeError:
        raise InputError(
            f"the chat template has not come to an end after {SECONDS:.0f} s; use "
            "another model's, or look at who wrote this one"
        ) from None
    except InputError:
        raise
    except SecurityError as error:
        raise InputError(
            f"the chat template does what a template may not: {_one_line(error)}; use "
            "another model's, or look at who wrote this one"
        ) from error
    except TemplateError as error:
        raise InputError(
            f"the chat template does not take these messages: {_one_line(error)}"
        ) from error
    except Exception as error:
        # Whatever else happens in here happens in the template's own program.
        raise InputError(
            "the chat template fails on these messages: "
            f"{type(error).__name__}: {_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


@functools.lru_cache(maxsize=16)
def _compiled(template: str, marks: Marks) -> Any:
    """The template as a program, with marks in place of special tokens in the texts
    that it writes and in its string constants."""
    from jinja2 import Template, nodes
    from jinja2.exceptions import TemplateSyntaxError

    environment = _marking_environment(marks) if marks else _environment()
    spelled, by_spelling = _spelling(marks), dict(marks)

    def respell(text: str) -> str:
        return spelled.sub(lambda match: by_spelling[match[0]], text) if marks else text

    try:
        tree = environment.parse(template)
        for data in tree.find_all(nodes.TemplateData):
            data.data = respell(data.data)
        measured = {  # the length of a token is that of its spelling
            id(found.node)
            for found in tree.find_all(nodes.Filter)
            if found.name in ("length", "count")
        }
        for constant in tree.find_all(nodes.Const):
            if isinstance(constant.value, str) and id(constant) not in measured:
                constant.value = respell(constant.value)
        tree = _joining_by_addition(tree)
        code = environment.compile(tree)
    except TemplateSyntaxError as error:
        raise InputError(
            f"the chat template is malformed at line {error.lineno}: "
            f"{_one_line(error)}; get an intact copy of the model's tokenizer"
        ) from error
    return Template.from_code(
        environment, code, environment.make_globals(None), uptodate=None
    )


def _joining_by_addition(tree: Any) -> Any:
    """The template with each `a ~ b` as the sum of both as texts, which asks their
    types."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    class Joining(NodeTransformer):
        def visit_Concat(self, node: Any) -> Any:
            parts: list[nodes.Expr] = [
                nodes.Filter(self.visit(one), "string", [], [], None, None)
                for one in node.nodes
            ]
            whole = parts[0]
            for part in parts[1:]:
                whole = nodes.Add(whole, part)
            return whole.set_environment(node.environment)

    return Joining().visit(tree)


@functools.lru_cache(maxsize=16)
def _marking_environment(marks: Marks) -> Any:
    """Jinja, where texts made of messages' texts stay such."""
    from jinja2 import pass_eval_context
    from jinja2.filters import FILTERS

    kind = spelled_type(marks)

    def concat(parts: Iterable[str]) -> str:
        listed = joined(parts)
        made = "".join(listed)
        return kind(made) if any(isinstance(part, kind) for part in listed) else made

    @pass_eval_context
    def join(context: Any, value: Any, d: str = "", attribute: Any = None) -> str:
        return kind(FILTERS["join"](context, value, d, attribute))

    def to_json(*args: Any, **named: Any) -> str:
        return kind(_environment().filters["tojson"](*args, **named))

    environment = _environment().overlay()
    environment.concat = concat
    own = {"join": limited("join", join), "tojson": limited("tojson", to_json)}
    environment.filters = {**environment.filters, **own}
    return environment


@functools.lru_cache(maxsize=64)
def _spelling(marks: Marks) -> re.Pattern[str]:
    """Finds any of the spellings, the longest one first."""
    longest_first = sorted((spelling for spelling, _ in marks), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


@functools.cache
def _environment() -> Any:
    """Jinja as Hugging Face sets it up for templates of chats."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Sandbox(ImmutableSandboxedEnvironment):
        """A sandbox in which a forbidden attribute is a fault at once; Jinja's own lets
        a template print nothing for it."""

        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            raise SecurityError(f"it reads {attribute!r} of a {type(obj).__name__}")

        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            check_operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(*args: Any, **named: Any) -> Any:
            self, context, function, *given = args
            name = getattr(function, "__name__", "")
            if name == "join" and given and not isinstance(given[0], str | list):
                given[0] = list(given[0])
            owner = getattr(function, "__self__", None)
            check_call(name, owner, *given, *named.values())
            return ImmutableSandboxedEnvironment.call(
                self, context, function, *given, **named
            )

        def wrap_str_format(self, value: Any) -> Any:
            wrapped = super().wrap_str_format(value)
            if wrapped is not None:
                check_format(value.__self__, ())
            return wrapped

        @staticmethod
        def concat(parts: Iterable[str]) -> str:
            return "".join(joined(parts))

    class GenerationBlocks(Extension):
        """Blocks that mark the assistant's words for training; here they only are a
        scope."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class PlainNamespace(Namespace):
        """A namespace whose attributes are variables and nothing of Python's."""

        def __init__(*args: Any, **values: Any) -> None:
            self, *rest = args  # a variable may be called `self`
            variables = dict(*rest, **values)
            for name in variables:
                PlainNamespace.check(name)
            Namespace.__init__(self, variables)

        def __setitem__(self, name: str, value: Any) -> None:
            PlainNamespace.check(name)
            Namespace.__setitem__(self, name, value)

        @staticmethod
        def check(name: str) -> None:
            if str(name).startswith("_"):
                raise SecurityError(f"it sets {name!r}")

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(pattern: str) -> str:
        return datetime.datetime.now().strftime(pattern)

    def make_dict(*args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationBlocks, loopcontrols],
        finalize=check_size,
    )
    environment.filters["tojson"] = to_json
    environment.filters = {
        name: limited(name, function) for name, function in environment.filters.items()
    }
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "namespace": PlainNamespace,
        "dict": make_dict,
    }
    return environment
