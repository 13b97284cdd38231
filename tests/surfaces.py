"""What the matrix of features and surfaces holds: data, and the table of the docs.

A cell is a feature of a recipe on a surface: what comes out equals what `generate`
writes for each prompt alone, or one line refuses it.
"""

from dataclasses import dataclass, field
from typing import Any

from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.grammar.build import Regex
from seedjax.sampling.policy import ConfidenceThreshold, SubBlocks, TimeSchedule
from seedjax.sampling.recipe import Speculation
from seedjax.sampling.revision import LevenshteinEdits, Remask, Revoke, TokenEdits
from seedjax.sampling.stopping import IgnoreEos

SURFACES = {
    "batch": "`generate`, a batch",
    "stream": "`stream`",
    "engine": "`Engine`",
    "exported": "exported",
    "evaluation": "`seedjax eval`",
    "mesh": "8 devices",
}


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A row of the matrix.

    Attributes:
      title: in the docs.
      recipe: fields of `SamplerConfig`.
      model: which of the test's models it takes.
      options: further arguments of `generate`.
      refused: surface to what its one line says; and why, in the docs.
      changes: whether answers differ from those without the feature.
      quick: surfaces on which it is tried by default; a cell that compiles takes three
        seconds, and all of them are tried with `-m slow`.
    """

    title: str
    recipe: dict[str, Any] = field(default_factory=dict)
    model: str = "block"
    options: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    changes: bool = True
    quick: tuple[str, ...] = ()


NO_TRACE = "trace=True; drop trace, or use generate"
TRACE = {
    "stream": (f"text alone, and the recipe has {NO_TRACE}", "yields text only"),
    "engine": (f"no record of its slots, .* {NO_TRACE}", "records nothing"),
    "exported": (
        f"tokens alone, and the recipe has {NO_TRACE}",
        "returns tokens only",
    ),
}
NO_LOGPROBS = "logprobs=True; drop logprobs, or use generate"
LOGPROBS = {
    "stream": (f"text alone, and the recipe has {NO_LOGPROBS}", "yields text only"),
    "exported": (
        f"tokens alone, and the recipe has {NO_LOGPROBS}",
        "returns tokens only",
    ),
}


def not_evaluated(name: str) -> dict[str, tuple[str, str]]:
    return {"evaluation": (f"without {name}; drop {name}", "a suite fixes its prompts")}


FEATURES = {
    "plain": Feature(
        title="temperature, a seed a row",
        changes=False,
        quick=("batch", "engine", "evaluation"),
    ),
    "greedy": Feature(title="temperature 0", recipe={"temperature": 0.0}),
    "filtered": Feature(
        title="`top_k`, `top_p`", recipe={"temperature": 2.0, "top_k": 9, "top_p": 0.9}
    ),
    "guidance": Feature(
        title="`guidance`",
        recipe={"guidance": 1.5},
        quick=("batch", "engine", "exported"),
    ),
    "speculation": Feature(
        title="`speculation`",
        recipe={"speculation": Speculation(draft_tokens=3)},
        model="shifted",
    ),
    "one-pass": Feature(
        title='`speculation`, `mode="one_pass"`',
        recipe={"speculation": Speculation(draft_tokens=2, mode="one_pass")},
        model="causal",
        quick=("engine",),
    ),
    "lookup": Feature(
        title='`speculation`, `drafts="lookup"`',
        recipe={"speculation": Speculation(draft_tokens=3, drafts="lookup")},
        model="causal",
    ),
    "edits": Feature(
        title="`revision`: `TokenEdits`",
        recipe={"revision": TokenEdits(threshold=0.02, extra_steps=3)},
    ),
    "revoke": Feature(
        title="`revision`: `Revoke`",
        recipe={"revision": Revoke(threshold=0.05, extra_steps=3)},
    ),
    "remask": Feature(
        title="`revision`: `Remask`",
        recipe={
            "revision": Remask(cap=0.5, extra_steps=3),
            "temperature": 0.0,
        },
        quick=("evaluation",),
    ),
    "levenshtein": Feature(
        title="`revision`: `LevenshteinEdits`",
        recipe={
            "revision": LevenshteinEdits(
                delete_token_id=300,
                insert_token_id=301,
                threshold=0.02,
                delete_threshold=0.0,
                insert_threshold=0.0,
                extra_steps=4,
            )
        },
    ),
    "ahead": Feature(
        title="`ahead`", recipe={"ahead": WorkAhead(open_at=0.3, threshold=0.02)}
    ),
    "grammar": Feature(
        title="grammar",
        options={"grammar": Regex(pattern=r"([a-z]+ ){1,4}[0-9]{2,6}")},
        refused=not_evaluated("grammar"),
        quick=("batch",),
    ),
    "forced": Feature(
        title="`forced_tokens`",
        options={"forced_tokens": {1: 70, 9: 80}},
        refused=not_evaluated("forced_tokens"),
        quick=("stream",),
    ),
    "stop": Feature(
        title="`stop`",
        options={"stop": ["e", "1"]},
        refused={
            "evaluation": ("without stop; drop stop", "a suite has its own"),
        },
        quick=("engine",),
    ),
    "int8": Feature(title="`int8_cache`", recipe={"int8_cache": True}, changes=False),
    "no-cache": Feature(title="`cache=False`", recipe={"cache": False}, changes=False),
    "canvas": Feature(
        title='`context="canvas"`', recipe={"context": "canvas"}, model="free"
    ),
    "prefix-cache": Feature(
        title='`context="canvas_prefix_cache"`',
        recipe={"context": "canvas_prefix_cache"},
        model="free",
    ),
    "dual-cache": Feature(
        title='`context="canvas_dual_cache"`',
        recipe={"context": "canvas_dual_cache"},
        model="free",
    ),
    "time-schedule": Feature(
        title='`block_size="answer"`, `TimeSchedule`, `certainty_of="draw"`',
        recipe={
            "context": "canvas",
            "block_size": "answer",
            "policy": TimeSchedule(steps_per_block=6),
            "certainty_of": "draw",
            "top_p": 0.9,
        },
        model="free",
        quick=("engine",),
    ),
    "sub-blocks": Feature(
        title="`SubBlocks`",
        recipe={"policy": SubBlocks(policy=ConfidenceThreshold(threshold=0.1), size=4)},
        model="shifted",
    ),
    "late": Feature(
        title="`last_token_ids`",
        recipe={"last_token_ids": tuple(range(120, 160)), "temperature": 0.0},
    ),
    "cut": Feature(title='`last_block="cut"`', recipe={"last_block": "cut"}),
    "steps": Feature(
        title="`max_steps_per_block`, `early_exit=False`",
        recipe={"max_steps_per_block": 2, "early_exit": False},
    ),
    "whole": Feature(title="`IgnoreEos`", recipe={"eos": IgnoreEos()}),
    "causal": Feature(title="a causal model", model="causal"),
    "trace": Feature(
        title="`trace`", recipe={"trace": True}, refused=TRACE, changes=False
    ),
    "logprobs": Feature(
        title="`logprobs`",
        recipe={"logprobs": True},
        refused=LOGPROBS,
        changes=False,
        quick=("engine",),
    ),
}


def table() -> str:
    """The matrix in Markdown."""
    lines = [
        "| | " + " | ".join(SURFACES.values()) + " |",
        "|---|" + "---|" * len(SURFACES),
    ]
    for feature in FEATURES.values():
        cells = [
            f"refused: {feature.refused[surface][1]}"
            if surface in feature.refused
            else "equal"
            for surface in SURFACES
        ]
        lines.append(f"| {feature.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
