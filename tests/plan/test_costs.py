"""Counts of hand-written programs, in which every byte is known."""

import jax
import jax.numpy as jnp
import pytest

from seedjax.plan.costs import (
    Collective,
    Move,
    argument_sizes,
    cost_of,
    first_group,
)
from seedjax.plan.hlo import read_module

WHOLE, ROW = 8 * 128 * 4, 128 * 4  # bytes of f32[8,128] and f32[1,128]

# A scan over three kernels of [16, 64] bf16 (2048 bytes each) in two loops: one of
# three turns, within one whose length depends on the data.
NEST = """\
HloModule nest, is_scheduled=true

%slice_product (p.0: bf16[3,16,64], p.1: s32[], p.2: bf16[4,64]) -> bf16[4,16] {
  %p.0 = bf16[3,16,64]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %cut = bf16[1,16,64]{2,1,0} dynamic-slice(%p.0, %p.1, %zero, %zero)
  %flat = bf16[16,64]{1,0} bitcast(%cut)
  %p.2 = bf16[4,64]{1,0:S(1)} parameter(2)
  ROOT %out = bf16[4,16]{1,0:S(1)} convolution(%p.2, %flat), dim_labels=bf_oi->bf
}

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %s = f32[] add(%x, %y)
}

%layer (state: STATE) -> STATE {
  %state = STATE parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %h = bf16[4,64]{1,0:S(1)} get-tuple-element(%state), index=1
  %w = bf16[3,16,64]{2,1,0} get-tuple-element(%state), index=2
  %y = bf16[4,16]{1,0:S(1)} fusion(%w, %i, %h), kind=kOutput, calls=%slice_product
  %all = bf16[4,64]{1,0:S(1)} all-gather(%y), dimensions={1}
  ROOT %next = STATE tuple(%i, %all, %w)
}

%below_three (state.1: STATE) -> pred[] {
  %state.1 = STATE parameter(0)
  %three = s32[] constant(3)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %lt = pred[] compare(%i.1, %three), direction=LT
}

%step (carry: STATE) -> STATE {
  %carry = STATE parameter(0)
  %ran = STATE while(%carry), condition=%below_three, body=%layer
  %w.1 = bf16[3,16,64]{2,1,0} get-tuple-element(%ran), index=2
  %turned = bf16[3,64,16]{2,1,0} transpose(%w.1), dimensions={0,2,1}
  ROOT %again = STATE tuple(%carry)
}

%undecided (carry.1: STATE) -> pred[] {
  %carry.1 = STATE parameter(0)
  %i.2 = s32[] get-tuple-element(%carry.1), index=0
  %last = s32[] constant(9)
  %more = pred[] compare(%i.2, %last), direction=LT
  ROOT %both = pred[] and(%more, %more)
}

ENTRY %main (h.0: bf16[4,64], w.0: bf16[3,16,64]) -> bf16[4,64] {
  %h.0 = bf16[4,64]{1,0} parameter(0), metadata={op_name="tokens"}
  %w.0 = bf16[3,16,64]{2,1,0} parameter(1), metadata={op_name="params[\\'w\\']"}
  %start = (bf16[4,64]{1,0:S(1)}, bf16[4,64]{1,0}, u32[]{:S(2)}) copy-start(%h.0)
  %done = bf16[4,64]{1,0:S(1)} copy-done(%start)
  %none = s32[] constant(0)
  %init = STATE tuple(%none, %done, %w.0)
  %loop = STATE while(%init), condition=%undecided, body=%step
  ROOT %result = bf16[4,64]{1,0:S(1)} get-tuple-element(%loop), index=1
}
""".replace("STATE", "(s32[], bf16[4,64]{1,0:S(1)}, bf16[3,16,64]{2,1,0})")


def test_loops_are_counted_as_often_as_they_run():
    cost = cost_of(read_module(NEST), least_move=1024)
    # Outside the loop only the prefetch of the tokens touches HBM, once.
    assert cost.hbm_bytes == 4 * 64 * 2
    (step,) = cost.loops
    assert step.loops == []
    # Three slices of the kernels, then all of them read and written by the transpose.
    kernels = 3 * 16 * 64 * 2
    assert step.reads == {"params['w']": 2 * kernels}
    scalars = step.hbm_bytes - 3 * kernels
    assert 0 <= scalars < 64  # loop counters, four bytes at a time


def test_collectives_are_counted_as_often_as_they_run():
    cost = cost_of(read_module(NEST))
    gathers = Collective(operation="all-gather", count=3, num_bytes=3 * 4 * 64 * 2)
    assert cost.collectives == {}
    assert cost.loops[0].collectives == {("all-gather", ()): gathers}


