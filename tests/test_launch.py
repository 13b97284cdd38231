"""`scripts/launch`: the clouds' own commands and schemas take what it would run.

The scripts are run with programs in place of `gcloud`, `kubectl`, `sbatch` and `sky`
that note how they were called. Nothing here has seen a cloud.
"""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from documents import parse

from seedjax.nn.presets import preset
from seedjax.plan.case import named_cases, run_of
from seedjax.train.config import load_config

ROOT = Path(__file__).parents[1]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
SUBMIT = ROOT / "scripts" / "launch" / "submit"
TRAIN = (
    "train --config configs/train_8b_v5e256.py --mesh fsdp=256 --out gs://bucket/8b "
    """--set 'optimizer={"learning_rate": 1e-4}'"""
)
TARGETS = {
    "cloud-tpu": "--topology v5e:16x16 --zone us-west4-a --project p --spot",
    "gke": "--topology v5e:16x16 --image registry/seedjax:1 --spot",
    "slurm": "--topology h100:8 --nodes 2 --partition gpu --account me",
    "sky": "--topology h100:8 --nodes 2 --spot",
}

# Flags as the commands document them.
GCLOUD = {
    "queued-resources create": "node-id accelerator-type runtime-version spot",
    "queued-resources describe": "format",
    "queued-resources delete": "force quiet",
    "tpu-vm scp": "worker",
    "tpu-vm ssh": "worker command",
}
SBATCH = {
    *("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task"),
    *("time", "signal", "requeue", "open-mode", "output", "partition", "account"),
}
SKY = {
    "": {"name", "workdir", "num_nodes", "resources", "setup", "run"},
    "resources": {"accelerators", "use_spot", "disk_size", "job_recovery"},
    "job_recovery": {"max_restarts_on_errors", "recover_on_exit_codes"},
}

NOTE = r"""#!/usr/bin/env bash
# Notes how it was called, and prints the next of the lines it is to answer with.
{ printf '%s\037' "${0##*/}" "$@"; echo; } >> "$LOG"
case "${0##*/} $*" in
  *" describe "*) answers=states ;;
  *" ssh "*) answers=codes ;;
  *) answers=none ;;
esac
if [ -s "$FOLDER/$answers" ]; then
  answer="$(head -n 1 "$FOLDER/$answers")"
  sed -i 1d "$FOLDER/$answers"
  [ "$answers" = codes ] && exit "$answer"
  echo "$answer"
fi
[ "$1" = -f ] || [ "${0##*/}" = sbatch ] && cat > "$FOLDER/input"
[ "$1 $2" = "apply -f" ] && cat > "$FOLDER/input"
[ "$1" = jobs ] && cp "${@: -1}" "$FOLDER/input"
exit 0
"""


def script_of(target: str, command: str = TRAIN) -> str:
    arguments = [SUBMIT, target, "--dry-run", *TARGETS[target].split(), "--"]
    done = subprocess.run(
        [*arguments, *shlex.split(command)], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def clouds(tmp_path):
    """Runs a script among programs that note how they were called; gives the exit code,
    the calls, and what was handed over as input."""
    for name in ("gcloud", "kubectl", "sbatch", "sky", "scontrol", "git"):
        (tmp_path / name).write_text(NOTE)
        (tmp_path / name).chmod(0o755)

    def run(script: str, **answers: list) -> tuple[int, list[list[str]], str]:
        for name, lines in answers.items():
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "LOG": str(tmp_path / "log"),
            "FOLDER": str(tmp_path),
            "POLL_SECONDS": "0",
        }
        done = subprocess.run(["bash", "-c", script], env=environment, cwd=ROOT)
        log = (tmp_path / "log").read_text()
        calls = [call.split("\x1f") for call in log.split("\x1f\n")[:-1]]
        calls = [call for call in calls if call[:2] != ["git", "archive"]]
        handed = tmp_path / "input"
        return done.returncode, calls, handed.read_text() if handed.exists() else ""

    return run


