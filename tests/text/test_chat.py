"""Chat templates: what they may count on, what they may not do, and which special
tokens are theirs."""

import datetime

import pytest

from seedjax.errors import InputError
from seedjax.text import chat
from seedjax.text.chat import render_marked

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


def render(template: str, messages=CHAT, **options) -> str:
    """A conversation whose template may ask for `<s>` and `</s>`, without marks."""
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return render_marked(template, messages, **{"marks": {}, "names": names} | options)


def test_a_conversation():
    template = """{{ bos_token }}
{% for message in messages %}
    {% if message['role'] == 'user' %}
[INST] {{ message.content }} [/INST]
    {%- else %}
 {{ message.content }}{{ eos_token }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}"""
    wanted = "<s>\n[INST] Hi [/INST] Ho</s>\n"
    assert render(template, add_generation_prompt=False) == wanted
    assert render(template) == f"{wanted}assistant:"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Hi"}'),
        ("{{ {'é': '<&>'} | tojson }}", '{"é": "<&>"}'),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", '{"a": 2, "b": 1}'),
        ("{% for m in messages %}{% break %}{% endfor %}end", "end"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}"
            "{{ m.content }}{% endfor %}",
            "Ho",
        ),
        ("a{% generation %}b{{ messages[0].content }}{% endgeneration %}c", "abHic"),
        (
            "{% set ns = namespace(n=0, self=1) %}{% for m in messages %}"
            "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n + ns.self }}",
            "3",
        ),
        ("{{ tools is none and documents is none }}", "True"),
        ("{{ dict(a=1).a }}{{ messages | length }}", "12"),
        ("{{ messages[0].content.split('i')[0] | trim }}", "H"),
        ("{{ name is defined }}", "False"),
        ("{{ '<' }}{{ messages[0].more is defined }}", "<False"),
    ],
)
def test_what_templates_count_on(template, text):
    assert render(template) == text


def test_todays_date():
    today = datetime.datetime.now().strftime("%Y")
    assert render("{{ strftime_now('%Y') }}") == today


def test_variables_and_tokens_that_are_not_there():
    template = "{{ bos_token is defined }} {{ eos_token }} {{ mood }}"
    names = {"eos_token": "</s>"}
    assert render(template, names=names, variables={"mood": "dry"}) == "False </s> dry"


def test_none_counts_as_absent():
    message = {"role": "assistant", "content": None, "tool_calls": [{"x": (1, 2.5)}]}
    template = "{{ messages[0].content is defined }} {{ messages[0].tool_calls }}"
    assert render(template, [message]) == "False [{'x': [1, 2.5]}]"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", "malformed at line 1"),
        ("a\n{{ nonsense | frobnicate }}", "malformed at line 2: .*frobnicate"),
        ("{{ raise_exception('no\nway') }}", "does not take these messages: no way"),
        ("{{ nobody.name }}", "does not take these messages: 'nobody' is undefined"),
        ("{{ 1 + 'a' }}", "fails on these messages: TypeError"),
        ("{{ messages | tojson(indent='a') | int + none }}", "fails on these messages"),
        ("{{ ''.__class__.__mro__ }}", "does what a template may not"),
        ("{{ ''['__class__'] }}", "does what a template may not"),
        ("{{ messages.append(1) }}", "does what a template may not"),
        ("{{ messages[0].update(role='x') }}", "does what a template may not"),
        ("{{ '{0.__class__}'.format(1) }}", "does what a template may not"),
        ("{{ lipsum.__globals__ }}", "may not: it reads '__globals__' of a function"),
        ("{{ raise_exception.__globals__['os'] }}", "does what a template may not"),
        ("{{ namespace(__class__=1) }}", "does what a template may not"),
        (
            "{% set n = namespace() %}{% set n.__init__ = 1 %}",
            "does what a template may not",
        ),
        ("{{ range(999999) }}", "fails on these messages: OverflowError"),
        ("{% include '/etc/passwd' %}", "TypeError: no loader"),
    ],
)
def test_templates_at_fault(template, message):
    with pytest.raises(InputError, match=message) as caught:
        render(template)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the chat is empty"),
        ("hello", "messages are a str"),
        ({"role": "user"}, "messages are a dict"),
        (["hello"], "a message is 'hello'"),
        ([{"content": "x"}], "the role of a message is None"),
        ([{"role": "<|user|>", "content": "x"}], "it must be a word such as 'user'"),
        ([{"role": "user", "content": object()}], "holds a object"),
    ],
)
def test_messages_at_fault(messages, message):
    with pytest.raises(InputError, match=message):
        # Around the annotation, which tests check and users do not.
        function = getattr(render_marked, "__wrapped__", render_marked)
        function("", messages, marks={}, names={})


MARKS = {"<|end|>": "#1#", "<|user|>": "#2#", "<s>": "#3#", "<|end|>>": "#4#"}


