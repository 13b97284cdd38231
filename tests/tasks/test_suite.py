"""What all suites have in common."""

import re
from typing import get_args

import pytest

from seedjax.errors import InputError
from seedjax.tasks.suite import Kind, Rule
from seedjax.tasks.suites import FILES, SUITES, find_suites

FAMILIES = {
    "HumanEval",
    "HumanEval+",
    "HumanEval infilling",
    "MBPP",
    "MBPP+",
    "MBXP",
    "HumanEvalFix",
    "CanItEdit",
    "BigCodeBench",
    "LiveCodeBench",
    "CRUXEval",
    "NaturalCodeBench",
    "QuixBugs",
}


def test_no_name_is_taken_twice():
    assert len(SUITES) == sum(len(file.SUITES) for file in FILES)
    assert FAMILIES <= {suite.family for suite in SUITES.values()}


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_a_suite_says_everything(suite):
    source = suite.source
    assert suite.title and suite.task in get_args(Kind) and suite.num_problems > 0
    assert {suite.extraction, suite.chat_extraction} <= set(get_args(Rule))
    assert suite.samples > 0 and suite.temperature >= 0 and suite.max_new_tokens > 0
    # One sample is greedy; several are not, or they would all be the same.
    assert (suite.samples > 1) == (suite.temperature > 0)
    assert suite.top_p == 1.0 or suite.temperature > 0
    assert source.project and source.version and source.licence
    assert source.files or source.project == "seedjax"
    assert source.address
    assert set(source.urls) <= set(source.files)
    for path, checksum in source.files.items():
        assert not path.startswith("/") and ".." not in path
        assert re.fullmatch("[0-9a-f]{64}|", checksum)
    assert suite.limits.wall_seconds == suite.wall_seconds
    assert (suite.tries > 1) == (suite.second_question is not None)


def test_an_unknown_name_is_told_the_nearest():
    assert find_suites("humaneval") == [SUITES["humaneval"]]
    with pytest.raises(InputError, match="no suite 'humanevel'; did you mean 'humanev"):
        find_suites("humanevel")
    with pytest.raises(InputError, match="no suite '!'; .*humaneval, .*quixbugs"):
        find_suites("!")
