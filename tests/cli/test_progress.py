"""The status line: at once and transient on a terminal, seldom in a pipe."""

import io
import time

from seedjax.cli.progress import ERASE, waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_at_once_what_is_waited_for_and_nothing_stays():
    screen = Terminal()
    with waiting("loading mini", stream=screen) as status:
        assert screen.getvalue() == f"{ERASE}loading mini"
        status.show("compiling (first time for this shape)")
        assert screen.getvalue().endswith(
            f"{ERASE}compiling (first time for this shape)"
        )
    assert screen.getvalue().endswith(ERASE)
    assert "\n" not in screen.getvalue()
    status.show("too late")
    assert screen.getvalue().endswith(ERASE)


def test_a_pipe_gets_a_line_only_of_what_takes_long():
    pipe = io.StringIO()
    with waiting("loading mini", stream=pipe, line_every_s=0.1) as status:
        assert pipe.getvalue() == ""
        status.show("converting 3 of 12 files")
        deadline = time.monotonic() + 5
        while pipe.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    lines = pipe.getvalue().splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"converting 3 of 12 files"}


def test_short_waits_leave_no_line_in_a_pipe():
    pipe = io.StringIO()
    with waiting("loading mini", stream=pipe):
        pass
    assert pipe.getvalue() == ""


def test_the_seconds_go_on_while_the_same_thing_is_waited_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("seedjax.cli.progress.time.monotonic", lambda: now[0])
    screen = Terminal()
    with waiting("converting 1 of 9", stream=screen) as status:
        now[0] = 4.0
        status.show("converting 2 of 9")
        assert screen.getvalue().endswith("converting 2 of 9  4 s")
        status.show("writing")
        assert screen.getvalue().endswith(f"{ERASE}writing")


def test_a_reader_that_has_gone_is_no_fault():
    class Closed(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with waiting("loading mini", stream=Closed()) as status:
        status.show("decoding")
