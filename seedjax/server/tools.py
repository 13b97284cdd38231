"""Tools: functions that a model may call, in the format of Hermes and Qwen.

the template   lists the tools in the system turn, where it reads `tools`
the model      <tool_call>
               {"name": "f", "arguments": {"x": 1}}
               </tool_call>
the response   message.tool_calls, and the text before them as content
"""

import json
import re
import secrets
from typing import Any, NamedTuple

from jinja2 import Environment, TemplateError, meta

OPENING, CLOSING = "<tool_call>", "</tool_call>"
CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


class Calls(NamedTuple):
    """A completion, taken apart.

    Attributes:
      content: the text before the first call.
      calls: as the API hands them out. One that is cut off is left out; where none can
        be read, all is content.
    """

    content: str
    calls: list[dict[str, Any]]


def takes_tools(template: str | None) -> bool:
    """Whether a chat template reads `tools`."""
    if template is None:
        return False
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # noqa: S701
    try:
        tree = environment.parse(template)
    except TemplateError:  # such as `generation`, a block of Hugging Face's own
        return re.search(r"\btools\b", template) is not None
    return "tools" in meta.find_undeclared_variables(tree)


def split_calls(text: str) -> Calls:
    """The content and calls of a completion; if nothing in it is a call and nothing
    begins one, all of it is content."""
    begin = text.find(OPENING)
    if begin < 0:
        return Calls(text, [])
    calls = []
    for found in CALL.finditer(text, begin):
        try:
            call = json.loads(found[1])
            name, given = call["name"], call.get("arguments", {})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if not isinstance(name, str):
            continue
        arguments = given if isinstance(given, str) else json.dumps(given)
        calls.append(
            {
                "id": f"call_{secrets.token_hex(12)}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        )
    if not calls and CLOSING in text:  # none that can be read
        return Calls(text, [])
    return Calls(text[:begin].rstrip(), calls)


def as_template_reads(call: dict[str, Any]) -> dict[str, Any]:
    """A call of an earlier turn with its arguments as values, which templates write as
    JSON themselves."""
    function = dict(call["function"])
    try:
        function["arguments"] = json.loads(function["arguments"])
    except ValueError:  # a model's own malformed call: as it is
        pass
    return call | {"function": function}
