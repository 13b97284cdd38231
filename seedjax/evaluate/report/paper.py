"""The tables that a score is put beside, as they are printed.

Sources: Seed Diffusion Preview (arXiv 2508.02193), Figure 1 and Tables 1 to 3;
Stable-DiffCoder (arXiv 2601.15892). Nobody's decode settings are printed in full, so
that a difference of a few points says little.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SEED = "Seed Diffusion Preview"
STABLE = "Stable-DiffCoder-8B-Instruct"
SEED_CODER = "Seed-Coder-8B-Instruct"
QWEN = "Qwen2.5-Coder-7B-Instruct"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A printed score of several systems.

    Attributes:
      title: of the benchmark.
      suites: names of the suites that measure it; where there are several, a score of
        ours is the mean over their problems.
      condition: what the source says of how it was measured.
      source: paper and table.
      scores: percent, by system.
      misprints: where the print is wrong, and what is used here.
    """

    title: str
    suites: tuple[str, ...]
    condition: str
    source: str
    scores: Mapping[str, float]
    misprints: Mapping[str, str] = field(default_factory=dict)


_FIGURE_1 = (SEED, "Gemini Diffusion", "Mercury Coder Small", "Mercury Coder Mini")


def _figure_1(*scores: float) -> dict[str, float]:
    return dict(zip((*_FIGURE_1, SEED_CODER), scores, strict=True))


_MBXP_LANGUAGES = {
    **{"python": "Python", "java": "Java", "cpp": "C++", "csharp": "C#"},
    **{"typescript": "TypeScript", "javascript": "JavaScript", "php": "PHP"},
    **{"go": "Go", "kotlin": "Kotlin", "perl": "Perl", "ruby": "Ruby"},
    **{"scala": "Scala", "swift": "Swift"},
}
_MBXP = {
    SEED: (
        79.4,
        67.7,
        72.6,
        70.3,
        73.0,
        76.6,
        74.7,
        92.9,
        71.2,
        71.2,
        72.5,
        67.0,
        54.2,
    ),
    STABLE: (
        *(85.7, 75.3, 77.8, 71.2, 73.0, 76.9, 73.8, 98.7, 72.5, 70.5, 77.1, 71.4, 54.2),
    ),
    SEED_CODER: (
        *(85.2, 72.7, 77.0, 74.2, 72.8, 78.8, 74.7, 95.5, 73.4, 72.5, 78.0, 70.3, 54.2),
    ),
    QWEN: (
        83.5,
        70.5,
        74.1,
        71.5,
        72.2,
        74.1,
        74.2,
        96.0,
        65.5,
        64.4,
        75.5,
        64.2,
        62.0,
    ),
    "Qwen3-8B": (
        *(77.0, 69.0, 72.8, 68.9, 73.0, 73.8, 72.3, 92.9, 62.0, 64.6, 69.0, 63.1, 42.2),
    ),
}

_NATURAL = {
    SEED: (52.9, 38.6, 45.7, 38.6),
    STABLE: (51.4, 45.7, 50.0, 47.1),
    SEED_CODER: (55.7, 45.7, 50.0, 47.1),
    QWEN: (34.3, 37.1, 34.3, 35.7),
}
_NATURAL_SUITES = ("python_zh", "java_zh", "python_en", "java_en")

