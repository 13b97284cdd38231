"""Licences: declarations understood, permissive ones told from the rest."""

from email.message import Message

import pytest

from seedjax.data.licences import UNKNOWN, declared_licence, is_permissive


def metadata(**headers: str | list[str]) -> Message:
    message = Message()
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return message


OSI = "License :: OSI Approved :: "


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        ({}, UNKNOWN),
        ({"License_Expression": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        (
            {"License": "BSD-3-Clause", "Classifier": OSI + "BSD License"},
            "BSD-3-Clause",
        ),
        ({"Classifier": OSI + "MIT License"}, "MIT"),
        ({"License": "MIT", "Classifier": OSI + "GNU General Public License"}, None),
        ({"Classifier": [OSI + "MIT License", OSI + "Mozilla Public License"]}, None),
        ({"License": "Copyright (c)\nAll of it", "Classifier": []}, UNKNOWN),
        ({"Classifier": "License :: OSI Approved"}, UNKNOWN),
        ({"License": "GPL-3.0"}, "GPL-3.0"),
    ],
)
def test_declarations(headers, licence):
    found = declared_licence(metadata(**headers))
    if licence is None:  # understood or not, it must not pass
        assert not is_permissive(found)
    else:
        assert found == licence


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("GPL-2.0-only OR (MIT AND LGPL-2.1-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("mit license", True),
        ("GPL-3.0", False),
        ("", False),
        ("AND", False),
        ("The MIT License (MIT)", True),
        ("bsd-2-clause", True),
        ("MIT OR", False),
        ("MIT WITH", False),
        ("MIT WITH LLVM-exception GPL-3.0-only", False),
        ("(MIT", False),
        ("MIT)", False),
        (UNKNOWN, False),
    ],
)
def test_permissive(expression, expected):
    assert is_permissive(expression) is expected
