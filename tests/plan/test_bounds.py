"""Programs of the compilers of TPUs and GPUs, held to bounds: no accelerator is needed,
the compilers are (`pip install 'seedjax[plan]'`)."""

import pytest

from seedjax.plan.case import Case, denoiser_of
from seedjax.plan.figures import plan

MEMORY = {"v5e:2x4": 16 * 2**30, "v6e:2x2": 32 * 2**30}  # bytes of a chip
MESHES = {"v5e:2x4": "tensor=8", "v6e:2x2": "tensor=4"}
CASES = [
    Case(topology=topology, mesh=MESHES[topology], program=program, **shapes)
    for topology in MESHES
    for program, shapes in (
        ("block", {"weights": "bfloat16"}),
        ("block", {"weights": "int8_weights", "prefix": 32_768}),
        ("block", {"weights": "bfloat16", "batch_size": 4}),
        ("sampler", {"weights": "int8_weights"}),
    )
]


def name_of(case: Case) -> str:
    shapes = f"{case.weights}-{case.prefix}-{case.batch_size}"
    return f"{case.program}-{case.topology}-{shapes}"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=name_of)
@pytest.mark.usefixtures("tpu_compiler")
def test_a_pass_moves_little_more_than_it_must(case):
    """At the shape of Stable-DiffCoder-8B a pass moves at most a quarter more than
    it has to, copies no weight, gathers no cache and never leaves the device; the
    program fits into the memory of a chip."""
    config = denoiser_of(case)
    figures = plan(case)
    for part in figures.passes:
        assert part.over_least <= 1.25
        assert part.copied == ()
        assert part.read_again == ()
        assert part.host_transfers == ()
        gathered = {c.operation: c.num_bytes for c in part.collectives}
        cache_of_a_layer = case.batch_size * case.prefix * config.num_kv_heads
        cache_of_a_layer *= config.head_dim * 2
        assert gathered.get("all-gather", 0) < cache_of_a_layer * config.num_layers
    assert figures.hbm_bytes < MEMORY[case.topology]


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [2048, 32_768])
@pytest.mark.usefixtures("gpu_compiler")
def test_a_gpu_copies_no_weight_to_decode_a_block(prefix):
    """Four layers at the width of Stable-DiffCoder-8B, and no cache."""
    case = Case(topology="h100:1", mesh="", num_layers=4, prefix=prefix)
    (block,) = plan(case).passes
    assert block.over_least <= 1.25
    assert block.copied == ()
    assert block.host_transfers == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "compiler", "lora_rank"),
    [("h100:8", "gpu_compiler", 0), ("v5e:2x4", "tpu_compiler", 16)],
)
def test_a_step_sends_little_more_than_it_must(topology, compiler, lora_rank, request):
    """Weights, frozen ones too, are gathered once forward and once backward and not
    inside each product, for both copies; gradients scattered, embeddings sent by the
    token."""
    request.getfixturevalue(compiler)
    case = Case(
        program="train",
        topology=topology,
        mesh="fsdp=8",
        num_layers=1,
        length=512,
        batch_size=8,
        lora_rank=lora_rank,
    )
    figures = plan(case)
    (step,) = figures.passes
    # Less than 1: some kernels of a single layer stay until they are used again.
    assert 0.75 <= step.sent_over_least <= 1.3
    assert "collective-permute" not in {c.operation for c in step.collectives}
    assert figures.hbm_bytes < figures.memory_size
