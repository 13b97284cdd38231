"""Programs from a file: the same answer, and never another program's."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from text_model import CONFIG, RECIPE, params_of

from seedjax.inference import compiled as programs
from seedjax.inference import stored_programs
from seedjax.inference.model import Model
from seedjax.sampling.policy import ConfidenceThreshold


@pytest.fixture
def kept(tmp_path):
    """A cache directory, for as long as the test lasts."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_enable_compilation_cache", False)


def test_the_next_process_neither_traces_nor_compiles(kept, tokenizer, monkeypatch):
    params, asked = params_of(CONFIG), {"max_new_tokens": 20, "seed": 3}
    first = Model(params, CONFIG, tokenizer, RECIPE).generate("import", **asked)
    (path,) = kept.iterdir()

    def trace(*_):
        raise AssertionError("traced again")

    monkeypatch.setattr(stored_programs, "_write", trace)
    again = Model(params, CONFIG, tokenizer, RECIPE).generate("import", **asked)
    assert again.tokens == first.tokens and again.forwards == first.forwards
    # A damaged file is no file.
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="traced again"):
        Model(params, CONFIG, tokenizer, RECIPE).generate("import", **asked)


PROCESS = """
import sys
import jax, jax.numpy as jnp
from seedjax.inference import stored_programs

jax.config.update("jax_compilation_cache_dir", sys.argv[1] + "/jax")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

def body(carry):
    x, step = carry
    return jnp.tanh(x @ x.T)[:, :8] * jnp.sum(x, axis=1, keepdims=True), step + 1

def function(x):
    return jax.lax.while_loop(lambda c: c[1] < 5, body, (x, 0))[0]

x = jnp.arange(64.0).reshape(8, 8) / 64
key = "program" if sys.argv[2] == "store" else None
compile = lambda: jax.jit(function).lower(x).compile()
print(stored_programs.load_or_compile(key, compile)(x).sum())
"""


@pytest.mark.slow
def test_a_program_that_jax_has_in_its_own_cache_is_kept_whole(tmp_path):
    """JAX's cache may hold the program already, such as from an earlier version."""
    said = []
    for use in ("plain", "store", "store"):
        run = subprocess.run(
            [sys.executable, "-c", PROCESS, str(tmp_path), use],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        said.append(run.stdout)
    assert (tmp_path / "programs" / "program.program").exists()
    assert said[0] == said[1] == said[2]


def test_keys_tell_apart_what_programs_depend_on(monkeypatch):
    arguments = (jax.device_put(np.zeros(3, np.float32)),)

    def key(function=programs.generate, donate=None, recipes=(CONFIG, RECIPE), of=None):
        return stored_programs.program_key(
            function, donate, recipes, arguments if of is None else of
        )

    plain = key()
    assert plain is not None and plain == key()
    others = [
        key(programs.start),
        key(donate="state"),
        key(recipes=(dataclasses.replace(CONFIG, rope_theta=5.0), RECIPE)),
        key(recipes=(CONFIG, dataclasses.replace(RECIPE, temperature=0.5))),
        key(of=(jax.device_put(np.zeros(4, np.float32)),)),
        key(of=(jax.device_put(np.zeros(3, np.int32)),)),
        key(of=[jax.device_put(np.zeros(3, np.float32))]),
    ]
    with jax.default_matmul_precision("float32"):
        others.append(key())
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    stored_programs._surroundings.cache_clear()
    others.append(key())
    assert None not in others and len({plain, *others}) == 1 + len(others)
    monkeypatch.undo()
    stored_programs._surroundings.cache_clear()


def test_what_cannot_be_described_is_not_kept():
    @dataclasses.dataclass(frozen=True)
    class Own(ConfidenceThreshold):
        """A user's policy, whose code may change under the same name."""

    recipe = dataclasses.replace(RECIPE, policy=Own())
    arguments = (jax.device_put(np.zeros(3, np.float32)),)
    own = stored_programs.program_key(
        programs.generate, None, (CONFIG, recipe), arguments
    )
    assert own is None
    elsewhere = (jax.device_put(np.zeros(3, np.float32), jax.devices()[1]),)
    moved = stored_programs.program_key(
        programs.generate, None, (CONFIG, RECIPE), elsewhere
    )
    assert moved is None


def test_loading_needs_no_flax():
    """Flax is imported by tracing, which a stored program does not take."""
    code = "import sys, seedjax; seedjax.load(); print('flax' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    assert run.stdout == "False\n"