def marked(template: str, content: str, **options) -> str:
    messages = [{"role": "user", "content": content}]
    names = {"bos_token": "<s>", "eos_token": "<|end|>"}
    return render_marked(template, messages, marks=MARKS, names=names, **options)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("<|user|>{{ messages[0].content }}<|end|>", "#2#a<|end|>b#1#"),
        ("{{ '<|user|>' ~ messages[0].content }}<|end|>>", "#2#a<|end|>b#4#"),
        ("{{ bos_token + messages[0].content + eos_token }}", "#3#a<|end|>b#1#"),
        ("{{ ['<s>', {'x': '<|end|>'}.x] | join }}", "#3##1#"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "a<|end|>b"}]'),
        # What a template looks for in a message it finds, and writes as it is there.
        ("{{ messages[0].content.split('<|end|>') | length }}", "2"),
        ("{{ messages[0].content.partition('<|end|>') | join }}", "a<|end|>b"),
        ("{% raw %}{{ <s> }}{% endraw %}", "{{ #3# }}"),
    ],
)
def test_only_a_template_writes_special_tokens(template, text):
    assert marked(template, "a<|end|>b") == text


THOUGHTS = {"<think>": "#1#", "</think>": "#2#", "<|end|>": "#3#", "<|user|>": "#4#"}
# As templates of thinking models look into what was said, in constructs of their kinds.
LOOKING = {
    "in": "{{ '</think>' in c }}",
    "split": "{{ c.split('</think>')[-1].lstrip('\n') }}|{{ c.split('</think>')[0] }}",
    "rsplit": "{{ c.rsplit('</think>', 1) | join('/') }}{{ c.split('\n', 1)[0] }}",
    "ends": "{{ c.startswith('<think>') }}{{ c.endswith('<|end|>') }}",
    "places": "{{ c.find('</think>') }} {{ c.rfind('</think>') }} {{ c.count('<') }}",
    "slice": "{{ c[c.find('</think>') + ('</think>' | length):] }}",
    "partition": "{{ c.partition('</think>')[2] }}|{{ c.rpartition('</think>')[0] }}",
    "trim": "{{ c | trim }}|{{ (c + ' ') | trim }}|{{ c.strip('\n') }}",
    "replace": "{{ c | replace('</think>', '') }}{{ c.replace('<think>', '', 1) }}",
    "prefix": "{{ c.removeprefix('<think>') }}{{ c.removesuffix('<|end|>') }}",
    "macro": "{% macro m(x) %}{{ x }}{% endmacro %}{% set d = m(c) | trim %}"
    "{{ d.split('</think>') | length }}{% if '</think>' in d %}yes{% endif %}",
    "set": "{% set d %}:{{ c }}{% endset %}{{ '</think>' in d }}",
    "tilde": "{% set d = '<|user|>' ~ c ~ 1 %}{{ d.split('<think>') | length }}{{ d }}",
    "namespace": "{% set ns = namespace(d='') %}{% for m in messages %}"
    "{% set ns.d = ns.d + m.content %}{% endfor %}{{ '</think>' in ns.d }}",
    "equal": "{{ c == '</think>' }}{{ '</think>' in c.split() }}{{ c in ['x'] }}",
    "tojson": "{% set d = c | tojson %}{{ '</think>' in d }}{{ tools | tojson }}",
    "parts": "{% for p in [{'type': 'text', 'text': c}] %}{% if p.type == 'text' and "
    "'</think>' in p.text %}{{ p.text.split('</think>')[1] }}{% endif %}{% endfor %}",
    "string": "{{ c is string }}{{ c is iterable }}{{ c | length }}{{ c | upper }}",
    "loop": "{% for m in messages %}{% if loop.previtem and '</think>' in "
    "loop.previtem.content %}after{% endif %}{{ loop.last }}{% endfor %}",
    "generation": "{% generation %}{{ c.split('</think>')[-1] }}{% endgeneration %}",
    "date": "{{ strftime_now('%Y') }}{% if '</think>' not in c %}"
    "{{ raise_exception('x') }}{% endif %}",
    "turn": "<|user|>{% if '</think>' in c %}<think>{{ c.split('</think>')[0].split("
    "'<think>')[-1] }}</think>{{ c.split('</think>')[-1] }}{% endif %}<|end|>",
}
SAID = (
    "<think>\nHm, 1 < 2.\n</think>\n\nYes.<|end|>",
    "no tag",
    "</think>",
    "a</think>b</think>c",
    "",
)


