import pytest

from seedjax.errors import InputError
from seedjax.plan.hlo import Buffer, read_module, read_shape

TEXT = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

ENTRY %main.1 (a: f32[8], b: bf16[4,8]) -> (f32[8], bf16[4,8]) {
  %b = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(1), metadata={op_name="cache.layers[0]"}
  %a = f32[8]{0:T(128)} parameter(0), metadata={op_name="params[\\'w(1)\\']"}
  %c = f32[8]{0:T(128)S(1)} all-reduce(%a), to_apply=%add, replica_groups={{0,1}}
  %d = f32[8]{0} custom-call(%c, %b), called_computations={%add}, api="f(x)", kernel={
"metadata":"{}"
}
  ROOT %t = (f32[8]{0}, /*index=1*/bf16[4,8]{1,0}) tuple(%d, %b)
}
"""


def test_a_module_is_its_computations():
    module = read_module(TEXT)
    assert list(module.computations) == ["add", "main.1"]
    assert module.entry == "main.1"
    main = module.computations["main.1"]
    assert list(main.instructions) == ["b", "a", "c", "d", "t"]
    assert main.root == "t"
    assert {n: p.name for n, p in main.parameters().items()} == {0: "a", 1: "b"}


def test_an_instruction_is_its_parts():
    instructions = read_module(TEXT).computations["main.1"].instructions
    reduced = instructions["c"]
    assert reduced.opcode == "all-reduce"
    assert reduced.result == (Buffer("f32", (8,), 1),)
    assert reduced.operands == ("a",)
    assert reduced.called == {"to_apply": ("add",)}
    assert instructions["d"].operands == ("c", "b")
    assert instructions["d"].called == {"called_computations": ("add",)}
    assert [b.dtype for b in instructions["t"].result] == ["f32", "bf16"]


@pytest.mark.parametrize(
    ("text", "wanted", "num_bytes"),
    [
        ("f32[]", [Buffer("f32", (), 0)], 4),
        ("bf16[32,1,4]{2,1,0:T(8,128)(2,1)S(1)}", [Buffer("bf16", (32, 1, 4), 1)], 256),
        ("s4[3]{0:E(4)}", [Buffer("s4", (3,), 0)], 2),
        ("pred[<=8]{0}", [Buffer("pred", (8,), 0)], 8),
        (
            "((s8[6]{0}), s8[2]{0:S(1)}, u32[]{:S(2)})",
            [Buffer("s8", (6,), 0), Buffer("s8", (2,), 1), Buffer("u32", (), 2)],
            12,
        ),
        ("token[]", [Buffer("token", (), 0)], 0),
        ("f8e4m3fn[4]{0}", [Buffer("f8e4m3fn", (4,), 0)], 4),
    ],
)
def test_shapes(text, wanted, num_bytes):
    buffers = read_shape(text)
    assert list(buffers) == wanted
    assert sum(buffer.num_bytes for buffer in buffers) == num_bytes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("module { }", "no ENTRY"),
        ("ENTRY %m (a: f32[]) -> f32[] {\n  what is this\n}\n", "no line of HLO"),
        (
            "ENTRY %m (a: f32[]) -> f32[] {\n  %a = f32[] add(%b, %c\n}\n",
            "not closed",
        ),
        (
            "ENTRY %m (a: f32[]) -> f32[] {\n  %a = odd[] add(%b)\n}\n",
            "unknown element type",
        ),
    ],
)
def test_what_is_no_hlo(text, message):
    with pytest.raises(InputError, match=message):
        module = read_module(text)
        for instruction in module.computations["m"].instructions.values():
            _ = instruction.result[0].num_bytes


def test_the_text_of_a_real_program_is_read():
    import jax
    import jax.numpy as jnp

    def body(carry, kernel):
        return jnp.tanh(kernel @ carry), None

    def run(x, kernels):
        return jax.lax.scan(body, x, kernels)[0]

    shapes = (jnp.ones(8), jnp.ones((3, 8, 8)))
    text = jax.jit(run).lower(*shapes).compile().as_text()
    module = read_module(text)
    opcodes = {
        instruction.opcode
        for computation in module.computations.values()
        for instruction in computation.instructions.values()
    }
    assert {"parameter", "while", "tuple"} <= opcodes
