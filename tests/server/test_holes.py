"""Texts around holes, and what is cut from completions."""

import pytest

from seedjax.server.holes import cut_at_dedent


@pytest.mark.parametrize(
    "text, indent, expected",
    [
        ("x\n    y\nz\n", 4, "x\n    y\n"),
        ("x\n    y\n\n    z", 4, "x\n    y\n\n    z"),
        ("x\n\ty\n", 1, "x\n\ty\n"),
        ("x\ny", 0, "x\ny"),
        ("", 4, ""),
    ],
)
def test_cut_at_dedent(text, indent, expected):
    assert cut_at_dedent(text, indent) == expected
