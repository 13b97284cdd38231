"""A server as a process: refusals, the end of it, gentle and not, and its log."""

import re
import signal
import subprocess
import sys
import time

import httpx
import lab_model
import pytest

import seedjax.cli
from seedjax.server.feedback import FeedbackStore
from seedjax.tasks.lab.stream import LabConfig

COMMAND = [sys.executable, "-c", "from seedjax.cli import main; main()", "serve"]
SECRET = "def secret_of_mine(x):\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A tiny model in a folder."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    return lab_model.save(directory, LabConfig().tokenizer())


@pytest.fixture
def serve(model, tmp_path):
    """Starts servers; gives each process, and its address once it is ready."""
    started = []

    def start(
        *arguments: str, ready: bool = True
    ) -> tuple[subprocess.Popen, str, float]:
        log = tmp_path / f"log{len(started)}"
        sizes = ("--slots", "2", "--max-new-tokens", "256")
        began = time.monotonic()
        process = subprocess.Popen(
            [*COMMAND, "--model", model, "--port", "0", "--no-page", *sizes]
            + list(arguments),
            stderr=log.open("wb"),
        )
        process.log = log
        started.append(process)
        while not (found := re.search(r"at (http://\S+)/v1", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        while httpx.get(f"{found[1]}/health", timeout=100).status_code != 200 and ready:
            assert time.monotonic() - began < 400
            time.sleep(0.1)
        return process, found[1], time.monotonic() - began

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process: exit code, and what it printed."""

    def run_command(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seedjax", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            seedjax.cli.main()
        return ended.value.code, *capsys.readouterr()

    return run_command


def test_refusals_before_anything_is_loaded(run, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    keys.chmod(0o604)
    for arguments, message in (
        (("--host", "0.0.0.0"), "no API key"),
        (("--key-file", keys), "chmod 600"),
        (("--key-file", tmp_path / "none"), "no file"),
        (("--requests-per-minute", "0"), "requests-per-minute"),
    ):
        code, out, said = run("serve", *arguments)
        assert (code, out) == (2, "") and message in said and said.count("\n") == 1
    keys.chmod(0o640)  # a group may read it: containers are given secrets so
    code, _, said = run("serve", "--key-file", keys, "--model", tmp_path / "none")
    assert code == 2 and "chmod" not in said


def body(**more) -> dict:
    return {"prompt": SECRET, "max_tokens": 256, "stream": True} | more


@pytest.mark.slow
def test_a_request_in_flight_ends_before_the_server(serve):
    process, url, _ = serve()
    lines = []
    with httpx.stream("POST", f"{url}/v1/completions", json=body(), timeout=120) as r:
        for line in r.iter_lines():
            if not lines:
                process.send_signal(signal.SIGTERM)
            lines += [line] if line else []
    assert lines[-1] == "data: [DONE]" and len(lines) > 2
    assert process.wait(60) in (0, -signal.SIGTERM)  # uvicorn passes the signal on
    log = process.log.read_text()
    assert "secret_of_mine" not in log and "Traceback" not in log
    assert '"path": "/v1/completions", "status": 200' in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)]
)
def test_a_server_that_still_compiles_ends_at_once(serve, number, code):
    process, _, _ = serve(ready=False)
    process.send_signal(number)
    began = time.monotonic()
    process.wait(60)
    seconds = time.monotonic() - began
    log = process.log.read_text()
    print(f"ended after {seconds:.1f} s with {process.returncode}")
    lines = [line for line in log.splitlines() if not line.startswith("{")]
    assert process.returncode == code
    assert lines[1:] == ["stopped before all programs were compiled"]
    assert seconds < 10  # of a busy machine


@pytest.mark.slow
def test_a_killed_server_loses_no_choice_and_comes_back(serve, tmp_path):
    file = tmp_path / "choices.db"
    process, url, _ = serve("--feedback", str(file))
    choice = {"prompt": SECRET, "completion": "    return x\n", "accepted": True}
    assert httpx.post(f"{url}/v1/feedback", json=choice).status_code == 200
    lines = []
    with pytest.raises(httpx.HTTPError):
        with httpx.stream("POST", f"{url}/v1/completions", json=body()) as response:
            for line in response.iter_lines():
                lines.append(line)
                process.kill()
    assert lines and "[DONE]" not in "".join(lines)
    process.wait()
    assert FeedbackStore(file).counts() == (1, 0)
    _, url, seconds = serve("--feedback", str(file))
    print(f"ready again after {seconds:.1f} s")
    assert httpx.get(f"{url}/v1/feedback").json() == {"accepted": 1, "rejected": 0}
    again = httpx.post(f"{url}/v1/completions", json=body(stream=False), timeout=120)
    assert again.status_code == 200
