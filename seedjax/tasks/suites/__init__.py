"""All suites by name."""

from seedjax.tasks.suite import Suite
from seedjax.tasks.suites import (
    aider,
    bigcodebench,
    canitedit,
    cruxeval,
    evalplus,
    humaneval,
    humanevalpack,
    infilling,
    livecodebench,
    mbpp,
    multilingual,
    naturalcodebench,
    quixbugs,
)

FILES = (
    humaneval,
    mbpp,
    evalplus,
    infilling,
    multilingual,
    bigcodebench,
    livecodebench,
    naturalcodebench,
    aider,
    canitedit,
    humanevalpack,
    quixbugs,
    cruxeval,
)

SUITES: dict[str, Suite] = {
    suite.name: suite for file in FILES for suite in file.SUITES
}
