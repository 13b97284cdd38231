"""Processes that were forked from one in which JAX runs. A fork has none of the threads
that JAX counts on, and would wait for them for ever.

What touches a device calls `require_threads`; a fork of such a process is refused.
"""

import os

from seedjax.errors import InputError

_jax_runs = False
_is_fork = False


def require_threads() -> None:
    """Notes that this process uses JAX.

    Raises:
      InputError: if it was forked from one that did.
    """
    global _jax_runs
    if _is_fork:
        raise InputError(
            "this process was forked from one that used JAX, which cannot go on in a "
            "fork; start it with multiprocessing.get_context('spawn') and load the "
            "model there"
        )
    _jax_runs = True


def _note_fork() -> None:
    global _is_fork
    _is_fork = _is_fork or _jax_runs


os.register_at_fork(after_in_child=_note_fork)
