"""`nn.denoiser` as compiled programs: one to compile where operation by operation there
would be a hundred small ones."""

import jax

from seedjax.nn import denoiser

init = jax.jit(denoiser.init, static_argnames="config")
hidden_states = jax.jit(
    denoiser.hidden_states, static_argnames=("config", "cache_in_front", "noisy")
)
logits = jax.jit(denoiser.logits, static_argnames="config")


def on_host(function, *static: str):
    """`function` as one program a set of `static` arguments, whose results are NumPy
    arrays: comparing them compiles nothing."""
    program = jax.jit(function, static_argnames=static)
    return lambda *given, **named: jax.device_get(program(*given, **named))
