"""Runs one Script at a time in a warm process inside walls (see sandbox.py)."""

import contextlib
import math
import os
import re
import secrets
import signal
import socket
from collections.abc import Sequence
from typing import Any

from seedjax.sandbox import runtimes
from seedjax.sandbox.containment import launch
from seedjax.sandbox.containment.warm_process import Gone, WarmProcess
from seedjax.sandbox.containment.wire import read_frame, write_frame
from seedjax.sandbox.outcome import (
    BROKEN,
    CLEAN_SECONDS,
    OVER,
    Limits,
    Outcome,
    Reason,
    explain_status,
    printable,
)
from seedjax.sandbox.script import Script

COMPILE_SECONDS = 100
COMPILE_BYTES = 2 << 30  # of memory
FILE_BYTES = 64 << 20  # of one file: what compilers write
SCRATCH_BYTES = 512 << 20  # of all files together
OPEN_FILES = 256
REPORT_BYTES = 1 << 16  # of what a program's process says of itself
ENDED_EARLY = "the program ended before its test did"


class ScriptWorker:
    """A warm process for the language of the last script."""

    def __init__(
        self,
        isolation: launch.Isolation,
        user: int | None,
        limits: Limits,
    ):
        self.isolation = isolation
        self.user = user
        self.scratch = ""
        self.limits = limits
        self.language = ""
        self.runner: WarmProcess | None = None

    def start(self, language: str) -> WarmProcess:
        """Raises Gone where that is impossible."""
        if self.runner is not None and self.language == language:
            return self.runner
        self.stop()
        known = runtimes.runtime(language)
        self.scratch = launch.make_scratch(self.isolation)
        settings = {
            "user": self.user,
            "scratch": self.scratch,
            "file_bytes": FILE_BYTES if known.compile else self.limits.file_bytes,
            "processes": max(self.limits.processes, known.processes),
            "open_files": OPEN_FILES,
            "open_scratch": self.isolation != "rlimits",
        }
        self.runner = WarmProcess(
            *launch.runner_command(
                self.isolation,
                settings,
                SCRATCH_BYTES,
                launch.SCRIPT_RUNNER,
                runtimes.folders(language),
            )
        )
        self.language = language
        return self.runner

    def stop(self) -> None:
        if self.runner is not None:
            self.runner.stop()
        self.runner = None

    def execute(self, script: Script) -> Outcome:
        if launch.writes_nothing(self.isolation):
            if script.language != "python" or script.command or script.files:
                message = "programs may write no file here: install bubblewrap"
                return Outcome(False, "unsupported", message, 0.0)
        runner = self.start(script.language)
        try:
            outcome = self.attempt(script, runner)
            runner.wake()
            runner.send({"do": "end"})
            runner.reply(CLEAN_SECONDS)
            return outcome
        except Gone:
            # Not even a pass is believed.
            self.stop()
            return Outcome(False, "crashed", BROKEN, 0.0)

    def attempt(self, script: Script, runner: WarmProcess) -> Outcome:
        known = runtimes.runtime(script.language)
        name = script.file_name or known.file_name
        source, mark = script.source, script.end_mark
        if mark and mark in source:
            mark = secrets.token_hex(16)
            source = source.replace(script.end_mark, mark)
        runner.send({"do": "begin", "files": {**script.files, name: source}})
        runner.reply(CLEAN_SECONDS)
        seconds = script.wall_seconds or self.limits.wall_seconds
        memory_bytes = script.memory_bytes or self.limits.memory_bytes
        limits = {
            "cpu_seconds": math.ceil(max(self.limits.cpu_seconds, seconds)),
            "memory_bytes": memory_bytes + known.spare_bytes,
            "memory_limit": known.memory_limit,
        }
        task: dict[str, Any] = {"do": "execute", "limits": limits, "seconds": seconds}
        if script.language == "python" and not script.command:
            return run_python(runner, task, script, name)
        task["variables"] = runtimes.variables(
            script.language, os.path.join(self.scratch, "task")
        )
        compiling = script.compile or (() if script.command else known.compile)
        if compiling:
            task["words"] = runtimes.command(
                script.language, compiling, name, memory_bytes
            )
            # Without walls, another user may not even pass through this one's folders.
            if self.isolation != "rlimits" and compiling == known.compile:
                header = runtimes.compiled_header(script.language)
                if header is not None:
                    task["words"].append(f"-I{header}")
            fault = compile_program(runner, task, known, name)
            if fault is not None:
                return fault
        task["words"] = runtimes.command(
            script.language, script.command or known.run, name, memory_bytes
        )
        reply = execute(runner, task)
        outcome = judge(reply, "the program")
        if outcome.passed and mark not in outcome.output:
            return outcome._replace(
                passed=False, reason="crashed", message=f"{ENDED_EARLY}: exit status 0"
            )
        if mark != script.end_mark:
            outcome = outcome._replace(output=outcome.output.replace(mark, ""))
        return outcome


