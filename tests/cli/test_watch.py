"""Frames of `--watch`: drawn when their block is there."""

import io
import sys

import pytest

from seedjax.cli import watch
from seedjax.sampling.trace import TraceStep


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def blocks(tokenizer):
    """Two blocks of one step each: `ab`, then `cd`."""
    ids = [tokenizer.encode(letter)[0] for letter in "abcd"]
    return [
        [
            TraceStep(
                row=0,
                block=number,
                step=0,
                positions=(2 * number, 2 * number + 1),
                tokens=tuple(ids[2 * number : 2 * number + 2]),
                confidences=(0.9, 0.8),
            )
        ]
        for number in range(2)
    ]


def test_a_terminal_sees_each_block_before_the_next_is_decoded(
    monkeypatch, tokenizer, blocks
):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(watch, "FRAME_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with watch.Watcher(tokenizer, before="def ") as watcher:
        watcher.show(blocks[0])
        first = screen.getvalue()
        assert "def " in first and "a" in first and "c" not in first
        watcher.show(blocks[1])
        assert "c" in screen.getvalue()[len(first) :]


def test_a_pipe_gets_a_line_a_step_as_it_comes(monkeypatch, capsys, tokenizer, blocks):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with watch.Watcher(tokenizer, before="def ") as watcher:
        watcher.show(blocks[0])
        assert capsys.readouterr().err.startswith("step 0 block 0: 'a' 'b'")
        watcher.show(blocks[1])
        assert capsys.readouterr().err.startswith("step 1 block 1: 'c' 'd'")
    assert sys.stdout.getvalue() == ""
