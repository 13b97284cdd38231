"""The status line: at once and transient on a terminal, seldom in a pipe."""

import io
import json
import re
import time

import pytest

from seedjax.cli.progress import ERASE, bar, waiting
from seedjax.inference.loading import load


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


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("seedjax.cli.progress.time.monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_line_at_every_interval_of_what_is_counted(capsys):
    pipe = io.StringIO()
    with bar(stream=pipe, line_every_s=0.1) as report:
        report("eval humaneval", 0, 164)
        report("eval humaneval", 40, 164)
        wait_for(lambda: pipe.getvalue().count("\n") >= 2)
    lines = pipe.getvalue().splitlines()
    assert len(lines) >= 2
    for line in lines:
        assert re.fullmatch(r"eval humaneval: 40 of 164, \d+ per second", line)
    assert capsys.readouterr().out == ""


def test_the_rate_is_of_what_was_done_since_the_stage_began(clock):
    pipe = io.StringIO()
    with bar(stream=pipe, line_every_s=0.05) as report:
        report("eval humaneval", 100, 164)  # of before
        clock[0] = 10.0
        report("eval humaneval", 113, 164)
        wait_for(lambda: "113" in pipe.getvalue())
        report("verifying humaneval", 0, 0)
        wait_for(lambda: "verifying" in pipe.getvalue())
    lines = pipe.getvalue().splitlines()
    assert "eval humaneval: 113 of 164, 1.3 per second" in lines
    assert lines[-1] == "verifying humaneval: 0"


def test_what_is_finished_or_quiet_says_nothing_in_a_pipe():
    pipe = io.StringIO()
    with bar(stream=pipe, line_every_s=0.02) as report:
        report("loading mini", 0, 9)
        report("loading mini", 9, 9)
        assert not wait_for(lambda: "9 of 9" in pipe.getvalue(), seconds=0.2)
    with bar(stream=pipe, quiet=True, line_every_s=0.02) as report:
        report("loading huge", 0, 9)
        assert not wait_for(lambda: "huge" in pipe.getvalue(), seconds=0.2)


def test_a_terminal_sees_a_bar_which_is_gone_at_the_end(clock, capsys):
    screen = Terminal()
    with bar(stream=screen) as report:
        report("eval humaneval", 0, 164)
        clock[0] = 10.0
        report("eval humaneval", 40, 164)
        wait_for(lambda: " 40/164" in screen.getvalue())
        drawn = screen.getvalue()
        print("to standard output")
        report("eval humaneval", 164, 164)
        finished = screen.getvalue()
        report("running programs", 0, 20)
    plain = re.sub(r"\x1b\[\d+m", "", drawn)
    assert "eval humaneval" in plain and " 40/164 4 per second" in plain
    assert "\x1b[?25l" in drawn and finished.endswith("\x1b[2K")  # cleared
    assert "running programs" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")
    assert capsys.readouterr() == ("to standard output\n", "")


def wait_for(happens, seconds=5.0) -> bool:
    for _ in range(int(seconds / 0.02)):
        if happens():
            return True
        time.sleep(0.02)
    return happens()


def test_loading_tells_how_many_weights_are_there(model_directory):
    told = []
    load(str(model_directory), report=lambda *numbers: told.append(numbers))
    name, total = f"loading {model_directory.name}", told[0][2]
    assert told == [(name, done, total) for done in range(total + 1)]


@pytest.mark.slow
def test_a_command_in_a_pipe_tells_on_standard_error_only(run, monkeypatch, tmp_path):
    """The interval made so short that a line comes from a command of a moment."""
    monkeypatch.setattr("seedjax.cli.progress.LINE_EVERY_S", 0.001)
    found = run("lab", "make", "--n", 60, "--out", tmp_path / "tasks.jsonl", "--json")
    code, out, err = found
    assert code == 0 and json.loads(out)["count"] == 60
    assert re.search(r"^lab make: \d+ of 60", err, re.MULTILINE)