ASYNCHRONOUS = """\
HloModule m

%start (start.a: f32[1,64]) -> f32[8,64] {
  %start.a = f32[1,64]{1,0} parameter(0)
  ROOT %start.b = f32[8,64]{1,0} all-gather(%start.a), channel_id=24, dimensions={0}
}

%done (done.a: f32[1,64]) -> f32[8,64] {
  %done.a = f32[1,64]{1,0} parameter(0)
  ROOT %done.b = f32[8,64]{1,0} all-gather(%done.a), channel_id=24, dimensions={0}
}

ENTRY %main (a: f32[1,64]) -> f32[8,64] {
  %a = f32[1,64]{1,0} parameter(0), metadata={op_name="a"}
  %async-start = f32[8,64]{1,0} fusion(%a), kind=kCustom, calls=%start
  ROOT %async-done = f32[8,64]{1,0} fusion(%a), kind=kCustom, calls=%done
}
"""


def test_an_asynchronous_collective_counts_once():
    """A TPU's compiler writes it into every stage of its fusion, on one channel."""
    cost = cost_of(read_module(ASYNCHRONOUS))
    gather = Collective(operation="all-gather", count=1, num_bytes=8 * 64 * 4)
    assert cost.collectives == {("all-gather", ()): gather}


SCATTERS = """\
HloModule m

%all-reduce-scatter.1 (input: f32[4,64]) -> f32[2,64] {
  %input = f32[4,64]{1,0} parameter(0)
  %sum = f32[4,64]{1,0} all-reduce(%input), channel_id=5, replica_groups={{0,1},{2,3}}
  %id = u32[] partition-id()
  ROOT %slice = f32[2,64]{1,0} dynamic-slice(%sum, %id), dynamic_slice_sizes={2,64}
}

ENTRY %main (a: f32[4,64]) -> f32[2,64] {
  %a = f32[4,64]{1,0} parameter(0), metadata={op_name="a"}
  %b = f32[2,64]{1,0} reduce-scatter(%a), channel_id=1, replica_groups={{0,1},{2,3}}
  %c = f32[2,64]{1,0} reduce-scatter(%a), channel_id=1, replica_groups={{0,1},{2,3}}
  ROOT %d = f32[2,64]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_sums_of_which_a_device_keeps_a_slice_are_scattered():
    """Two on the channel that `shard_map` gives all of them, and a TPU's fused one."""
    cost = cost_of(read_module(SCATTERS))
    scatter = Collective(
        operation="reduce-scatter", group=(0, 1), count=3, num_bytes=3 * 2 * 64 * 4
    )
    assert cost.collectives == {("reduce-scatter", (0, 1)): scatter}


