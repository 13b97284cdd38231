"""A Python program and its test in one process, where only the test's end passes.

The answer's own code runs first. Then the test is fetched, what tests rely on is put
back as it was, the test runs after the program in its namespace, and a word that has
waited in the channel until then is read and sent back: nothing but that makes the task
pass. So none of these do: ending the process in any way, at the end of it too
(`sys.exit`, `os._exit`, `atexit`), raising SystemExit, replacing functions of
`builtins`, `unittest` or this package, a `__builtins__` of its own, a tracing function.

What it does not hold against, for there is one process only: a program that reads this
file and speaks the protocol on descriptor 3 itself; one that looks for the test among
the frames above a call of it; one that changes other modules which a test uses, such as
NumPy; objects that call themselves equal to anything. Where a test is calls on plain
data, a `Program` holds against all of these.
"""

import builtins
import importlib
import os
import socket
import sys
import traceback
import types
import unittest
from collections.abc import Iterator
from typing import Any

from seedjax.sandbox.containment import wire
from seedjax.sandbox.containment.wire import CONTROL_BYTES, read_frame, write_frame

KEPT_MODULES = (
    "builtins json json.decoder json.encoder traceback unittest unittest.async_case "
    "unittest.case unittest.loader unittest.main unittest.mock unittest.result "
    "unittest.runner unittest.signals unittest.suite unittest.util"
).split()


class Kept:
    """The names that tests rely on, as they were before any program ran."""

    def __init__(self):
        self.modules = {name: importlib.import_module(name) for name in KEPT_MODULES}
        self.modules[wire.__name__] = wire
        self.entries = [
            (owner, name, value, parts_of(value))
            for owner in self.owners()
            for name, value in list(vars(owner).items())
            if callable(value) or isinstance(value, staticmethod | classmethod)
        ]

    def owners(self) -> Iterator[Any]:
        for name, module in self.modules.items():
            yield module
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name != "builtins":
                    yield value

    def restore(self) -> list[str]:
        """Puts everything back; the names of what had been changed."""
        changed = []
        for name, module in self.modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
                changed.append(name)
        for owner, name, value, parts in self.entries:
            if vars(owner).get(name) is not value:
                setattr(owner, name, value)
                changed.append(f"{owner.__name__}.{name}")
            if parts is not None and parts_of(value) != parts:
                value.__code__, value.__defaults__, value.__kwdefaults__ = parts
                changed.append(f"{owner.__name__}.{name}")
        sys.settrace(None)
        sys.setprofile(None)
        return changed


def parts_of(value: Any) -> tuple | None:
    if isinstance(value, types.FunctionType):
        return value.__code__, value.__defaults__, value.__kwdefaults__
    return None


KEPT = Kept()


def run(channel: socket.socket, task: dict[str, Any]) -> None:
    """Says over `channel` how far it came: ["loaded"], then ["ended", word], or
    [part, name of the exception, its text, line of the test] where that part raised."""
    module = types.ModuleType(task["name"])
    module.__file__ = os.path.join(os.getcwd(), task["file_name"])
    sys.modules[task["name"]] = module
    sys.argv = [task["file_name"]]
    sys.path.insert(0, os.getcwd())
    namespace = module.__dict__
    part = "source"
    try:
        code = compile(task["source"], module.__file__, "exec", dont_inherit=True)
        exec(code, namespace)
        KEPT.restore()
        write_frame(channel, ["loaded"])
        part = "test"
        test = read_frame(channel, CONTROL_BYTES)
        namespace["__builtins__"] = builtins
        exec(compile(test, "<test>", "exec", dont_inherit=True), namespace)
        if task["test_cases"]:
            run_test_cases(namespace)
        if changed := KEPT.restore():
            raise AssertionError(f"the program has replaced {changed[0]}")
        write_frame(channel, ["ended", read_frame(channel, CONTROL_BYTES)])
    except BaseException as fault:
        KEPT.restore()
        write_frame(channel, [part, *describe(fault)])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def run_test_cases(namespace: dict[str, Any]) -> None:
    """Raises AssertionError unless there are tests and each of them passes or is marked
    as skipped: the program, too, can raise SkipTest."""
    cases = [
        value
        for value in list(namespace.values())
        if isinstance(value, type)
        and issubclass(value, unittest.TestCase)
        and value.__module__ == namespace["__name__"]
    ]
    loader, result = unittest.TestLoader(), unittest.TestResult()
    for case in dict.fromkeys(cases):
        loader.loadTestsFromTestCase(case).run(result)
    skipped = [(test, why) for test, why in result.skipped if not is_marked(test)]
    found = [*result.failures, *result.errors, *skipped]
    for test, text in found:
        print(f"{test}\n{text}")
    if found:
        name, lines = found[0][0].id().rpartition(".")[2], found[0][1].splitlines()
        raise AssertionError(f"{len(found)} of {result.testsRun}: {name}: {lines[-1:]}")
    if not result.testsRun or result.unexpectedSuccesses:
        raise AssertionError("there are no tests, or some pass unexpectedly")


def is_marked(test: unittest.TestCase) -> bool:
    """Whether the test's own text skips it."""
    method = getattr(test, test._testMethodName, None)
    return any(getattr(x, "__unittest_skip__", False) for x in (test, method))


def describe(fault: BaseException) -> list[Any]:
    if isinstance(fault, MemoryError):
        fault.__traceback__ = fault.__context__ = None
        return ["MemoryError", "out of memory", 0]
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(fault.__traceback__)
        if frame.filename == "<test>"
    ]
    own = fault.__traceback__
    traceback.print_exception(fault.with_traceback(own.tb_next if own else None))
    kind = "AssertionError" if isinstance(fault, AssertionError) else type(fault)
    name = kind if isinstance(kind, str) else kind.__name__
    return [name, str(fault)[:1000], lines[-1] if lines else 0]
