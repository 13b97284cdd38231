"""Decoding options, compiled samplers and the comparison of policies, as a user meets
them."""

import json
import sys
import typing

import pytest

from seedjax.cli.decoding import Decoding
from seedjax.sampling.options import SamplerOptions


@pytest.mark.slow
def test_any_field_of_the_recipe(generate):
    code, plain, _ = generate("x = 1\n", "--json", "--ignore-eos")
    policy = 'policy={"kind": "FixedCount", "steps_per_block": 1}'
    settings = ("--set", policy, "--set", 'ahead={"blocks": 1}')
    code, out, _ = generate("x = 1\n", "--json", "--ignore-eos", *settings)
    assert code == 0
    assert json.loads(out)["forwards"] < json.loads(plain)["forwards"]


OWN_POLICIES = """
from dataclasses import dataclass
import jax.numpy as jnp

@dataclass(frozen=True, kw_only=True)
class Leftmost:
    count: int = 1

    def accept(self, candidates):
        number = jnp.cumsum(candidates.masked, axis=1)
        return candidates.masked & (number <= self.count)

    def most_steps(self, block_size):
        return block_size

@dataclass(frozen=True)
class Endless(Leftmost):
    def most_steps(self, block_size):
        return 0

@dataclass
class Mutable:
    accept = most_steps = Leftmost.accept

@dataclass(frozen=True)
class NoPolicy:
    count: int = 1
"""


@pytest.fixture
def own_policies(tmp_path, monkeypatch):
    """A module in the current folder, imported by nobody yet."""
    (tmp_path / "own_policies.py").write_text(OWN_POLICIES)
    monkeypatch.chdir(tmp_path)
    yield "own_policies"
    sys.modules.pop("own_policies", None)


def test_a_policy_of_the_users_own(generate, own_policies):
    """Written as `LeftToRight` without a threshold, it decodes the same."""
    given = ("x = 1\n", "--json", "--ignore-eos", "--set")
    runs = []
    for policy in (
        '{"kind": "LeftToRight", "threshold": null}',
        f"{own_policies}:Leftmost",
        f'{{"kind": "{own_policies}:Leftmost", "count": 4}}',
    ):
        code, out, err = generate(*given, f"policy={policy}")
        assert code == 0, err
        runs.append(json.loads(out))
    assert runs[0]["text"] == runs[1]["text"]
    assert runs[0]["forwards"] == runs[1]["forwards"] > runs[2]["forwards"]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("nowhere:Policy", "names the module 'nowhere', which cannot be imported"),
        ("own_policies:Policy", "has no dataclass 'Policy'"),
        ("json:dumps", "has no dataclass 'dumps'"),
        ("own_policies:NoPolicy", "of your own, one with accept, most_steps"),
        ("own_policies:Mutable", "must be a frozen dataclass"),
        ("own_policies:Endless", "most_steps of Endless is 0"),
        ('{"kind": "own_policies:Leftmost", "cuont": 2}', "did you mean 'count'"),
        ('{"kind": "ConfidenceFactor"}', "expected one of FixedCount"),
    ],
)
def test_faults_of_a_policy(generate, own_policies, policy, message):
    code, out, err = generate("x = 1\n", "--set", f"policy={policy}")
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1


@pytest.mark.slow
def test_an_answer_of_a_given_form(generate, tmp_path):
    code, out, _ = generate("x = ", "--json", "--regex", "[0-9]{2}-[ab]+")
    text = json.loads(out)["text"]
    assert code == 0 and text[:2].isdigit() and set(text[3:]) <= {"a", "b"}
    assert json.loads(out)["fits"] is True
    (tmp_path / "schema.json").write_text('{"enum": [true, null]}')
    code, out, _ = generate("x = ", "--json", "--json-schema", tmp_path / "schema.json")
    assert json.loads(json.loads(out)["text"]) in (True, None)


