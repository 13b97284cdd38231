"""Runs programs that a model has written against their unit tests, each contained.

    with Sandbox(workers=2) as sandbox:
        outcomes = sandbox.run([Program(source=..., test=..., entry_point="add")])

A worker is two warm processes. The trusted one runs `check(candidate)` and holds the
expected answers; the contained one runs the program. Each forks a child a task, the two
children are joined by a fresh socket on which calls go over and plain data comes back,
and only the end of `check` itself makes a task pass (see containment/checker.py).
A `Script`, a whole program, runs inside the same walls in a third process, which is
started for its language when it is first needed (see script_worker.py).
"""

import functools
import json
import math
import os
import queue
import select
import socket
import symtable
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from seedjax.errors import InputError
from seedjax.sandbox.containment import launch
from seedjax.sandbox.containment.warm_process import Gone, WarmProcess
from seedjax.sandbox.outcome import (
    BROKEN,
    CLEAN_SECONDS,
    OVER,
    Limits,
    Outcome,
    Reason,
    explain_status,
)
from seedjax.sandbox.runtimes import missing
from seedjax.sandbox.script import Script
from seedjax.sandbox.script_worker import ScriptWorker

COMPILE_SECONDS = 60.0
OPEN_FILES = 64
DEATH_SECONDS = 0.25  # what an ending process may take to show its exit status
TEST_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True, kw_only=True)
class Program:
    """A whole program and its test.

    `test` defines `check(candidate)`, HumanEval style. It sees nothing of the program
    but `candidate`, also under the name `entry_point`: what else it uses it must define
    itself. A HumanEval prompt, put before the test, brings the helpers of its task, and
    the program cannot replace them there.
    """

    source: str
    test: str
    entry_point: str
    in_place: bool = False  # changes of list, dict and set arguments are copied back


class Worker:
    """Runs one task at a time in a pair of warm processes."""

    def __init__(self, isolation: launch.Isolation, index: int, limits: Limits):
        self.limits = limits
        self.isolation = isolation
        self.user = launch.unprivileged_user(index)
        self.checker: WarmProcess | None = None
        self.runner: WarmProcess | None = None
        self.scripts: ScriptWorker | None = None

    def start(self) -> tuple[WarmProcess, WarmProcess]:
        """The running checker and runner, started where they are not. Raises Gone where
        that is impossible."""
        if self.runner is None:
            settings = {
                "user": self.user,
                "scratch": launch.make_scratch(self.isolation),
                "cpu_seconds": math.ceil(self.limits.cpu_seconds),
                "memory_bytes": self.limits.memory_bytes,
                "file_bytes": self.limits.file_bytes,
                "processes": self.limits.processes,
                "memory_limit": "AS",
                "open_files": OPEN_FILES,
                "answer_bytes": self.limits.answer_bytes,
            }
            files = 4 * self.limits.file_bytes
            self.runner = WarmProcess(
                *launch.runner_command(self.isolation, settings, files)
            )
        if self.checker is None:
            self.checker = WarmProcess(*launch.checker_command())
        return self.checker, self.runner

    def stop(self) -> None:
        for process in (self.runner, self.checker, self.scripts):
            if process is not None:
                process.stop()
        self.runner = self.checker = self.scripts = None

    def execute(self, program: Program | Script) -> Outcome:
        outcome = self.attempt(program)
        if outcome.message == BROKEN:
            # It may have been the one before it: the second time it is itself.
            outcome = self.attempt(program)
        return outcome

    def attempt(self, program: Program | Script) -> Outcome:
        if isinstance(program, Script):
            if self.scripts is None:
                self.scripts = ScriptWorker(self.isolation, self.user, self.limits)
            return self.scripts.execute(program)
        checker, runner = self.start()
        begin = time.monotonic()
        try:
            reason, message, seconds = self.judge(program, checker, runner)
            runner.wake()
            patience = DEATH_SECONDS if reason == "crashed" else 0.0
            runner.send({"do": "end", "patience_s": patience})
            checker.send({"do": "end"})
            ended = runner.reply(CLEAN_SECONDS)
            checker.reply(CLEAN_SECONDS)
        except Gone:
            # Not even a pass is believed.
            self.stop()
            seconds = min(time.monotonic() - begin, self.limits.wall_seconds)
            return Outcome(False, "crashed", BROKEN, seconds)
        if ended["over"]:
            reason, message = OVER[ended["over"]]
        elif reason == "crashed" and ended["status"] is not None:
            reason, message = explain_status(ended["status"], message)
        return Outcome(reason == "passed", reason, message, seconds)

    def judge(
        self, program: Program, checker: WarmProcess, runner: WarmProcess
    ) -> tuple[Reason, str, float]:
        """Hands the two halves of a task over and waits for the verdict: its reason,
        its message and how many seconds it took."""
        task: dict[str, Any] = {
            "do": "run",
            "entry_point": program.entry_point,
            "in_place": program.in_place,
        }
        test = {
            "test": program.test,
            "answer_bytes": self.limits.answer_bytes,
            "cpu_seconds": self.limits.cpu_seconds,
            "memory_bytes": TEST_MEMORY_BYTES,
        }
        asking, answering = socket.socketpair()
        verdict, verdict_end = os.pipe()
        with asking, answering, os.fdopen(verdict, "rb") as file:
            with os.fdopen(verdict_end, "wb"):
                checker.send(task | test, [asking.fileno(), verdict_end])
            # To compile a test may take longer than to run it, and is done only once.
            checker.reply(COMPILE_SECONDS)
            begin = time.monotonic()
            runner.send(task | {"source": program.source}, [answering.fileno()])
            # Only the children hold these from now on: the end of one is seen.
            asking.close()
            answering.close()
            deadline = begin + self.limits.wall_seconds
            reason, message = read_verdict(file.fileno(), deadline)
        return reason, message, time.monotonic() - begin


