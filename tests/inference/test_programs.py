"""Compiled programs: which are kept, and where they cannot be run."""

import gc
import os
import select
import warnings

import jax
import pytest
from text_model import CONFIG, PROMPTS, RECIPE, params_of

from seedjax.errors import InputError
from seedjax.inference.engine import Engine
from seedjax.inference.loading import load
from seedjax.inference.model import Model


@pytest.fixture
def small(tokenizer):
    return Model(params_of(CONFIG), CONFIG, tokenizer, RECIPE, max_programs=2)


def num_executables() -> int:
    gc.collect()
    return len(jax.devices()[0].client.live_executables())


@pytest.mark.slow
def test_the_least_recently_used_program_goes(small):
    def compiles(temperature: float) -> bool:
        return small.generate(PROMPTS, temperature=temperature).compile_seconds > 0

    assert compiles(0.1) and compiles(0.2) and not compiles(0.1)
    before = num_executables()
    assert compiles(0.3) and small.num_programs == 2
    assert num_executables() == before  # 0.2 is gone, and its memory with it
    assert not compiles(0.1) and compiles(0.2) and compiles(0.3)


@pytest.mark.slow
def test_an_engine_and_grammars_count_too(small):
    pytest.importorskip("outlines_core")
    from seedjax.sampling.grammar.build import Regex

    engine = Engine(small, num_slots=1, max_prompt_tokens=16)
    for digits in range(1, 6):
        engine.submit("x", grammar=Regex(pattern=f"[0-9]{{{digits}}}"))
        (done,) = [c for _ in range(4) for c in engine.step()]
        assert len(done.text) == digits and done.text.isdecimal()
        assert small.num_programs <= 2
    assert len(small._automata._made) == 2


def test_a_limit_is_a_number(tokenizer):
    with pytest.raises(InputError, match="max_programs is 0"):
        Model(params_of(CONFIG), CONFIG, tokenizer, RECIPE, max_programs=0)


def test_a_fork_says_so(model):
    """It would wait for threads that it does not have."""
    engine = Engine(model, num_slots=1, max_prompt_tokens=16)
    engine.submit("x")
    tries = (
        lambda: model.generate("x"),
        lambda: model.infill("x", "y"),
        lambda: next(model.stream("x")),
        lambda: load("mini"),
        engine.step,
        lambda: Engine(model, num_slots=1),
        lambda: engine.submit("x"),
        lambda: next(engine.run(["x"])),
    )
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python warn
        child = os.fork()
    if child == 0:
        try:
            for act in tries:
                try:
                    act()
                    os.write(writer, b"went on\n")
                except InputError as error:
                    os.write(writer, f"{error}\n".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:
        said = b""
        while select.select([pipe], [], [], 60)[0] and (part := pipe.read(4096)):
            said += part
    os.kill(child, 9)
    os.waitpid(child, 0)
    lines = said.decode().splitlines()
    assert len(lines) == len(tries)
    assert all("forked" in line and "'spawn'" in line for line in lines)
    assert model.generate("x").texts  # the first process goes on