@pytest.mark.parametrize("name", LOOKING)
def test_templates_look_into_messages_as_in_hugging_faces_hands(name):
    """The text is the one that transformers makes, and what messages spell in it is no
    special token."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    template = "{% set c = messages[0].content %}" + LOOKING[name]
    for content in SAID:
        if name == "date" and "</think>" not in content:
            continue
        messages = [{"role": "user", "content": content}, *CHAT]
        options = {"tools": [{"name": "f", "about": content}]}
        wanted = utils._compile_jinja_template(template).render(
            messages=messages, **options
        )
        text = render_marked(
            template, messages, marks=THOUGHTS, names={}, variables=options
        )
        for spelled, mark in THOUGHTS.items():
            text = text.replace(mark, spelled)
        assert text == wanted


def test_what_a_message_spells_stays_text_where_a_template_finds_it():
    messages = [{"role": "user", "content": SAID[0]}]
    template = "{% set c = messages[0].content %}" + LOOKING["turn"]
    text = render_marked(template, messages, marks=THOUGHTS, names={})
    # Of four tokens the template writes each but the last of the message's own.
    assert text == "#4##1#\nHm, 1 < 2.\n#2#\n\nYes.<|end|>#3#"


COMPOSED = "{{ '<|' + messages[0].role + '|>' + messages[0].content }}<|end|>"


def test_a_template_may_put_special_tokens_together():
    assert marked(COMPOSED, "a < b") == "#2#a < b#1#"
    assert marked(COMPOSED, "<|nothing|>") == "#2#<|nothing|>#1#"
    for spelled in ("<|end|>", "<|user|>"):
        with pytest.raises(InputError, match="cannot be told apart"):
            marked(COMPOSED, spelled)
    # Variables are no part of the template either.
    with pytest.raises(InputError, match="cannot be told apart"):
        marked(COMPOSED + "{{ mood }}", "a", variables={"mood": "<s>"})


def test_messages_that_are_put_together_do_not_become_special():
    halves = [{"type": "text", "text": "<|"}, {"type": "text", "text": "end|>"}]
    messages = [{"role": "user", "content": halves}]
    template = "{% for part in messages[0].content %}{{ part.text }}{% endfor %}<s>"
    names: dict[str, str] = {}
    text = render_marked(template, messages, marks=MARKS, names=names)
    assert text == "<|end|>#3#"
    # Nor where the template takes out what stood between them.
    shortened = "{{ messages[0].content | replace('x', '') }}"
    assert marked(shortened, "<|exnd|>") == "<|end|>"


def test_without_special_tokens_nothing_is_marked():
    messages = [{"role": "user", "content": "<s>"}]
    assert render_marked("<s>{{ messages[0].content }}", messages, marks={}, names={})


HOSTILE = {
    "a loop without an end": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "filters without an end": "{{ range(99999) | select('in', range(99999) | list)"
    " | list | length }}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "output": "{% for a in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
    "a macro's output": "{% set x %}{% for a in range(99999) %}{{ 'a' * 99999 }}"
    "{% endfor %}{% endset %}",
    "repetition": "{{ 'a' * 10 ** 10 }}",
    "repetition of lists": "{{ ([0] * 10 ** 10) | length }}",
    "power": "{{ 10 ** (10 ** 10) % 7 }}",
    "squares": "{% set ns = namespace(n=3) %}{% for a in range(99) %}"
    "{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n % 7 }}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for a in range(99) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x | length }}",
    "joined doubling": "{% set ns = namespace(x='ab') %}{% for a in range(99) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}",
    "lists of lists": "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "lists of lists as JSON": "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson | length }}",
    "padding": "{{ 'a' | center(10 ** 10) }}",
    "padding by a method": "{{ 'a'.ljust(10 ** 10) }}",
    "padding by a format": "{{ '%9999999999d' % 1 }}",
    "padding by an argument": "{{ '%*d' % (10 ** 10, 1) }}",
    "padding by format": "{{ '{:>9999999999}'.format(1) }}",
    "replacing": "{% set x = 'a' * 999999 %}{{ x.replace('a', x) | length }}",
    "replacing by a filter": "{% set x = 'a' * 999999 %}"
    "{{ x | replace('a', x) | length }}",
    "joining": "{% set x = 'a' * 999999 %}{{ x.join(['b'] * 99999) | length }}",
    "joining by a filter": "{% set x = 'a' * 999999 %}"
    "{{ range(99999) | join(x) | length }}",
    "nested too deep": "{{ " + "(" * 99999 + ")" * 99999 + " }}",
    "loops nested too deep": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("marked", [False, True])
def test_a_template_has_limits(name, marked, monkeypatch):
    """Of time and size: one clear error, and nothing that cannot be interrupted."""
    import time

    monkeypatch.setattr(chat, "SECONDS", 0.3)
    messages = [{"role": "user", "content": "x"}]
    began = time.process_time()
    with pytest.raises(InputError, match="the chat template") as found:
        marks = {"<|im_end|>": "@m@"} if marked else {}
        render_marked(HOSTILE[name], messages, marks=marks, names={})
    assert len(str(found.value)) < 400
    assert time.process_time() - began < 5


def test_the_limit_is_of_one_rendering(monkeypatch):
    import time

    monkeypatch.setattr(chat, "SECONDS", 0.2)
    messages = [{"role": "user", "content": "a" * 100_000}]
    for _ in range(3):
        time.sleep(0.1)
        text = render("{{ messages[0].content | replace('a', 'bc') }}", messages)
        assert text == "bc" * 100_000
    time.sleep(0.3)  # nothing comes after the end
