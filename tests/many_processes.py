"""A command of `seedjax` as several real processes over loopback, a device each."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path


class Processes:
    """Processes that run one command together."""

    def __init__(self, folder: Path, name: str, count: int, *arguments: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{probe.getsockname()[1]}"
        code = "from seedjax.cli import main; main()"
        meeting = ["--coordinator", where, "--processes", str(count)]
        self.began, self.all, self._files = time.monotonic(), [], []
        for index in range(count):
            streams = [folder / f"{name}.{index}.{kind}" for kind in ("out", "err")]
            self._files.append(streams)
            self.all.append(
                subprocess.Popen(
                    [sys.executable, "-c", code, *arguments, *meeting]
                    + ["--process-index", str(index)],
                    stdout=streams[0].open("w"),
                    stderr=streams[1].open("w"),
                    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
                )
            )

    def wait(self, timeout_s: float = 400.0) -> list[int]:
        """Exit codes of all, once they have ended."""
        ends = time.monotonic() + timeout_s
        try:
            for process in self.all:
                process.wait(max(0.1, ends - time.monotonic()))
        finally:
            self.kill()
        return [process.returncode for process in self.all]

    def said(self, index: int) -> str:
        """What a process wrote to standard error, without the lines of Gloo."""
        lines = self._files[index][1].read_text().splitlines()
        return "\n".join(line for line in lines if "[Gloo]" not in line)

    def printed(self, index: int) -> str:
        lines = self._files[index][0].read_text().splitlines()
        return "\n".join(line for line in lines if "[Gloo]" not in line)

    def kill(self) -> None:
        for process in self.all:
            process.kill()
            process.wait()