def read_verdict(descriptor: int, deadline: float) -> tuple[Reason, str]:
    """The bytes that the checker's child writes before it ends."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    text = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return "timeout", "out of wall-clock time"
        part = os.read(descriptor, 1 << 16)
        if not part:
            break
        text += part
    if not text:
        return "crashed", "the test's own process has ended"
    reason, message = json.loads(text)
    return reason, message


class Sandbox:
    """A pool of workers; a context manager. `run` may be called any number of times.

    `isolation` "auto" takes the first of bubblewrap, namespaces and rlimits that works
    here. The last is weak: it raises InputError where nothing else works, unless it is
    named or `accept_weak_isolation`, and then says on standard error what it leaves
    open. Raises InputError for an isolation that is named and does not work.
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits | None = None,
        isolation: str = "auto",
        *,
        accept_weak_isolation: bool = False,
    ):
        self.workers = os.cpu_count() or 1 if workers is None else workers
        self.limits = limits or Limits()
        self._isolation = isolation
        self._accepts_weak = accept_weak_isolation or isolation == "rlimits"
        self._pool: ThreadPoolExecutor | None = None
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._all: list[Worker] = []
        if self.workers < 1:
            raise InputError(f"workers is {workers}, at least 1 is needed")
        if isolation != "auto" and isolation not in launch.KINDS:
            kinds = ", ".join(("auto", *launch.KINDS))
            raise InputError(f"isolation is {isolation!r}, there are {kinds}")
        if not hasattr(os, "fork"):
            raise InputError("running programs needs Linux (or macOS): no os.fork here")

    def __enter__(self):
        # Bubblewrap's world ends with the thread that started it; these stay.
        self._pool = ThreadPoolExecutor(self.workers, "sandbox")
        try:
            kind = self._pool.submit(self._start_first).result()
            for index in range(1, self.workers):
                self._all.append(Worker(kind, index, self.limits))
            list(self._pool.map(Worker.start, self._all))
        except BaseException:
            self.close()
            raise
        if kind == "rlimits" and not self._accepts_weak:
            described = self.describe()
            self.close()
            raise InputError(
                "only weak isolation can be had here, and programs are not run in it "
                f"unasked: {described}; or give --accept-weak-isolation "
                "(accept_weak_isolation=True) if you trust the model"
            )
        for worker in self._all:
            self._idle.put(worker)
        if kind == "rlimits":
            warn_once(f"sandbox: {self.describe()}")
        return self

    def _start_first(self) -> launch.Isolation:
        """Starts the first worker inside the first walls that can be put up."""
        reasons = []
        for kind in launch.KINDS:
            if self._isolation not in ("auto", kind):
                continue
            why = launch.unavailable(kind)
            if not why:
                self._all = [Worker(kind, 0, self.limits)]
                try:
                    self._all[0].start()
                    return kind
                except Gone as fault:
                    why = str(fault)
                    self._all.pop().stop()
            reasons.append(f"{kind}: {why}")
        raise InputError(
            f"programs cannot be contained here, by {'; by '.join(reasons)}; "
            'isolation="auto" takes what there is'
        )

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Ends all processes of the pool, also in the middle of `run`."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            # Twice: what was about to start is there only when the threads are done.
            for _ in range(2):
                for worker in self._all:
                    worker.stop()
                self._pool.shutdown(wait=True)
        self._pool, self._all, self._idle = None, [], queue.SimpleQueue()

    @property
    def isolation(self) -> launch.Isolation:
        """The isolation in force; only while the sandbox is open."""
        if not self._all:
            raise RuntimeError("the sandbox is not open: use it in a `with` statement")
        return self._all[0].isolation

    def describe(self) -> str:
        """One line: what holds a program here, and what does not."""
        own_user = self._all[0].user is not None if self._all else False
        return launch.describe(self.isolation, own_user=own_user)

    def run(self, programs: Sequence[Program | Script]) -> list[Outcome]:
        """The outcomes, in the order of `programs`. Raises InputError for a test or a
        language that cannot be run, before anything is."""
        if self._pool is None:
            raise RuntimeError("the sandbox is not open: use it in a `with` statement")
        refuse_bad_tests([p for p in programs if isinstance(p, Program)])
        for language in {p.language for p in programs if isinstance(p, Script)}:
            if why := missing(language):
                raise InputError(why)
        return list(self._pool.map(self._execute, programs))

    def _execute(self, program: Program | Script) -> Outcome:
        worker = self._idle.get()
        try:
            return worker.execute(program)
        finally:
            self._idle.put(worker)


def require_isolation(accept_weak: bool, isolation: str = "auto") -> None:
    """Raises InputError where `Sandbox` does: before anything is computed that could
    not be run in the end."""
    if not accept_weak:
        with Sandbox(1, isolation=isolation):
            pass


def refuse_bad_tests(programs: Sequence[Program]) -> None:
    for test, name in {p.test: p.entry_point for p in programs}.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its style
                compile(test, "<test>", "exec", dont_inherit=True)
                symbols = symtable.symtable(test, "<test>", "exec")
        except (SyntaxError, ValueError) as fault:
            raise InputError(f"the test of {name} is not Python: {fault}") from None
        known = "check" in symbols.get_identifiers()
        if not known or not symbols.lookup("check").is_assigned():
            raise InputError(
                f"the test of {name} does not define check(candidate), which runs it"
            )


@functools.cache
def warn_once(line: str) -> None:
    print(line, file=sys.stderr)