def check_command(words: list[str]) -> None:
    """The command is one of seedjax, and goes on where it is started again."""
    assert words[0].endswith("seedjax")
    parse(["seedjax", *words[1:]])
    assert words[-3:] == ["--resume", "--stop-code", "75"]
    assert json.loads(words[words.index("--set") + 1].partition("=")[2])


@pytest.mark.parametrize("target", TARGETS)
def test_scripts_pass_shellcheck(target, tmp_path):
    for name in (
        script_of(target),
        (ROOT / "scripts/launch/cloud_tpu_host.sh").read_text(),
    ):
        (tmp_path / "script.sh").write_text(name)
        subprocess.run(
            [SHELLCHECK, "--shell", "bash", tmp_path / "script.sh"], check=True
        )


def test_the_other_scripts_pass_shellcheck():
    found = [ROOT / ".ci" / "run", *(p for p in (ROOT / "scripts").iterdir())]
    shell = [
        p for p in found if p.is_file() and p.read_text().startswith("#!/usr/bin/env b")
    ]
    assert len(shell) >= 5
    subprocess.run([SHELLCHECK, *shell], check=True)


def test_a_slice_is_requested_and_trained_on(clouds):
    code, calls, _ = clouds(
        script_of("cloud-tpu"), states=["WAITING_FOR_RESOURCES", "ACTIVE"], codes=[0]
    )
    assert code == 0
    assert [call[3:5] for call in calls] == [
        ["queued-resources", "create"],
        ["queued-resources", "describe"],
        ["queued-resources", "describe"],
        ["tpu-vm", "scp"],
        ["tpu-vm", "ssh"],
        ["queued-resources", "delete"],
    ]
    for call in calls:
        assert call[:3] == ["gcloud", "compute", "tpus"]
        flags = {word[2:].partition("=")[0] for word in call if word.startswith("--")}
        known = {*GCLOUD[" ".join(call[3:5])].split(), "zone", "project"}
        assert flags <= known and {"zone", "project"} <= flags
    assert "--accelerator-type=v5litepod-256" in calls[0] and "--spot" in calls[0]
    remote = next(word for word in calls[4] if word.startswith("--command="))
    check_command(shlex.split(remote.splitlines()[-1])[1:])


@pytest.mark.parametrize(
    ("states", "codes", "code", "slices"),
    [
        # Preempted while it trains; then the second slice finishes.
        (["ACTIVE", "SUSPENDED", "ACTIVE"], [255, 0], 0, 2),
        # Told to stop on a slice that is still there: it goes on on the same one.
        (["ACTIVE", "ACTIVE"], [75, 0], 0, 1),
        # Never became active.
        (["FAILED", "ACTIVE"], [0], 0, 2),
        # The input is at fault, and would be again.
        (["ACTIVE"], [2], 2, 1),
    ],
    ids=["preempted", "stopped", "failed", "input"],
)
def test_a_slice_that_is_lost_is_requested_again(clouds, states, codes, code, slices):
    found, calls, _ = clouds(script_of("cloud-tpu"), states=states, codes=codes)
    assert found == code
    verbs = [call[4] for call in calls]
    assert verbs.count("create") == verbs.count("delete") == slices
    assert verbs.count("ssh") == len(codes)


def test_it_gives_up(clouds):
    states, codes = ["ACTIVE"] * 11, [1] * 11
    code, calls, _ = clouds(script_of("cloud-tpu"), states=states, codes=codes)
    assert code == 1
    assert [call[4] for call in calls].count("ssh") == 10 and calls[-1][4] == "delete"


def test_the_jobset_is_one(clouds):
    # Some hundred modules, for one test.
    from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

    code, calls, text = clouds(script_of("gke"))
    assert code == 0 and calls == [["kubectl", "apply", "-f", "-"]]
    given = yaml.safe_load(text)
    # Fields that the schema lacks would be missing from what it reads.
    assert JobsetV1alpha2JobSet.from_dict(given).to_dict() == given
    job = given["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    check_command(container["command"])
    assert job["parallelism"] == job["completions"] == 64
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "16x16",
        "cloud.google.com/gke-spot": "true",
    }


