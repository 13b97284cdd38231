"""The compiled programs of a model: whole completions, or one piece at a time.

    model, recipe, shapes ─▶ Programs ─▶ generate   a canvas to its completions
                                         start      a canvas to the state before turn 0
                                         advance    a state to the next one

`jax.jit` keeps programs too, but forgets none, does not say what compiling took, and
cannot take a program from a file: `Programs` does these three, over the same arguments.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, get_abstract_mesh

from seedjax.backend import require_backend
from seedjax.config import DenoiserConfig
from seedjax.inference.generation import Seeds
from seedjax.inference.recent import Recent
from seedjax.inference.stored_programs import load_or_compile, program_key
from seedjax.sampling import loop
from seedjax.sampling.arguments import integer, seed_array
from seedjax.sampling.axes import decode_axes
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.loop import DecodeResult
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.state import DecodeState
from seedjax.sampling.trace import TraceStep
from seedjax.sharding import mesh_of, tree_shardings
from seedjax.typing import Array, Params

OnBlock = Callable[[list[TraceStep]], None]
"""Called with the denoising steps of each block, as it is finished."""


class Programs:
    """The compiled programs of one model.

    Attributes:
      announce: called with the current activity when that changes.
    """

    def __init__(self, limit: int | None = None) -> None:
        """Keeps the `limit` programs that were used last; None keeps all.

        Raises:
          InputError: for a limit that is no number of at least 1.
        """
        if limit is not None:
            limit = integer(limit, "max_programs", least=1)
        self._compiled: Recent[Any, Callable] = Recent(limit)
        self.announce: Callable[[str], None] = lambda text: None

    def __len__(self) -> int:
        return len(self._compiled)

    def compiled(
        self,
        function: Callable,
        params: Params,
        config: DenoiserConfig,
        sampler: SamplerConfig,
        *arguments: Any,
        donate: str | None = None,
    ) -> tuple[Callable, float]:
        """`function(params, config, sampler, *arguments)`, compiled, for arguments of
        these shapes, dtypes and shardings. Where the parameters lie on a mesh, it runs
        on that, and what it gives lies as `decode_axes` says.

        Args:
          function: a pure function of a module's level.
          params: the model's, as are all later ones.
          config: the same each time.
          sampler: the recipe.
          *arguments: trees of arrays.
          donate: name of the argument whose memory the result may take.

        Returns:
          The program, which takes `params` and `arguments`, and the seconds that
          compiling it took now: 0 if it was there.

        Raises:
          InputError: in a process that was forked from one that used JAX.
        """
        require_backend()
        if (mesh := mesh_of(params)) is None:
            mesh_scope: Any = contextlib.nullcontext()
        else:
            mesh_scope = jax.set_mesh(mesh)
        with mesh_scope:
            return self._compiled_here(
                function, params, config, sampler, *arguments, donate=donate, mesh=mesh
            )

    def _compiled_here(
        self,
        function: Callable,
        params: Params,
        config: DenoiserConfig,
        sampler: SamplerConfig,
        *arguments: Any,
        donate: str | None,
        mesh: Mesh | None,
    ) -> tuple[Callable, float]:
        # The canvas holds the budget; budgets that make one canvas share a program.
        sampler = sampler.without_budget()
        leaves, tree = jax.tree.flatten(arguments)
        types = tuple((jax.typeof(leaf), leaf.sharding) for leaf in leaves)
        name = (function, sampler, tree, types, get_abstract_mesh(), donate)
        if name in self._compiled:
            return self._compiled[name], 0.0
        self.announce("compiling (first time for this shape)")
        began = time.perf_counter()
        # JAX keeps what it compiled of a function as long as there is the function: one
        # of its own goes with its program.
        owned = self._compiled.limit is not None
        owned_function = functools.partial(function) if owned else function
        options: dict[str, Any] = {"static_argnames": ("config", "sampler")}
        options |= {"donate_argnames": donate}
        jitted = jax.jit(owned_function, **options)
        if mesh is not None:
            abstract = jitted.eval_shape(params, config, sampler, *arguments)
            shardings = tree_shardings(mesh, decode_axes(abstract), abstract)
            jitted = jax.jit(owned_function, out_shardings=shardings, **options)
        program = self._compiled[name] = load_or_compile(
            program_key(function, donate, (config, sampler), (params, arguments)),
            lambda: jitted.lower(params, config, sampler, *arguments).compile(),
        )
        self.announce("decoding")
        return program, time.perf_counter() - began


def place(tree: Any, mesh: Mesh | None) -> Any:
    """A canvas or slots, laid out on a mesh; unchanged where there is none."""
    if mesh is None:
        return tree
    return jax.device_put(tree, tree_shardings(mesh, decode_axes(tree), tree))


def make(mesh: Mesh | None, function: Callable, *recipe: Any) -> Any:
    """`function(*recipe)` of static arguments, compiled, laid out on a mesh, if there
    is one."""
    static = tuple(range(len(recipe)))
    if mesh is None:
        return jax.jit(function, static_argnums=static)(*recipe)
    with jax.set_mesh(mesh):
        abstract = jax.jit(function, static_argnums=static).eval_shape(*recipe)
        shardings = tree_shardings(mesh, decode_axes(abstract), abstract)
        laid_out = jax.jit(function, static_argnums=static, out_shardings=shardings)
        return laid_out(*recipe)


def row_keys(seed: Array, num_rows: int) -> Array:
    """A key per row: of its own seed, or of its number under the seed of all rows."""
    if seed.ndim:
        return jax.vmap(jax.random.key)(seed)
    return loop.row_keys(jax.random.key(seed), num_rows)


def generate(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    seed: Array,
) -> DecodeResult:
    """The completions of a canvas, whole."""
    keys = row_keys(seed, canvas.tokens.shape[0])
    return loop.generate(params, config, sampler, canvas, keys)


def start(
    params: Params, config: DenoiserConfig, sampler: SamplerConfig, canvas: Canvas
) -> DecodeState:
    """The state before the first turn."""
    return loop.start(params, config, sampler, canvas)


def advance(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    seed: Array,
    state: DecodeState,
) -> tuple[DecodeState, DecodeResult]:
    """The state after one more piece, and the completions so far."""
    keys = row_keys(seed, canvas.tokens.shape[0])
    state = loop.advance(params, config, sampler, canvas, keys, state)
    return state, loop.finish(config, canvas, state)


def decode_by_blocks(
    start: Callable[[], DecodeState],
    advance: Callable[[DecodeState], tuple[DecodeState, DecodeResult, float]],
    read_steps: Callable[[DecodeResult], list[TraceStep]],
    on_block: OnBlock,
) -> tuple[DecodeResult, float, float]:
    """Decodes block by block and hands out each block's steps as it is finished.

    Args:
      start: gives the state before the first block.
      advance: the next state, the result so far, and the seconds of compiling.
      read_steps: all denoising steps of a result.
      on_block: called with the steps of each block.

    Returns:
      The result, the seconds of compiling and those of decoding; those of `on_block`
      are in neither.
    """
    began = time.perf_counter()
    state = jax.block_until_ready(start())
    decoding, compiling, shown = time.perf_counter() - began, 0.0, 0
    while True:
        began = time.perf_counter()
        state, result, now = advance(state)
        steps, is_done = read_steps(result), bool(state.done.all())
        decoding += time.perf_counter() - began - now
        compiling += now
        on_block(steps[shown:])
        shown = len(steps)
        if is_done:
            return result, compiling, decoding


def key_of_seed(seed: int) -> Array:
    """The random key of a row with a seed of its own, as `keys_of_rows`, sooner.

    Raises:
      InputError: in a process that was forked from one that used JAX.
    """
    require_backend()
    return _key(np.uint32(seed))


@jax.jit
def _key(seed: Array) -> Array:
    return row_keys(seed[None], 1)[0]


def keys_of_rows(seed: Seeds, num_rows: int) -> Array:
    """The random key of each row: what its draws depend on.

    Raises:
      InputError: for a seed that is none, or more or fewer seeds than rows; in a
        process that was forked from one that used JAX.
    """
    require_backend()
    return row_keys(seed_array(seed, num_rows), num_rows)
