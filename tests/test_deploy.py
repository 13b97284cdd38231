"""configs/deploy: what Docker, systemd and Kubernetes are given, as their linters read
it, with commands that seedjax takes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main
import yaml

import seedjax.cli

DEPLOY = Path(__file__).parents[1] / "configs" / "deploy"
MANIFESTS = [DEPLOY / "kubernetes-gpu.yaml", DEPLOY / "kubernetes-tpu.yaml"]
SERVE = typer.main.get_command(seedjax.cli.app).commands["serve"]


def check(command: list[str]) -> dict:
    """The options of a command to serve, which has to be one."""
    assert Path(command[0]).name == "seedjax" and command[1] == "serve"
    return SERVE.make_context("serve", list(command[2:])).params


def test_commands_are_taken():
    docker = (DEPLOY / "Dockerfile").read_text()
    parts = re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", docker, re.MULTILINE)
    unit = (DEPLOY / "seedjax.service").read_text()
    commands = [sum(map(json.loads, parts), [])]
    commands += [re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1].split()]
    for path in MANIFESTS:
        _, _, deployment = yaml.safe_load_all(path.read_text())
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        commands.append(container["command"])
    for command in commands:
        given = check(command)
        assert given["host"] == "0.0.0.0" and given["key_file"] is not None
        # Both wait longer for the end than a request may take.
        assert given["timeout"] < 130 and given["port"] == 8000
    assert "TimeoutStopSec=130" in unit


def test_the_manifests_differ_in_the_accelerator_alone():
    def rest(path: Path) -> list[str]:
        text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
        text = re.sub(r"nvidia.com/gpu|google.com/tpu", "CHIP", text)
        text = re.sub(r"seedjax:\w+", "seedjax:TAG", text)
        return re.sub(r"( +nodeSelector:\n)(?: {8}.*\n)+", r"\1", text).splitlines()

    gpu, tpu = map(rest, MANIFESTS)
    assert gpu == tpu
    assert "google.com/tpu: 1" in MANIFESTS[1].read_text()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_kubernetes_takes_them(path):
    validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all(path.read_text()):
        validate.validate(document, "1.30", strict=True)


def test_hadolint_has_nothing_to_say():
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    found = subprocess.run(
        [linter, str(DEPLOY / "Dockerfile")], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_systemd_takes_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "seedjax.service"
    text = (DEPLOY / "seedjax.service").read_text()
    # It looks whether the program is there.
    unit.write_text(text.replace("/opt/seedjax/bin/seedjax", "/bin/true"))
    found = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert (found.returncode, found.stderr) == (0, "")