@pytest.mark.slow
def test_log_probabilities(generate):
    code, out, _ = generate("x = 1\n", "--json", "--ignore-eos", "--logprobs")
    found = json.loads(out)
    assert code == 0 and len(found["tokens"]) == len(found["logprobs"]) == 12
    assert all(value <= 0 for value in found["logprobs"])
    code, out, err = generate("x = 1\n", "--logprobs")
    assert (code, out) == (2, "") and "--logprobs is for --json" in err


def test_an_answer_that_does_not_have_its_form_is_refused(generate):
    code, out, err = generate("x = ", "--max-new-tokens", 2, "--regex", "a{40}")
    assert (code, out) == (2, "") and "max_new_tokens is 2; give " in err
    # Exactly twelve tokens, of which the form has room for two at the most.
    given = ("x = ", "--ignore-eos", "--regex", "[0-9]{2}", "--json")
    code, out, err = generate(*given)
    assert (code, out) == (3, "") and err.count("\n") == 1
    assert "does not match the grammar" in err and "--force" in err
    code, out, _ = generate(*given, "--force")
    assert code == 0 and json.loads(out)["fits"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", 'policy={"kind": "Sure"}'), "expected one of FixedCount"),
        (("--set", "temprature=1"), "did you mean 'temperature'"),
        (("--set", "ahead.blocks=2"), "has no fields"),
        (("--set", 'revision={"kind": "Revoke", "threshold": 2}'), "in [0, 1]"),
        (("--set", "temperature=1", "--temperature", 1), "an option of its own"),
        (("--regex", "("), "'(' cannot be used"),
        (("--regex", "a", "--json-schema", "x"), "not both"),
        (("--regex", "a", "--set", 'revision={"kind": "TokenEdits"}'), "drop the"),
        (("--quantization", "int4"), "it must be one of"),
        (("--device", "cuda:9"), "device is 'cuda:9'; give None"),
        (("--device", "cpu:-1"), "device is 'cpu:-1'; give None"),
        (("--dtype", "float12"), "'float12' is not one of"),
        (("--set", 'speculation={"draft_tokens": 2}'), "with shifted logits"),
    ],
)
def test_faults(generate, arguments, message):
    code, out, err = generate("x = 1\n", *arguments)
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--temperature", 0), "drop --temperature"),
        (("--model", "mini"), "drop --model"),
        ((), "holds no exported sampler"),
    ],
)
def test_faults_of_a_compiled_sampler(run, arguments, message):
    code, out, err = run("generate", "x = 1\n", "--compiled", "nowhere", *arguments)
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1


@pytest.mark.slow
def test_compile_and_run(run, generate, model_directory, tmp_path):
    pytest.importorskip("flatbuffers", reason="needs the extra export")
    path = tmp_path / "sampler"
    code, out, _ = run(
        *("compile", path, "--model", model_directory, "--platforms", "cpu"),
        *("--max-new-tokens", 12, "--max-prompt-tokens", 16, "--json"),
    )
    assert code == 0 and json.loads(out)["path"] == str(path)
    code, out, _ = run("generate", "x = 1\n", "--compiled", path, "--json")
    _, wanted, _ = generate("x = 1\n", "--json")
    assert code == 0 and json.loads(out)["text"] == json.loads(wanted)["text"]
    # What holds something else is not touched.
    code, _, err = run("compile", tmp_path, "--model", model_directory)
    assert code == 2 and "is there already" in err


def test_options_are_fields_of_the_recipe():
    """What the command line offers is what Python takes, and of the same type."""
    call = {"settings", "stop", "seed"}
    offered = typing.get_type_hints(Decoding)
    taken = typing.get_type_hints(SamplerOptions) | {"order": str, "context": str}
    for name in offered.keys() - call:
        kinds = set(typing.get_args(offered[name])) - {type(None)}
        assert kinds <= {taken[name], *typing.get_args(taken[name])}, name
