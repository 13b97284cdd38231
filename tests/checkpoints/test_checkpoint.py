"""Training checkpoints: exact resuming, retention, and every way of being damaged."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from seedjax.checkpoints.training import TrainingCheckpointer
from seedjax.errors import InputError


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any


def make_state(width: int = 24, seed: int = 0) -> State:
    kernel = np.random.default_rng(seed).normal(size=(16, width)).astype(np.float32)
    params = {"layer": {"kernel": jnp.asarray(kernel)}, "norm": jnp.ones(3, "bfloat16")}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return State(jnp.int32(seed), params, optimizer.init(params))


def make_iterator():
    data = grain.MapDataset.range(100).shuffle(seed=1).repeat()
    return iter(data.to_iter_dataset().batch(2))


def abstract(state: State) -> State:
    return jax.eval_shape(lambda: state)


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save_run(directory: Path, steps: tuple[int, ...] = (1, 2)) -> None:
    iterator = make_iterator()
    with TrainingCheckpointer(directory) as checkpointer:
        for step in steps:
            next(iterator)
            loss = {"loss": 1.0 / step}
            checkpointer.save(step, make_state(seed=step), iterator, metrics=loss)


def restore(directory: Path, step: int | None = None) -> tuple[int, State]:
    with TrainingCheckpointer(directory) as checkpointer:
        return checkpointer.restore(
            step, abstract_state=abstract(make_state()), data_iterator=make_iterator()
        )


def assert_one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_save_spends_no_time_on_compression(tmp_path):
    zeros = jnp.zeros(1 << 18)  # which would shrink to nothing
    with TrainingCheckpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"zeros": zeros}, None)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > zeros.nbytes


def test_state_and_place_in_the_data_come_back(tmp_path):
    state, iterator = make_state(seed=3), make_iterator()
    for _ in range(7):
        next(iterator)
    with TrainingCheckpointer(tmp_path) as checkpointer:
        checkpointer.save(70, state, iterator)
        expected = [next(iterator) for _ in range(3)]

    fresh = make_iterator()
    with TrainingCheckpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() == 70
        step, restored = checkpointer.restore(
            abstract_state=abstract(state), data_iterator=fresh
        )
    assert step == 70
    assert_same(restored, state)
    np.testing.assert_array_equal([next(fresh) for _ in range(3)], expected)


def test_state_alone_can_be_restored(tmp_path):
    save_run(tmp_path)
    with TrainingCheckpointer(tmp_path) as checkpointer:
        _, state = checkpointer.restore(
            abstract_state=abstract(make_state()), data_iterator=None
        )
    assert_same(state, make_state(seed=2))


@pytest.mark.slow
def test_arrays_may_be_donated_while_the_save_runs(tmp_path):
    state = {f"w{i}": jnp.full((256, 256), float(i)) for i in range(8)}
    expected = jax.tree.map(np.array, state)
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with TrainingCheckpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, None)
        for _ in range(5):
            state = advance(state)
        jax.block_until_ready(state)
        _, restored = checkpointer.restore(
            abstract_state=abstract(state), data_iterator=None
        )
    assert_same(restored, expected)


@pytest.mark.representative("AxisType.Explicit")
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_restores_onto_another_mesh(tmp_path, axis_type):
    def mesh(*shape):
        return jax.make_mesh(shape, ("x", "y"), axis_types=(axis_type,) * 2)

    values = np.arange(16 * 8, dtype=np.float32).reshape(16, 8)
    saved = NamedSharding(mesh(4, 2), PartitionSpec("x", "y"))
    wanted = NamedSharding(mesh(2, 4), PartitionSpec("y", None))
    with TrainingCheckpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": jax.device_put(values, saved)}, None)
        target = {"w": jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=wanted)}
        _, state = checkpointer.restore(abstract_state=target, data_iterator=None)
    assert state["w"].sharding == wanted
    np.testing.assert_array_equal(np.asarray(state["w"]), values)


@pytest.mark.parametrize(
    ("best", "kept"), [("loss", (2, 5, 6)), (None, (5, 6)), ("accuracy", (5, 6))]
)
def test_keeps_the_newest_and_the_best(tmp_path, best, kept):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan"), 5: 2.5, 6: None}
    with TrainingCheckpointer(
        tmp_path, keep_latest=2, keep_best_metric=best
    ) as checkpointer:
        for step, loss in losses.items():
            metrics = None if loss is None else {"loss": loss}
            checkpointer.save(step, {"w": jnp.ones(2)}, None, metrics=metrics)
        assert checkpointer.steps() == kept
        assert checkpointer.best_step() == (2 if best == "loss" else None)
    assert {p.name for p in tmp_path.iterdir()} == {str(step) for step in kept}


@pytest.mark.slow
def test_the_best_is_remembered_by_the_next_process(tmp_path):
    save_run(tmp_path, (8,))
    for step in range(9, 12):
        with TrainingCheckpointer(tmp_path, keep_latest=1) as checkpointer:
            checkpointer.restore(
                abstract_state=abstract(make_state()), data_iterator=None
            )
            loss = {"loss": 5.0}
            checkpointer.save(step, make_state(), make_iterator(), metrics=loss)
    with TrainingCheckpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == (8, 11)
        assert checkpointer.best_step() == 8


@pytest.mark.slow
def test_going_on_from_an_earlier_step_replaces_the_later_ones(tmp_path, caplog):
    save_run(tmp_path, (1, 2, 3))
    with TrainingCheckpointer(tmp_path) as checkpointer:
        step, state = checkpointer.restore(
            1, abstract_state=abstract(make_state()), data_iterator=None
        )
        assert checkpointer.steps() == (1, 2, 3)  # reading alone deletes nothing
        checkpointer.save(1, state, None)  # already there
        assert checkpointer.steps() == (1, 2, 3)
        checkpointer.save(3, make_state(seed=33), make_iterator())
        assert checkpointer.steps() == (1, 3)
    assert "deleting checkpoint 2" in caplog.text
    assert_same(restore(tmp_path)[1], make_state(seed=33))


def test_another_run_in_the_directory_is_refused(tmp_path):
    save_run(tmp_path)
    with TrainingCheckpointer(tmp_path) as checkpointer:
        with pytest.raises(InputError) as error:
            checkpointer.save(1, make_state(), make_iterator())
        assert checkpointer.steps() == (1, 2)
    assert_one_line(error, "up to step 2", "resume it, or choose another directory")


def test_looking_creates_nothing(tmp_path):
    directory = tmp_path / "absent"
    with TrainingCheckpointer(directory) as checkpointer:
        assert checkpointer.latest_step() is None
        assert checkpointer.best_step() is None
        with pytest.raises(InputError) as error:
            checkpointer.restore(abstract_state={}, data_iterator=None)
    assert_one_line(error, "no checkpoint in", str(directory))
    assert not directory.exists()


def test_bad_arguments(tmp_path):
    with pytest.raises(InputError, match="keep_latest is 0"):
        TrainingCheckpointer(tmp_path, keep_latest=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        TrainingCheckpointer(tmp_path / "file")
    save_run(tmp_path / "run", (1, 2))
    with pytest.raises(InputError, match="no checkpoint 5 in .*; it has 1, 2"):
        restore(tmp_path / "run", 5)


def test_another_structure_is_named(tmp_path):
    with TrainingCheckpointer(
        tmp_path, config={"seed": 0, "model": {"width": 24, "depth": 2}}
    ) as checkpointer:
        checkpointer.save(4, make_state(24), None)
    with TrainingCheckpointer(
        tmp_path, config={"seed": 0, "model": {"width": 32, "depth": 2}}
    ) as checkpointer:
        with pytest.raises(InputError) as error:
            checkpointer.restore(
                abstract_state=abstract(make_state(32)), data_iterator=None
            )
        assert_one_line(
            error,
            "checkpoint 4",
            "params.layer.kernel is float32[16, 24], expected float32[16, 32]",
            "it was saved with model.width=24, this run has 32",
        )
        fewer = abstract(make_state(24))._replace(step=None)
        with pytest.raises(InputError, match="step is int32.*expected absent"):
            checkpointer.restore(abstract_state=fewer, data_iterator=None)
        other = abstract(make_state(24))
        other = other._replace(step=jax.ShapeDtypeStruct((), jnp.float32))
        with pytest.raises(InputError, match=r"step is int32\[\], expected float32"):
            checkpointer.restore(abstract_state=other, data_iterator=None)


def test_checkpoint_without_data_is_named(tmp_path):
    with TrainingCheckpointer(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(), None)
    with pytest.raises(InputError, match="without a place in the data"):
        restore(tmp_path)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("pristine")
    save_run(directory, (1, 2))
    return directory


def array_file(directory: Path) -> Path:
    """The file that holds the arrays of checkpoint 2."""
    files = (directory / "2" / "state" / "ocdbt.process_0" / "d").iterdir()
    return max(files, key=lambda f: f.stat().st_size)


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def randomize(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(bytes(data))


PARTS = ("arrays", "state/manifest.ocdbt", "data/process_0-of-1.json", "record")
DAMAGES = [
    pytest.param(
        name,
        damage,
        # By default every damage to one part, and one to every part.
        marks=() if name == "arrays" or damage is randomize else pytest.mark.slow,
    )
    for name in PARTS
    for damage in (delete, truncate, randomize, flip)
]


@pytest.mark.representative("arrays-flip")
@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damage_is_noticed_and_the_step_before_is_taken(
    tmp_path, pristine, name, damage, caplog, capfd
):
    run = tmp_path / "run"
    shutil.copytree(pristine, run)
    if name == "arrays":
        damage(array_file(run))
    elif name == "record":
        damage(run / "2" / "record" / "data.json")
    else:
        damage(run / "2" / name)

    iterator = make_iterator()
    with TrainingCheckpointer(run) as checkpointer:
        step, state = checkpointer.restore(
            abstract_state=abstract(make_state()), data_iterator=iterator
        )
    assert step == 1
    assert_same(state, make_state(seed=1))
    expected = make_iterator()
    next(expected)
    np.testing.assert_array_equal(next(iterator), next(expected))
    assert "checkpoint 2" in caplog.text and "taking step 1" in caplog.text

    with pytest.raises(InputError) as error:
        restore(run, 2)
    assert_one_line(error, "checkpoint 2 in", str(run), "an earlier step: 1")
    assert "Traceback" not in capfd.readouterr().err


def test_no_readable_checkpoint(tmp_path, pristine):
    shutil.copytree(pristine / "1", tmp_path / "1")
    (tmp_path / "1" / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(InputError) as error:
        restore(tmp_path)
    assert_one_line(error, "checkpoint 1 in", "none before it is readable")


def test_foreign_directory(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "weights.bin").write_bytes(b"not ours")
    with pytest.raises(InputError) as error:
        restore(tmp_path)
    assert_one_line(error, "checkpoint 7 in")


@pytest.mark.slow
def test_a_moved_run_can_be_resumed(tmp_path, pristine):
    shutil.copytree(pristine, tmp_path / "elsewhere" / "run")
    assert restore(tmp_path / "elsewhere" / "run")[0] == 2


def test_killed_while_saving(tmp_path):
    program = """
        import os, signal, sys, time
        import jax.numpy as jnp, numpy as np
        from seedjax.checkpoints.training import TrainingCheckpointer
        values = np.random.default_rng(0).normal(size=(24, 1024, 1024))
        state = {"w": jnp.asarray(values, jnp.float32)}  # 96 MiB: takes a while
        checkpointer = TrainingCheckpointer(sys.argv[1])
        checkpointer.save(1, {"w": jnp.zeros((24, 1024, 1024))}, None, wait=True)
        checkpointer.save(2, state, None)
        while len(os.listdir(sys.argv[1])) < 2:  # until it has begun
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        env=environment,
        timeout=100,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    assert [p for p in tmp_path.iterdir() if p.name != "1"], "the save had not begun"

    target = {"w": jax.ShapeDtypeStruct((24, 1024, 1024), jnp.float32)}
    with TrainingCheckpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == (1,)
        step, state = checkpointer.restore(abstract_state=target, data_iterator=None)
        assert step == 1 and not state["w"].any()
        checkpointer.save(2, state, None)
    assert {p.name for p in tmp_path.iterdir()} == {"1", "2"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_disk_full(small_disk):
    values = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    state = {"w": jnp.asarray(values)}
    with TrainingCheckpointer(small_disk / "run", keep_latest=1) as checkpointer:
        checkpointer.save(1, state, None, wait=True)
        checkpointer.save(2, state, None)
        with pytest.raises(InputError) as error:
            checkpointer.wait()
        assert_one_line(error, "disk full while saving checkpoint 2", "step 1 is still")
        assert [p.name for p in (small_disk / "run").iterdir()] == ["1"]

        step, restored = checkpointer.restore(
            abstract_state=abstract(state), data_iterator=None
        )
        assert step == 1
        assert_same(restored, state)
        # With room again, the same object goes on.
        checkpointer.save(2, {"w": jnp.zeros((100, 100))}, None, wait=True)
        assert checkpointer.steps() == (2,)


def test_failure_in_the_background_reaches_the_next_save(tmp_path, monkeypatch):
    with TrainingCheckpointer(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(), None, wait=True)

        class Failed:
            def result(self):
                raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

        monkeypatch.setattr(
            checkpointer._orbax, "save_checkpointables_async", lambda *_, **__: Failed()
        )
        checkpointer.save(2, make_state(), None)
        with pytest.raises(InputError, match="disk full while saving checkpoint 2"):
            checkpointer.save(3, make_state(), None)


def test_unwritable_directory(tmp_path, monkeypatch):
    with TrainingCheckpointer(tmp_path) as checkpointer:

        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(checkpointer._orbax, "save_checkpointables_async", refuse)
        with pytest.raises(InputError, match="not permitted while saving checkpoint 1"):
            checkpointer.save(1, make_state(), None)


def test_record_is_json_with_the_recipe(tmp_path):
    with TrainingCheckpointer(tmp_path, config={"seed": 5}) as checkpointer:
        checkpointer.save(3, make_state(), None, metrics={"loss": 0.5})
    record = json.loads((tmp_path / "3" / "record" / "data.json").read_text())
    assert record["config"] == {"seed": 5}
    assert record["metrics"] == {"loss": 0.5}
    assert record["leaves"]["params.norm"]["dtype"] == "bfloat16"