COLUMNS: tuple[Column, ...] = (
    Column(
        title="HumanEval",
        suites=("humaneval",),
        condition="pass@1",
        source="Seed Diffusion Fig. 1; Stable-DiffCoder for the rest",
        scores=_figure_1(82.8, 89.6, 90.0, 88.0, 84.8)
        | {STABLE: 86.6, QWEN: 88.4, "Dream-Coder-7B": 82.9}
        | {"DiffuCoder-7B-Instruct": 72.0, "SDAR-8B-Chat": 78.7},
    ),
    Column(
        title="HumanEval+",
        suites=("humaneval_plus",),
        condition="pass@1",
        source="Stable-DiffCoder; Seed Diffusion prints none",
        scores={STABLE: 82.3, SEED_CODER: 78.7, QWEN: 84.1}
        | {"DiffuCoder-7B-Instruct": 65.2, "WeDLM-8B-Chat": 73.8},
    ),
    Column(
        title="MBPP",
        suites=("mbpp",),
        condition="pass@1; which of MBPP's sets, the source does not say",
        source="Seed Diffusion Fig. 1; Stable-DiffCoder for the rest",
        scores=_figure_1(79.4, 76.0, 76.6, 77.1, 85.2)
        | {STABLE: 85.7, QWEN: 83.5, "Dream-Coder-7B": 79.6}
        | {"DiffuCoder-7B-Instruct": 75.1, "SDAR-8B-Chat": 72.0},
    ),
    Column(
        title="MBPP+",
        suites=("mbpp_plus",),
        condition="pass@1",
        source="Stable-DiffCoder; Seed Diffusion prints none",
        scores={STABLE: 72.8, SEED_CODER: 71.2, QWEN: 71.7}
        | {"DiffuCoder-7B-Instruct": 61.9},
    ),
    Column(
        title="BigCodeBench",
        suites=("bigcodebench",),
        condition="full set, completion, pass@1",
        source="Seed Diffusion Fig. 1; Stable-DiffCoder for the rest",
        scores=_figure_1(53.2, 45.4, 45.5, 42.0, 53.3) | {STABLE: 54.8, QWEN: 48.8},
    ),
    Column(
        title="BigCodeBench-Hard",
        suites=("bigcodebench_hard",),
        condition="148 problems, completion, pass@1",
        source="Stable-DiffCoder; Seed Diffusion prints none",
        scores={STABLE: 31.8, SEED_CODER: 26.4, QWEN: 20.3},
    ),
    Column(
        title="LiveCodeBench v1 to v6",
        suites=("livecodebench",),
        condition="all 1,055 problems, pass@1; the slice of v6 alone that the text "
        "announces is not printed",
        source="Seed Diffusion Fig. 1",
        scores=_figure_1(33.7, 30.8, 25.0, 17.0, 34.8),
    ),
    Column(
        title="CRUXEval-I",
        suites=("cruxeval_input",),
        condition="pass@1",
        source="Stable-DiffCoder; Seed Diffusion prints none",
        scores={STABLE: 62.1, SEED_CODER: 63.3, QWEN: 65.8},
    ),
    Column(
        title="CRUXEval-O",
        suites=("cruxeval_output",),
        condition="pass@1",
        source="Stable-DiffCoder; Seed Diffusion prints none",
        scores={STABLE: 69.0, SEED_CODER: 67.1, QWEN: 65.9},
    ),
    Column(
        title="Aider",
        suites=("aider",),
        condition="whole-file edits, two tries",
        source="Seed Diffusion Table 1",
        scores={SEED: 44.4, SEED_CODER: 57.1, QWEN: 57.9, "Qwen3-8B": 55.6}
        | {"Qwen2.5-Coder-14B-Instruct": 69.2, STABLE: 54.9},
    ),
    Column(
        title="CanItEdit",
        suites=("canitedit_descriptive", "canitedit_lazy"),
        condition="pass@1",
        source="Seed Diffusion Table 1",
        scores={SEED: 54.3, SEED_CODER: 50.5, QWEN: 49.5, "Qwen3-8B": 45.7}
        | {"Qwen2.5-Coder-14B-Instruct": 52.9, STABLE: 60.0},
    ),
    *(
        Column(
            title=f"MBXP {title}",
            suites=(f"mbxp_{language}",),
            condition="pass@1",
            source="Seed Diffusion Table 2",
            scores={system: row[number] for system, row in _MBXP.items()},
        )
        for number, (language, title) in enumerate(_MBXP_LANGUAGES.items())
    ),
    Column(
        title="MBXP, mean of 13",
        suites=tuple(f"mbxp_{language}" for language in _MBXP_LANGUAGES),
        condition="pass@1",
        source="Seed Diffusion Table 2",
        scores={SEED: 72.6, STABLE: 75.3, SEED_CODER: 75.3, QWEN: 72.9}
        | {"Qwen3-8B": 69.3},
    ),
    *(
        Column(
            title=f"NaturalCodeBench {name.replace('_', ' ')}",
            suites=(f"naturalcodebench_{name}",),
            condition="70 problems, pass@1",
            source="Seed Diffusion Table 3",
            scores={system: row[number] for system, row in _NATURAL.items()},
        )
        for number, name in enumerate(_NATURAL_SUITES)
    ),
    Column(
        title="NaturalCodeBench",
        suites=tuple(f"naturalcodebench_{name}" for name in _NATURAL_SUITES),
        condition="mean of the four, pass@1",
        source="Seed Diffusion Table 3",
        scores={SEED: 43.9, STABLE: 48.6, SEED_CODER: 49.6, QWEN: 35.4},
        misprints={
            SEED: "Seed Diffusion prints 38.6 for English and 42.2 for all, which are "
            "not the means of its own columns; Stable-DiffCoder reprints 42.2 and "
            "43.9, which are"
        },
    ),
)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A printed rate.

    Attributes:
      system: whose it is.
      tokens_per_second: as printed.
      condition: hardware, batch and text, as far as they are said.
    """

    system: str
    tokens_per_second: float
    condition: str


SPEEDS: tuple[Speed, ...] = (
    Speed(
        system=SEED,
        tokens_per_second=2146.0,
        condition="H20 GPUs; number, batch and precision not said; mean of eight open "
        "code benchmarks",
    ),
    Speed(
        system="Gemini Diffusion",
        tokens_per_second=1489.0,
        condition="hardware not known, mixed tasks; a misprint of the official 1479",
    ),
    Speed(
        system="Mercury Coder Mini",
        tokens_per_second=1109.0,
        condition="H100, the vendor's own prompts",
    ),
    Speed(
        system="Mercury Coder Small",
        tokens_per_second=737.0,
        condition="H100, the vendor's own prompts",
    ),
)


def columns_of(suite: str) -> list[Column]:
    """The printed columns that one suite measures alone."""
    return [column for column in COLUMNS if column.suites == (suite,)]