@pytest.mark.parametrize(
    ("attributes", "group"),
    [
        ("channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}", (0, 1)),
        ("replica_groups=[2,4]<=[8], use_global_device_ids=true", (0, 1, 2, 3)),
        ("replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}", (0, 2, 4, 6)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, dimensions={0}", (0, 4)),
        ("replica_groups=mesh['a'=1,'b'=4] {'b'}", (0, 1, 2, 3)),
        ("source_target_pairs={{3,0},{0,1}}", (3, 0)),
        ("dimensions={0}", ()),
    ],
)
def test_groups_of_collectives_in_each_of_their_forms(attributes, group):
    assert first_group(attributes) == group


@pytest.mark.parametrize(
    ("operation", "result", "sent"),
    [
        ("all-gather", 800, 700),  # seven parts of 100 go past each device
        ("reduce-scatter", 100, 700),
        ("all-reduce", 800, 1400),  # a scatter and a gather
        ("collective-permute", 100, 100),
    ],
)
def test_what_a_device_sends_around_a_ring_of_eight(operation, result, sent):
    ring = Collective(
        operation=operation, group=tuple(range(8)), count=1, num_bytes=result
    )
    assert ring.sent_bytes == sent


CHOICE = """\
HloModule m

%few (few.a: f32[8,128]) -> f32[1,128] {
  %few.a = f32[8,128]{1,0} parameter(0)
  ROOT %few.b = f32[1,128]{1,0} slice(%few.a), slice={[0:1],[0:128]}
}

%many (many.a: f32[8,128]) -> f32[1,128] {
  %many.a = f32[8,128]{1,0} parameter(0)
  %many.b = f32[8,128]{0,1} copy(%many.a)
  ROOT %many.c = f32[1,128]{1,0} slice(%many.b), slice={[0:1],[0:128]}
}

ENTRY %main (a: f32[8,128], i: s32[]) -> f32[1,128] {
  %a = f32[8,128]{1,0} parameter(0), metadata={op_name="a"}
  %i = s32[]{:S(2)} parameter(1)
  %r = f32[1,128]{1,0} conditional(%i, %a, %a), branch_computations={%few, %many}
  ROOT %n = f32[1,128]{1,0} negate(%r)
}
"""


def test_of_a_choice_the_larger_branch_counts():
    cost = cost_of(read_module(CHOICE), least_move=1024)
    assert cost.reads == {"a": WHOLE}
    assert cost.hbm_bytes == 2 * WHOLE + 2 * ROW + 2 * ROW
    assert cost.moves == [Move("copy", "a", WHOLE)]


def test_transposed_weights_are_found():
    kernels = 3 * 16 * 64 * 2
    wanted = [Move("transpose", "params['w']", kernels)]
    assert cost_of(read_module(NEST), least_move=1024).loops[0].moves == wanted
    assert cost_of(read_module(NEST), least_move=kernels + 1).loops[0].moves == []


def test_prefetches_are_kept_apart():
    cost = cost_of(read_module(NEST), least_move=512)
    assert cost.moves == []
    assert cost.staged == [Move("copy", "tokens", 512)]


def test_arguments_have_names_and_sizes():
    sizes = argument_sizes(read_module(NEST))
    assert sizes == {"tokens": 512, "params['w']": 6144}


def entry(*lines: str, parameters: str = "a: f32[8,128]") -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"HloModule m\n\nENTRY %main ({parameters}) -> f32[] {{\n{body}}}\n"


A = '%a = f32[8,128]{1,0} parameter(0), metadata={op_name="a"}'


@pytest.mark.parametrize(
    ("lines", "num_bytes"),
    [
        # Every operand is read, the result written.
        (["ROOT %b = f32[8,128]{1,0} add(%a, %a)"], 3 * WHOLE),
        (["ROOT %b = f32[8,128]{1,0:S(1)} negate(%a)"], WHOLE),
        # A slice reads and writes what it cuts; a bitcast nothing.
        (["ROOT %b = f32[1,128]{1,0} slice(%a), slice={[2:3],[0:128]}"], 2 * ROW),
        (["ROOT %b = f32[1024]{0} bitcast(%a)"], 0),
        # An update in place reads and writes the update.
        (
            [
                "%r = f32[1,128]{1,0} constant({...})",
                "%i = s32[]{:S(2)} constant(0)",
                "ROOT %b = f32[8,128]{1,0} dynamic-update-slice(%a, %r, %i, %i)",
            ],
            2 * ROW,
        ),
        # Half of a pair: what is cut, not what it is cut from.
        (
            [
                "%s = ((f32[8,128]{1,0}), f32[1,128]{1,0:S(1)}, s32[]{:S(2)}) "
                "slice-start(%a), slice={[0:1], [0:128]}",
                "ROOT %b = f32[1,128]{1,0:S(1)} slice-done(%s)",
            ],
            ROW,
        ),
        (
            [
                "%b = f32[8,128]{1,0} custom-call(), "
                'custom_call_target="AllocateBuffer"',
                'ROOT %c = f32[8,128]{1,0} custom-call(%a), custom_call_target="f"',
            ],
            2 * WHOLE,
        ),
    ],
    ids=["add", "on_chip", "slice", "bitcast", "update", "pair", "custom_call"],
)
def test_bytes_of_an_instruction(lines, num_bytes):
    assert cost_of(read_module(entry(A, *lines))).hbm_bytes == num_bytes


FUSED = """\
HloModule m

%inner (q: s8[4,8,128], i: s32[]) -> bf16[8,128] {
  %q = s8[4,8,128]{2,1,0} parameter(0)
  %wide = bf16[4,8,128]{2,1,0} convert(%q)
  %i = s32[] parameter(1)
  %cut = bf16[1,8,128]{2,1,0} dynamic-slice(%wide, %i, %i, %i)
  ROOT %out = bf16[8,128]{1,0} bitcast(%cut)
}

%outer (q.1: s8[4,8,128], i.1: s32[], x: bf16[4,128]) -> f32[4,8] {
  %q.1 = s8[4,8,128]{2,1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %w = bf16[8,128]{1,0} fusion(%q.1, %i.1), kind=kLoop, calls=%inner
  %x = bf16[4,128]{1,0:S(1)} parameter(2)
  ROOT %y = f32[4,8]{1,0:S(1)} convolution(%x, %w), dim_labels=bf_oi->bf
}

ENTRY %main (q.2: s8[4,8,128], i.2: s32[], x.2: bf16[4,128]) -> f32[4,8] {
  %q.2 = s8[4,8,128]{2,1,0} parameter(0), metadata={op_name="params"}
  %i.2 = s32[]{:S(2)} parameter(1), metadata={op_name="i"}
  %x.2 = bf16[4,128]{1,0:S(1)} parameter(2), metadata={op_name="x"}
  ROOT %y.2 = f32[4,8]{1,0:S(1)} fusion(%q.2, %i.2, %x.2), kind=kOutput, calls=%outer
}
"""


def test_a_slice_is_read_through_what_is_fused_with_it():
    """The cast comes before the cut, but only what is cut is cast."""
    cost = cost_of(read_module(FUSED))
    assert cost.reads == {"params": 8 * 128}
    assert cost.hbm_bytes == 8 * 128


def test_copies_by_a_fusion_are_found():
    copying = FUSED.replace(
        "ROOT %y = f32[4,8]{1,0:S(1)} convolution(%x, %w), dim_labels=bf_oi->bf",
        "ROOT %y = bf16[8,128]{1,0} copy(%w)",
    ).replace("ROOT %y.2 = f32[4,8]{1,0:S(1)}", "ROOT %y.2 = bf16[8,128]{1,0}")
    cost = cost_of(read_module(copying), least_move=1024)
    (move,) = cost.moves
    assert (move.argument, move.num_bytes) == ("params", 8 * 128 * 2)
    assert cost_of(read_module(FUSED), least_move=1).moves == []


@pytest.mark.parametrize(
    "line",
    [
        "ROOT %b = token[] outfeed(%a, %a)",
        "ROOT %b = (f32[8,128]{1,0}, u32[], token[]) send(%a, %a), channel_id=1",
        'ROOT %b = f32[] custom-call(%a), custom_call_target="xla_python_cpu_callback"',
        'ROOT %b = f32[] custom-call(%a), custom_call_target="MoveToHost"',
    ],
)
def test_host_transfers_are_found(line):
    assert len(cost_of(read_module(entry(A, line))).host_transfers) == 1


def test_a_callback_in_a_real_loop_is_found():
    def body(i, x):
        jax.debug.callback(lambda x: None, x)
        return x + 1.0

    def run(x, turns):
        return jax.lax.fori_loop(0, turns, body, x)

    text = jax.jit(run).lower(jnp.float32(0.0), jnp.int32(3)).compile().as_text()
    cost = cost_of(read_module(text))
    assert cost.host_transfers == []
    assert len(cost.loops[0].host_transfers) == 1


def test_agrees_with_xla_where_nothing_loops():
    """XLA's own count of a program without loops and slices is the same number."""

    def run(x, up, down):
        return jax.nn.relu(x @ up) @ down

    shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((8, 32), (32, 64), (64, 32))]
    compiled = jax.jit(run).lower(*shapes).compile()
    counted = cost_of(read_module(compiled.as_text())).hbm_bytes
    assert counted == pytest.approx(
        compiled.cost_analysis()["bytes accessed"], rel=0.02
    )


