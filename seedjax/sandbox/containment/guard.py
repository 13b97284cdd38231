"""A process that stays outside of limits where there are no walls, and cleans up:

    python -m seedjax.sandbox.containment.guard folder command argument ...

The command is the untrusted side's first process. When it has ended, by itself or by a
program, or when SIGTERM comes, everything that is left below it is ended, and `folder`
is removed. Walls need no such guard: what is inside them ends with their first process.
"""

import os
import signal
import sys
from typing import NoReturn

from seedjax.sandbox.containment.family import kill_family
from seedjax.sandbox.containment.rights import empty
from seedjax.sandbox.containment.warm_process import (
    SET_CHILD_SUBREAPER,
    SET_DUMPABLE,
    SET_PARENT_DEATH_SIGNAL,
    control_process,
)


def main() -> NoReturn:
    folder, command = sys.argv[1], sys.argv[2:]
    control_process(SET_DUMPABLE, 0)
    control_process(SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        child = os.fork()
        if child == 0:
            control_process(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.execv(command[0], command)
        os.close(0)  # its end is to be seen
        os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_family(set())
        empty(folder)
        os.rmdir(folder)
        os._exit(0)


if __name__ == "__main__":
    main()
