"""How many programs XLA compiles for what a user asks."""

import dataclasses
import warnings

import jax
import pytest
from text_model import CONFIG, RECIPE, params_of

import seedjax
from seedjax.inference import compile_cache
from seedjax.inference.model import Model

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """The seconds of each compilation from here on, helpers of JAX's own included."""
    found = []

    def listen(event: str, seconds: float, **_) -> None:
        if event == COMPILED:
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
def test_fifty_prompts_of_fifty_lengths_take_four_programs(tokenizer, compilations):
    """Of 2 to 3,000 tokens, with budgets of 1 to 8 tokens."""
    config = dataclasses.replace(CONFIG, max_positions=8192)
    model = Model(params_of(config), config, tokenizer, RECIPE)
    jax.block_until_ready(model.params)
    compilations.clear()
    lengths = set()
    for number in range(50):
        out = model.generate("é" * (1 + 30 * number), max_new_tokens=1 + number % 8)
        lengths.add(out.prompt_tokens[0])
    assert len(lengths) == 50 and max(lengths) > 2048
    assert model.num_programs <= 4
    assert len(compilations) <= 4


@pytest.mark.slow
def test_the_bundled_model_compiles_one_program(compilations):
    """Loading compiles nothing, and an answer nothing but the sampler."""
    model = seedjax.load("mini")
    assert len(compilations) == 0
    model.generate("def gcd(a, b):\n", max_new_tokens=8)
    assert len(compilations) == 1


@pytest.fixture
def fresh_settings(monkeypatch, tmp_path):
    """JAX as it is before anybody has set a cache; as it was, afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = [
        "jax_enable_compilation_cache",
        "jax_compilation_cache_dir",
        *compile_cache.KEEP_ALL,
    ]
    before = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_python_uses_the_compile_cache_of_the_command_line(fresh_settings, tmp_path):
    seedjax.load("mini", compile_cache=False)
    assert jax.config.values["jax_compilation_cache_dir"] is None
    seedjax.load("mini")
    directory = jax.config.values["jax_compilation_cache_dir"]
    assert directory == str(tmp_path / "cache" / "seedjax" / "jax")
    assert directory == str(compile_cache.compile_cache_directory())


def test_a_cache_of_the_users_own_is_left_alone(fresh_settings, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    seconds = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    compile_cache.use_compile_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "mine")
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == seconds
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    compile_cache.use_compile_cache()
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_cache_that_cannot_be_written_is_one_warning(fresh_settings, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder is to be")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        compile_cache.use_compile_cache()
    (warning,) = found
    assert "no compilation cache" in str(warning.message)
    assert "\n" not in str(warning.message)
    assert jax.config.values["jax_compilation_cache_dir"] is None


@pytest.mark.slow
def test_blocks_are_shown_as_they_come(model):
    """The same answer as whole, and each block's steps once, before the next one's."""
    shown = []
    options = {"trace": True, "max_new_tokens": 20, "seed": 5}
    out = model.generate("import", **options, on_block=shown.append)
    whole = model.generate("import", **options)
    assert out.texts == whole.texts and out.tokens == whole.tokens
    assert out.forwards == whole.forwards
    assert [step for block in shown for step in block] == whole.trace
    assert len(shown) >= 2
    assert [{step.block for step in block} for block in shown] == [
        {number} for number in range(len(shown))
    ]
