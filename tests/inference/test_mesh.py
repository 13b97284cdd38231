"""`load(mesh=)`: weights read into their shards, and the completions of one device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from text_model import CONFIG, PROMPTS, RECIPE, params_of

from seedjax.checkpoints.adapters import save_adapter
from seedjax.checkpoints.model_directory import save_model
from seedjax.checkpoints.weights import WeightReader
from seedjax.config import MoEConfig, to_dict
from seedjax.errors import InputError
from seedjax.inference.engine import Engine
from seedjax.inference.loading import load
from seedjax.nn.lora import LoRA, init_adapter
from seedjax.sampling import arguments
from seedjax.sampling.grammar.build import Regex

DENSE = dataclasses.replace(CONFIG, num_heads=4, num_kv_heads=4, num_layers=2)
EXPERTS = MoEConfig(
    num_experts=4,
    num_selected=2,
    expert_size=16,
    shared_size=16,
    num_dense_layers=1,
    scoring="sigmoid",
)
CONFIGS = {"dense": DENSE, "experts": dataclasses.replace(DENSE, moe=EXPERTS)}
TREES = {
    "dense": ("dense", {}),
    "int8_weights": ("dense", {"quantization": "int8_weights"}),
    "int8": ("dense", {"quantization": "int8"}),
    "experts": ("experts", {}),
    "int8 experts": ("experts", {"quantization": "int8_weights"}),
    "lora": ("dense", {"adapter": "dense-adapter"}),
}
MESHES = ["data=8", "fsdp=8", "tensor=4,data=2", "data=2,fsdp=2,tensor=2"]
WITH_EXPERTS = ["expert=4,tensor=2", "fsdp=2,expert=2,tensor=2"]
# Several rows a device, of several lengths.
ROWS = [prompt[: len(prompt) - n % 3] for n in range(8) for prompt in PROMPTS]
GREEDY = {"temperature": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """Model directories of random weights, and an adapter that changes something."""
    folder = tmp_path_factory.mktemp("models")
    weights = {name: params_of(config) for name, config in CONFIGS.items()}
    for name, config in CONFIGS.items():
        save_model(
            folder / name,
            params=weights[name],
            denoiser=config,
            tokenizer=tokenizer,
            sampler=to_dict(RECIPE),
            provenance={},
            card="# Random\n",
        )
    recipe = LoRA(rank=2)
    adapter = jax.tree.map(
        lambda leaf: jnp.sin(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(
            leaf.shape
        ),
        init_adapter(jax.random.key(1), weights["dense"], recipe),
    )
    save_adapter(folder / "dense-adapter", adapter, recipe, base=str(folder / "dense"))
    return folder


def opened(folder, tree: str, **options):
    name, more = TREES[tree]
    options |= more
    if "adapter" in options:
        options["adapter"] = str(folder / options["adapter"])
    return load(str(folder / name), compile_cache=False, **options)


@pytest.fixture(scope="module")
def alone(folder):
    """What one device writes, made once."""
    made = {}

    def alone(tree: str) -> list[list[int]]:
        if tree not in made:
            made[tree] = opened(folder, tree).generate(ROWS, **GREEDY).tokens
        return made[tree]

    return alone


CASES = [
    pytest.param(mesh, tree, id=f"{mesh}-{tree}")
    for tree in TREES
    for mesh in (MESHES + WITH_EXPERTS if "experts" in tree else MESHES)
]


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "tree"), CASES)
def test_completions_are_those_of_one_device(folder, alone, mesh, tree):
    if "int8" in tree:
        pytest.importorskip("qwix", reason="needs the extra quant")
    expected = alone(tree)
    model = opened(folder, tree, mesh=mesh)
    assert model.generate(ROWS, **GREEDY).tokens == expected
    assert len({tuple(row) for row in expected}) > len(PROMPTS)


@pytest.mark.representative("data=2,fsdp=2,tensor=2")
@pytest.mark.parametrize("mesh", [*MESHES, "expert=4,tensor=2"])
def test_engine_on_a_mesh(folder, alone, mesh):
    """Requests of several widths, more than there are slots; nothing is compiled again
    for the second half of them."""
    expected = alone("dense")
    model = opened(folder, "dense", mesh=mesh)
    engine = Engine(model, num_slots=8, max_prompt_tokens=16, **GREEDY)
    half = len(ROWS) // 2
    found = {c.number: c.tokens for c in engine.run(ROWS[:half])}
    programs = model.num_programs
    kept = [engine.submit(row) for row in ROWS[half:]]
    dropped = engine.submit(ROWS[0])
    answers = {c.number: c.tokens for c in engine.step()}
    engine.cancel(dropped)
    while engine.num_waiting or engine.num_running:
        answers |= {c.number: c.tokens for c in engine.step()}
    assert [found[n] for n in range(half)] == expected[:half]
    assert [answers[n] for n in kept] == expected[half:]
    assert model.num_programs == programs


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data=8", "tensor=4,data=2"])
def test_grammars_of_an_engine_on_a_mesh(folder, alone, mesh):
    """Their automaton goes to every device; requests beside them are free."""
    pytest.importorskip("outlines_core")
    grammars = [Regex(pattern="[a-z]{2,4}"), Regex(pattern="[0-9]{3}"), None, None]

    def written(**options) -> list[list[int]]:
        engine = Engine(
            opened(folder, "dense", **options),
            num_slots=8,
            max_prompt_tokens=16,
            **GREEDY,
        )
        rows = list(zip(ROWS, grammars * 4, strict=False))
        numbers = [engine.submit(row, grammar=grammar) for row, grammar in rows]
        found: dict[int, list[int]] = {}
        while engine.num_waiting or engine.num_running:
            found |= {c.number: c.tokens for c in engine.step()}
        return [found[n] for n in numbers]

    expected = written()
    assert written(mesh=mesh) == expected
    assert expected[2::4] == alone("dense")[2:16:4] and len(expected) == 16
    assert expected[:16:4] != alone("dense")[:16:4]


@pytest.mark.slow
def test_streams_on_a_mesh_of_jax(folder):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "tensor"))
    one, many = opened(folder, "dense"), opened(folder, "dense", mesh=mesh)
    assert many.mesh is not None and set(many.mesh.axis_types) == {AxisType.Auto}
    text = one.generate(PROMPTS[0], **GREEDY).texts[0]
    assert "".join(many.stream(PROMPTS[0], **GREEDY)) == text


@pytest.mark.parametrize("tree", ["dense", "lora", "int8 experts"])
def test_each_device_reads_its_part_and_holds_no_more(folder, tree, monkeypatch):
    """No array is ever whole on a device, not even while the model is being loaded."""
    if "int8" in tree:
        pytest.importorskip("qwix", reason="needs the extra quant")
    read = []
    plain = WeightReader.read

    def watched(self, name, index=None):
        values = plain(self, name, index)
        read.append((name, values.size))
        return values

    monkeypatch.setattr(WeightReader, "read", watched)
    before = {id(array) for array in jax.live_arrays()}
    largest = []

    def report(*_):
        shards = [
            shard.data.nbytes
            for array in jax.live_arrays()
            if id(array) not in before
            for shard in array.addressable_shards
        ]
        largest.append(max(shards, default=0))

    model = opened(folder, tree, mesh="data=2,fsdp=2,tensor=2", report=report)
    report()
    table = model.config.vocab_size * model.config.hidden_size
    assert max(largest) <= 4 * table // 4  # float32, over fsdp and tensor
    leaves = jax.tree.leaves(model.params)
    total = sum(leaf.nbytes for leaf in leaves)
    for device in jax.devices():
        held = sum(
            shard.data.nbytes
            for leaf in leaves
            for shard in leaf.addressable_shards
            if shard.device == device
        )
        assert held < 0.3 * total  # a quarter, and what is copied
    # Each part once, though two devices hold it.
    sizes = {}
    for name, size in read:
        sizes[name] = sizes.get(name, 0) + size
    assert sizes["embedding"] == table
    assert max(size for name, size in read if name == "embedding") == table // 4


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("tensor=8", "tensor=8, which does not divide num_heads=4 of the model; it is"),
        ("expert=8", "expert=8, which does not divide moe.num_experts=4"),
        ("data=3", "needs 3 devices; this machine shows 8"),
        ("sequence=8", "splits `sequence`, which is for training; give those devices"),
        ("heads=8", "is not AXIS=SIZE"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(folder, mesh, message):
    with pytest.raises(InputError, match=message) as fault:
        opened(folder, "experts", mesh=mesh)
    assert "\n" not in str(fault.value)


def test_a_mesh_with_a_device_or_other_axes_is_refused(folder):
    with pytest.raises(InputError, match="a device or a mesh, not both"):
        opened(folder, "dense", mesh="data=8", device="cpu")
    others = Mesh(np.array(jax.devices()), ("model",))
    with pytest.raises(InputError, match="axis 'model'; it may have data, fsdp"):
        opened(folder, "dense", mesh=others)
    with pytest.raises(InputError, match="mesh is 8, an int; give axes and sizes"):
        arguments.mesh(8)
