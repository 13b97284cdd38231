"""The board that several processes share: what they agree by, and how they all end.

It is the key-value store of JAX's coordination service, which process 0 hosts. A thread
of each process keeps a counter in it going and looks for faults. Process 0 watches the
counters of the others; the others hold a connection to its port, which breaks the
moment that it dies.
"""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

POLL_S = 0.5  # between two checks for faults
SILENT_S = 25.0  # without a sign of life, after which a process counts as dead
LEAVE_S = 8.0  # that the first process waits for the others to leave after a fault
CERTAIN_S = SILENT_S + 2 * LEAVE_S  # after which all know that one is gone
HEARTBEAT_S = 60  # JAX's own limit, which aborts without a word; ours comes first
AGAIN = "start all of them again, with --resume"


class Board:
    """A small key-value store that all processes see, and the watch over them."""

    def __init__(self, client: Any, index: int, count: int, first: tuple[str, int]):
        """Begins to watch.

        Args:
          client: of JAX's coordination service.
          index: of this process.
          count: of processes.
          first: host and port of process 0.
        """
        self.index, self.count = index, count
        self._client = client
        self._code: int | None = None  # of a fault of this process
        self._ending = False  # because of another's
        self._lock = threading.Lock()  # so that one of the two says why
        self._names = 0
        self._gathered = ""  # the last name, whose values some may still have to read
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        if index:
            threading.Thread(target=self._hold, args=(first,), daemon=True).start()
        atexit.register(self._leave)  # before JAX, which would wait for the others

    def put(self, key: str, value: str) -> None:
        """Writes a value, over one that is there."""
        self._client.key_value_set(f"seedjax/{key}", value, allow_overwrite=True)

    def get(self, key: str) -> str | None:
        """The value of a key; None if it has none."""
        try:
            return self._client.key_value_try_get(f"seedjax/{key}")
        except Exception as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def all(self, prefix: str) -> dict[str, str]:
        """The values of all keys below "PREFIX/"."""
        found = self._client.key_value_dir_get(f"seedjax/{prefix}/")
        return {key.removeprefix("seedjax/"): value for key, value in found}

    def wait(self, key: str) -> str:
        """The value of a key, once it has one. If the process that would write it dies,
        so does this one."""
        while True:
            with contextlib.suppress(Exception):  # nobody has written it yet
                return self._client.blocking_key_value_get(f"seedjax/{key}", 5_000)
            if self.get(key) is None:
                time.sleep(0.01)

    def new_name(self, kind: str) -> str:
        """A prefix that no other work uses; alike in all processes, which run the same
        code."""
        self._names += 1
        return f"{kind}-{self._names}"

    def share(self, value: Any) -> Any:
        """The value of the first process, JSON values, in all of them."""
        name = f"{self.new_name('shared')}/value"
        if self.index == 0:
            self.put(name, json.dumps(value))
        return json.loads(self.wait(name))

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, JSON values, by their numbers."""
        name = self.new_name("gathered")
        self.put(f"{name}/{self.index}", json.dumps(value))
        found = [json.loads(self.wait(f"{name}/{n}")) for n in range(self.count)]
        # All have come here, so all have read the values of before.
        if self._gathered:
            self.drop(f"{self._gathered}/{self.index}")
        self._gathered = name
        return found

    def work_out(
        self, parts: Sequence[Any], work: Callable[[Any], Any]
    ) -> Iterator[tuple[int, Any]]:
        """As `processes.work_out`, of several processes."""
        name = self.new_name("work")
        others = [n for n in range(len(parts)) if n % self.count]

        def arrived() -> Iterator[tuple[int, Any]]:
            for number in list(others):
                if (value := self.get(f"{name}/{number}")) is not None:
                    others.remove(number)
                    self.drop(f"{name}/{number}")
                    yield number, json.loads(value)

        for number in range(self.index, len(parts), self.count):
            result = work(parts[number])
            if self.index == 0:
                yield number, result
                yield from arrived()
            else:
                self.put(f"{name}/{number}", json.dumps(result))
        while self.index == 0 and others:
            time.sleep(0.05)
            yield from arrived()

    def drop(self, key: str) -> None:
        """Deletes a key."""
        self._client.key_value_delete(f"seedjax/{key}")

    def fail(self, code: int, text: str) -> None:
        """Makes a fault of this process known to the others, with its exit code. Where
        that of another is known already, it ends this process."""
        with self._lock:
            if not self._ending:
                self._code = code
        if self._code is None:
            self._watcher.join()  # which ends the process
        fault = {"process": self.index, "code": code, "text": text[:1000]}
        with contextlib.suppress(Exception):  # the first process may be gone
            self.put("fault/first", json.dumps(fault))

    def finish(self) -> None:
        """Waits until all processes have come so far, and lets go of them."""
        import jax

        self.put(f"finished/{self.index}", "")
        while len(self.all("finished")) < self.count:
            time.sleep(0.05)
        self._over.set()
        self._watcher.join()
        jax.distributed.shutdown()

    def _watch(self) -> None:
        seen: dict[str, tuple[str, float]] = {}
        count = 0
        while not self._over.wait(POLL_S):
            try:
                count += 1
                self.put(f"alive/{self.index}", str(count))
                fault = self.get("fault/first")
                if fault is None and self.index == 0:
                    fault = self._silent(seen)
            except Exception as error:
                if self._over.is_set():
                    return
                self._end_without_first(error)
            if fault is not None:
                self._end_for(json.loads(fault))
                return

    def _hold(self, first: tuple[str, int]) -> None:
        """Ends this process as soon as nobody listens at the port of process 0. JAX's
        own connection breaks as soon, and a moment later JAX aborts the process, with
        messages of its own."""
        while not self._over.is_set():
            try:
                with socket.create_connection(first, timeout=SILENT_S / 2) as held:
                    held.settimeout(None)
                    _keep_alive(held)
                    with contextlib.suppress(OSError):
                        while held.recv(4096):
                            pass
            except OSError as error:
                if not self._over.is_set():
                    self._end_without_first(error)
            # One that says nothing is closed after a while, and made again.

    def _end_without_first(self, error: Exception) -> NoReturn:
        with self._lock:
            self._ending = self._code is None
        if self._code is None:
            reason = getattr(error, "strerror", None) or error
            end(f"process 0 is gone: it cannot be reached ({reason}); {AGAIN}", 1)
        os._exit(self._code)

    def _silent(self, seen: dict[str, tuple[str, float]]) -> str | None:
        """A fault, if a process has given no sign of life for long."""
        now, alive = time.monotonic(), self.all("alive")
        for number in range(self.count):
            key = f"alive/{number}"
            value = alive.get(key, "")
            if seen.get(key, ("no", 0.0))[0] != value:
                seen[key] = (value, now)
            elif now - seen[key][1] > SILENT_S and f"finished/{number}" not in self.all(
                "finished"
            ):
                text = (
                    f"process {number} is gone: no sign of life for {SILENT_S:.0f} s; "
                    f"{AGAIN}"
                )
                self.put(f"left/{number}", "")
                fault = json.dumps({"process": number, "code": 1, "text": text})
                self.put("fault/first", fault)
                return fault
        return None

    def _end_for(self, fault: dict[str, Any]) -> None:
        """Ends this process because of a fault, which may be its own."""
        with self._lock:
            self._ending = self._code is None and fault["process"] != self.index
        if self._ending:
            _say(f"{fault['text']} (process {fault['process']})")
            self._part()
            os._exit(fault["code"])
        # Its own: the main thread says so. Threads that wait for others may keep the
        # interpreter from its end.
        time.sleep(LEAVE_S)
        self._part()
        os._exit(self._code or fault["code"])

    def _leave(self) -> None:
        if self._code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            self._part()
            os._exit(self._code)

    def _part(self) -> None:
        """Leaves a sign; the first process, which hosts the store, waits for those of
        the others."""
        with contextlib.suppress(Exception):
            self.put(f"left/{self.index}", "")
            ends = time.monotonic() + LEAVE_S
            while self.index == 0 and time.monotonic() < ends:
                if len(self.all("left")) == self.count:
                    break
                time.sleep(0.05)
            time.sleep(0.2 if self.index == 0 else 0.0)


def _keep_alive(held: socket.socket) -> None:
    """Has the system find out when the other host is gone without a word."""
    held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    settings = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    for name, value in settings.items():
        if hasattr(socket, name):  # macOS has not all of them
            held.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _say(text: str) -> None:
    line = f"seedjax: {' '.join(text.split())}\n"
    with contextlib.suppress(OSError):
        os.write(2, line.encode(errors="backslashreplace"))


def end(text: str, code: int) -> NoReturn:
    """Ends this process from any thread, with a line on standard error."""
    _say(text)
    os._exit(code)