def test_sbatch_takes_the_job(clouds):
    code, calls, text = clouds(script_of("slurm"))
    assert code == 0 and calls == [["sbatch"]]
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    names = {line.removeprefix("#SBATCH --").partition("=")[0] for line in directives}
    assert names <= SBATCH and {"partition", "account", "requeue"} <= names
    assert (
        text.splitlines()[1 : 1 + len(directives)] == directives
    )  # before any command
    assert "#SBATCH --ntasks-per-node=8" in directives
    assert "#SBATCH --nodes=2" in directives
    (run,) = (line for line in text.splitlines() if line.startswith("srun"))
    check_command(shlex.split(run.removesuffix("&"))[2:])


def test_a_slurm_job_out_of_time_saves_and_queues_again(clouds, tmp_path):
    _, _, text = clouds(script_of("slurm"))
    (tmp_path / "srun").write_text(
        "#!/usr/bin/env bash\n"
        "trap 'echo saved > \"$FOLDER/saved\"; exit 75' TERM\n"
        'touch "$FOLDER/started"\nwhile true; do sleep 0.05; done\n'
    )
    (tmp_path / "srun").chmod(0o755)
    job = subprocess.Popen(
        ["bash", "-c", text],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "LOG": str(tmp_path / "log"),
            "FOLDER": str(tmp_path),
            "SLURM_JOB_ID": "17",
        },
    )
    while not (tmp_path / "started").exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    job.wait(timeout=20)
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "log").read_text().endswith("scontrol\x1frequeue\x1f17\x1f\n")


def test_skypilot_takes_the_task(clouds):
    code, calls, text = clouds(script_of("sky"))
    assert code == 0 and calls[0][:4] == ["sky", "jobs", "launch", "--yes"]
    task = yaml.safe_load(text)
    resources = task["resources"]
    assert task.keys() <= SKY[""] and resources.keys() <= SKY["resources"]
    assert resources["job_recovery"].keys() <= SKY["job_recovery"]
    assert resources["accelerators"] == "H100:8" and task["num_nodes"] == 2
    assert resources["use_spot"] is True
    last = task["run"].splitlines()[-1]
    check_command(shlex.split(last.removeprefix("exec ")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("cloud-tpu --topology v9:2x2 --zone z -- train", "the chips are v5e"),
        ("cloud-tpu --topology h100:8 --zone z -- train", "has no h100"),
        ("cloud-tpu --topology v5e:2x4 --zone z", "no command"),
        ("slurm --topology v5e:2x4 -- train", "has no v5e"),
        ("slurm --topology h100:2x4 -- train", "h100:8"),
        ("sky --topology h100:8 --name Big_Run -- train", "lower-case"),
        ("gke --topology v5e:2x4 --image 'a b' -- train", "characters"),
        ("sky --topology h100:8 --nodes 0 -- train", "at least 1"),
    ],
)
def test_bad_input_is_a_line(arguments, said):
    done = subprocess.run(
        [SUBMIT, *shlex.split(arguments)], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("config", "changes", "plan"),
    [
        ("train_8b_v5e256", [], "train-8b-v5e256-2k"),
        ("train_8b_v5e256", ["data.sequence_length=8192"], "train-8b-v5e256-8k"),
        ("lora_8b_v5e8", [], "lora-8b-v5e8"),
        ("lora_8b_v5e8", ["data.batch_size=4"], "lora-8b-h100"),
    ],
)
def test_configs_are_what_their_plans_compile(config, changes, plan):
    path = ROOT / "configs" / f"{config}.py"
    assert f"{plan}" in path.read_text()
    run, planned = load_config(path, changes), run_of(*named_cases(plan))
    assert dataclasses.replace(run.objective, edit=None) == planned.objective
    for name in ("model", "lora", "loss_chunk", "accumulate"):
        assert getattr(run, name) == getattr(planned, name)
    for name in ("batch_size", "sequence_length"):
        assert getattr(run.data, name) == getattr(planned.data, name)
    assert run.data.block_size == preset("stable_diffcoder_8b").block_size