def execute(
    runner: WarmProcess, task: dict[str, Any], descriptors: Sequence[int] = ()
) -> dict[str, Any]:
    runner.send(task, descriptors)
    return runner.reply(task["seconds"] + CLEAN_SECONDS)


def compile_program(
    runner: WarmProcess, task: dict[str, Any], known: runtimes.Runtime, name: str
) -> Outcome | None:
    """None where the program is ready to be run."""
    limits = {
        "cpu_seconds": COMPILE_SECONDS,
        "memory_bytes": COMPILE_BYTES,
        "memory_limit": "DATA",
    }
    emitted = known.emits.format(stem=name.rpartition(".")[0])
    reply = execute(
        runner,
        task | {"limits": limits, "seconds": COMPILE_SECONDS, "emitted": emitted},
    )
    outcome = judge(reply, "the compiler")
    if outcome.passed or reply["emitted"]:
        return None
    if outcome.reason == "failed":
        message = f"it does not compile: {telling_line(outcome.output)}"
        return outcome._replace(reason="error", message=printable(message))
    return outcome


def judge(reply: dict[str, Any], who: str) -> Outcome:
    """The outcome of a command whose exit status tells it."""
    seconds, output, status = reply["seconds"], reply["output"], reply["status"]
    reason: Reason
    if reply["over"]:
        reason, message = OVER[reply["over"]]
    elif status is None:
        reason, message = "timeout", "out of wall-clock time"
    elif status == 0:
        return Outcome(True, "passed", "", seconds, output)
    else:
        reason, message = explain_status(status, f"{who} ended")
        # A failed assert() of C and C++ says so and aborts.
        aborted = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT
        asserted = aborted and re.search("assertion.*failed", output, re.I)
        if reason == "crashed" and (os.WIFEXITED(status) or asserted):
            reason, message = "failed", f"{message}: {telling_line(output)}"
    return Outcome(False, reason, printable(message), seconds, output)


def telling_line(output: str) -> str:
    """The line that says what is wrong, as far as languages agree on that."""
    lines = [line for line in output.splitlines() if line.strip()]
    found = [line for line in lines if re.search("error|exception|assert", line, re.I)]
    return (found or lines[-1:] or ["it prints nothing"])[0]


def run_python(
    runner: WarmProcess, task: dict[str, Any], script: Script, name: str
) -> Outcome:
    """Hands a program and then its test to a contained process (see
    containment/python_script.py)."""
    module = name.removesuffix(".py").replace("/", ".")
    task |= {
        "name": module if script.file_name else "__main__",
        "file_name": name,
        "source": script.source,
        "test_cases": script.test_cases,
    }
    word = secrets.token_hex(16)
    asking, answering = socket.socketpair()
    with asking:
        with answering:
            runner.send(task, [answering.fileno()])
        # The runner ends the program when its time is up, and its end closes this.
        asking.settimeout(task["seconds"] + CLEAN_SECONDS)
        report = converse(asking, script.test, word)
        reply = runner.reply(task["seconds"] + CLEAN_SECONDS)
    seconds, output = reply["seconds"], reply["output"]
    if report == ["ended", word]:
        return Outcome(True, "passed", "", seconds, output)
    outcome = judge(reply, "the program")
    if report is None or reply["over"] or outcome.reason == "timeout":
        if outcome.reason in ("passed", "failed"):
            message = f"{ENDED_EARLY}: " + outcome.message.rpartition(": ")[2]
            if outcome.passed:
                message = f"{ENDED_EARLY}: exit status 0"
            return Outcome(False, "crashed", printable(message), seconds, output)
        return outcome
    reason, message = explain_report(report, script.test)
    return Outcome(False, reason, printable(message), seconds, output)


def converse(asking: socket.socket, test: str, word: str) -> Any:
    """The last that the program's process says of itself; None for nothing."""
    try:
        report = read_frame(asking, REPORT_BYTES)
        if report != ["loaded"]:
            return report
        # It may have failed and gone before it reads the word.
        with contextlib.suppress(OSError):
            write_frame(asking, test)
            write_frame(asking, word)
        return read_frame(asking, REPORT_BYTES)
    except (OSError, EOFError):
        return None
    except (ValueError, RecursionError):
        return ["forged"]


def explain_report(report: Any, test: str) -> tuple[Reason, str]:
    match report:
        case [str(part), str(kind), str(text), int(line)] if part in ("source", "test"):
            message = f"{kind}: {text}" if text else kind
            lines = test.splitlines()
            if 0 < line <= len(lines):
                message += f" at line {line} of the test: {lines[line - 1].strip()}"
            if kind == "MemoryError":
                return "memory", message
            wrong = kind == "AssertionError" and part == "test"
            return ("failed" if wrong else "error"), message
    return "crashed", "the program has forged its report"
