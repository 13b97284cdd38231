"""Test environment: eight fake CPU devices, JAX's own strictness, shapes checked.

JAX_PLATFORMS is respected, and so is `-m` with gpu, tpu or accelerator: JAX then takes
what it finds. The environment variables must be set before JAX starts, hence the order
of this file.
"""

import dataclasses
import gc
import importlib.util
import inspect
import itertools
import os
import re
import resource
import shutil
import sys
import sysconfig
import textwrap
from pathlib import Path

# `-m gpu`, but not `-m "not gpu"`; "" lets JAX choose, and workers inherit it.
chosen = " ".join(
    after for before, after in itertools.pairwise(sys.argv) if before == "-m"
)
takes_hardware = re.search(r"(?<!not )\b(gpu|tpu|accelerator)\b", chosen)
os.environ.setdefault("JAX_PLATFORMS", "" if takes_hardware else "cpu")
FLAGS = ["--xla_force_host_platform_device_count=8"]
if os.environ["JAX_PLATFORMS"] == "cpu":
    # Tests compile much and run little: no optimization, and of the two ways to
    # compile a fusion the quick one.
    FLAGS += [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
# The last of a flag holds.
os.environ["XLA_FLAGS"] = " ".join([*FLAGS, os.environ.get("XLA_FLAGS", "")])

# A test starts Python some hundred times: bytecode is kept, whatever the shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Functions of the rooms that hold arrays are checked while they are traced. (Wrapping
# those of the other rooms takes seconds a worker and would check no shape.)
ROOMS = """batch bench checkpoints convert diffusion inference nn plan posttrain
    sampling sharding train"""
install_import_hook(
    [f"seedjax.{room}" for room in ROOMS.split()],
    "beartype.beartype",
)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Tests read and leave nothing in the user's cache.
jax.config.update("jax_enable_compilation_cache", False)

import pytest  # noqa: E402

from seedjax.config import DenoiserConfig  # noqa: E402

SHARING = {
    f"tests/{room}" for room in ("cli", "inference", "posttrain", "sampling", "server")
}
MEMORY_BYTES = 3 << 30  # of a test process, from which on programs are forgotten


def pytest_xdist_auto_num_workers(config):
    """Processes share no accelerator."""
    return None if os.environ["JAX_PLATFORMS"] == "cpu" else 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With few processes each takes whole rooms, whose files share servers, models and
    compiled programs; with many, files."""
    from xdist.scheduler import LoadFileScheduling

    class Rooms(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            room = "/".join(nodeid.split("/")[:2])
            whole = room in SHARING and self.numnodes <= 4
            return room if whole else super()._split_scope(nodeid)

    return Rooms(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_runtest_setup(item):
    """Tests marked gpu or tpu take one of these."""
    needed = [mark for mark in ("gpu", "tpu") if item.get_closest_marker(mark)]
    if needed and jax.default_backend() not in needed:
        pytest.skip(f"needs a {' or '.join(needed)}; this is a {jax.default_backend()}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """The default run takes the cases that `representative` names; others are slow."""
    unseen: dict[str, set[str]] = {}
    for item in items:
        if mark := item.get_closest_marker("representative"):
            test = item.nodeid.removesuffix(f"[{item.callspec.id}]")
            unseen.setdefault(test, set(mark.args)).discard(item.callspec.id)
            if item.callspec.id not in mark.args:
                item.add_marker(pytest.mark.slow)
    whole = not any("::" in argument for argument in config.args)
    for test, names in unseen.items():
        if names and whole:
            raise pytest.UsageError(f"{test} has no case {sorted(names)}")


def pytest_collection_finish():
    """What is imported stays: the collector of garbage need not look at it again, and
    seldom at what tests trace, which is let go of at once or kept."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Compiled programs stay in memory for good, some gigabytes for all tests."""
    yield
    if resident_bytes() > MEMORY_BYTES:
        jax.clear_caches()


def resident_bytes() -> int:
    """What this process holds now; where the kernel does not tell, the most it held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return pages * resource.getpagesize()


@pytest.fixture
def tpu_compiler(monkeypatch):
    """Compiles for TPUs without one. It ends a process at a flag that it does not know,
    and those of tests are for CPUs."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed; pip install 'seedjax[plan]'")
    jax.devices()  # have read the flags
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.fixture
def gpu_compiler():
    """Compiles for NVIDIA GPUs without one."""
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        pytest.skip("jax-cuda13-plugin is missing; pip install 'seedjax[plan]'")


@pytest.fixture
def tiny_config() -> DenoiserConfig:
    """A denoiser that compiles in no time: two layers, 32 wide, blocks of four."""
    return DenoiserConfig(
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        mlp_size=48,
        max_positions=256,
        block_size=4,
        init_scale=0.1,
    )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A small real corpus: functions of a few modules of the standard library, with a
    tokenizer of 512 pieces."""
    from seedjax.data.build import BuildConfig, build_corpus
    from seedjax.data.decontaminate import shipped_contamination
    from seedjax.data.sources import open_source

    folder = tmp_path_factory.mktemp("source")
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in ("argparse", "bisect", "calendar", "configparser", "csv", "heapq"):
        shutil.copy(library / f"{name}.py", folder)
    for name in ("shlex", "statistics", "string", "textwrap", "inspect", "tarfile"):
        shutil.copy(library / f"{name}.py", folder)
    directory = tmp_path_factory.mktemp("corpus") / "corpus"
    build_corpus(
        open_source(folder),
        directory,
        BuildConfig(vocab_size=512, heldout_fraction=0.25),
        contamination=shipped_contamination(),
    )
    return directory


@pytest.fixture
def tiny_run(tiny_config, corpus):
    """A training run of a few steps on `corpus`."""
    from seedjax.data.pipeline import DataConfig
    from seedjax.diffusion.edit_stage import EditStage
    from seedjax.diffusion.objective import BlockDiffusion
    from seedjax.train.config import RunConfig
    from seedjax.train.optim import OptimizerConfig

    return RunConfig(
        model=dataclasses.replace(tiny_config, vocab_size=512, init_scale=0.05),
        objective=BlockDiffusion(edit=EditStage(first_token_id=14)),
        data=DataConfig(
            corpus=str(corpus), sequence_length=32, batch_size=8, block_size=4
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        num_steps=10,
        log_every=1,
        eval_every=5,
        eval_batches=2,
        eval_samples=2,
        infill_spans=0,
        weights_dtype="float32",
    )


@pytest.fixture(scope="session")
def tokenizer():
    """Fewer pieces than the model of `text_model` has ids."""
    from seedjax.text.sentencepiece import train_tokenizer

    return train_tokenizer([inspect.getsource(textwrap)] * 2, vocab_size=400)


@pytest.fixture(scope="session")
def model(tokenizer):
    """Samples block by block."""
    from text_model import CONFIG, RECIPE, params_of

    from seedjax.inference.model import Model

    return Model(params_of(CONFIG), CONFIG, tokenizer, RECIPE)


@pytest.fixture(scope="session")
def causal(tokenizer):
    """The same weights as an autoregressive model."""
    from text_model import CONFIG, RECIPE, params_of

    from seedjax.inference.model import Model

    config = dataclasses.replace(CONFIG, attention="causal", logit_alignment="shifted")
    return Model(params_of(config), config, tokenizer, RECIPE)