def test_a_scan_reads_its_weights_once():
    def body(carry, kernel):
        return jnp.tanh(carry @ kernel), None

    def run(x, kernels):
        return jax.lax.scan(body, x, kernels)[0]

    shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((4, 64), (5, 64, 64))]
    compiled = jax.jit(run).lower(*shapes).compile()
    module = read_module(compiled.as_text())
    assert cost_of(module).reads["kernels"] == argument_sizes(module)["kernels"]


IN_PLACE = """\
HloModule m

%inner (old: f32[8,128], new: f32[1,128], i: s32[]) -> f32[8,128] {
  %old = f32[8,128]{1,0} parameter(0)
  %new = f32[1,128]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %put = f32[8,128]{1,0} dynamic-update-slice(%old, %new, %i, %i)
}

%outer (old.1: f32[8,128], new.1: f32[1,128], i.1: s32[]) -> f32[1024] {
  %old.1 = f32[8,128]{1,0} parameter(0)
  %new.1 = f32[1,128]{1,0} parameter(1)
  %i.1 = s32[] parameter(2)
  %put.1 = f32[8,128]{1,0} fusion(%old.1, %new.1, %i.1), kind=kLoop, calls=%inner
  ROOT %flat = f32[1024]{0} bitcast(%put.1)
}

ENTRY %main (old.2: f32[8,128], new.2: f32[1,128], i.2: s32[]) -> f32[1024] {
  %old.2 = f32[8,128]{1,0} parameter(0), metadata={op_name="cache"}
  %new.2 = f32[1,128]{1,0} parameter(1), metadata={op_name="entry"}
  %i.2 = s32[]{:S(2)} parameter(2)
  ROOT %flat.2 = f32[1024]{0} fusion(%old.2, %new.2, %i.2), kind=kLoop, calls=%outer
}
"""


def test_an_update_that_is_fused_is_still_in_place():
    cost = cost_of(read_module(IN_PLACE))
    assert cost.reads == {"entry": ROW}
    assert cost.hbm_bytes == 2 * ROW
    # What changes the result makes a new array of it, from all of the old one.
    fresh = IN_PLACE.replace("bitcast(%put.1)", "negate(%put.1)")
    assert cost_of(read_module(fresh)).reads == {"cache": WHOLE, "entry": ROW}
