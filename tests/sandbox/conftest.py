"""A sandbox behind each kind of walls."""

import pytest

from seedjax.errors import InputError
from seedjax.sandbox.containment import landlock, launch
from seedjax.sandbox.sandbox import Limits, Sandbox

# By default behind the best walls of this machine. "bare rlimits" is without even
# Landlock: the same limits once more.
KINDS = [
    "auto",
    *(pytest.param(k, marks=pytest.mark.slow) for k in (*launch.KINDS, "bare rlimits")),
]


@pytest.fixture(scope="module", params=KINDS)
def sandbox(request):
    """Four workers behind each kind of walls that this machine can put up; the last is
    what a kernel without Landlock leaves."""
    kind, patch = request.param.split()[-1], pytest.MonkeyPatch()
    if request.param == "bare rlimits":
        if landlock.version() == 0:
            pytest.skip("this kernel has no Landlock: the same as rlimits")
        patch.setattr(landlock, "version", lambda: 0)
    try:
        seconds = getattr(request.module, "WALL_SECONDS", 10.0)
        limits = Limits(wall_seconds=seconds, memory_bytes=128 << 20)
        with Sandbox(4, limits, kind) as opened:
            yield opened
    except InputError as fault:
        pytest.skip(str(fault))
    finally:
        patch.undo()
