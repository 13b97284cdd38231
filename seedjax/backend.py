"""Whether JAX can be used in this process.

A fork has none of the threads that JAX counts on, and would wait for them for ever. And
`JAX_PLATFORMS` may name what is not here, which JAX finds out with a traceback. What
touches a device calls `require_backend` first.
"""

import os

from seedjax.errors import InputError

_jax_runs = False
_is_fork = False


def require_backend() -> None:
    """Starts JAX, if it does not run yet.

    Raises:
      InputError: if JAX has none of the platforms that it was configured to use, or
        this process was forked from one that used JAX.
    """
    global _jax_runs
    if _is_fork:
        raise InputError(
            "this process was forked from one that used JAX, which cannot go on in a "
            "fork; start it with multiprocessing.get_context('spawn') and load the "
            "model there"
        )
    if _jax_runs:
        return
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # of an unknown one, a missing one
        platforms = jax.config.values["jax_platforms"]
        if not platforms:
            raise
        reason = " ".join(str(error).split("(set")[0].split()).rstrip(".")
        detail = f" ({reason[:200]})" if reason else ""
        raise InputError(
            f"JAX cannot start: JAX_PLATFORMS is {platforms!r}, which is not here"
            f"{detail}; unset it, or name what is here, such as cpu"
        ) from None
    _jax_runs = True


def _note_fork() -> None:
    global _is_fork
    _is_fork = _is_fork or _jax_runs


os.register_at_fork(after_in_child=_note_fork)
