"""Several processes that are one JAX program: how they meet, and how they end.

    with together(coordinator="10.0.0.1:1234", count=4, index=0):
        train(...)

Every process runs the same code; the first one (`is_first`) alone writes files and
prints. They meet through JAX's coordination service, which the first process hosts. Its
key-value store is also how they agree (`Board`), how a fault of one is made known to
all, and how one that died is noticed: a thread of each process keeps a counter going.
Without that, a process whose peer is gone waits in a collective for ever.

Nothing here touches a device, and nothing does before `together`.
"""

import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedjax.board import CERTAIN_S, HEARTBEAT_S, Board, end
from seedjax.errors import InputError, RefusedError

MEET_S = 25.0  # until all processes must have met that were started by hand
MEET_CLUSTER_S = 300.0  # ... by a launcher: a cluster's hosts start minutes apart

_board: Board | None = None


def is_first() -> bool:
    """Whether this is the process that writes files and prints: the only one, or number
    0 of several. Also true to what called `jax.distributed.initialize` itself."""
    return process_index() == 0


def process_index() -> int:
    """The number of this process, from 0, without starting a device."""
    return _state().process_id if _is_one_of_many() else 0


def process_count() -> int:
    """How many processes there are, without starting a device."""
    return _state().num_processes if _is_one_of_many() else 1


def _is_one_of_many() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _state() -> Any:
    from jax._src import distributed  # its client has no public name

    return distributed.global_state


@dataclass(frozen=True)
class Meeting:
    """Where processes meet.

    Attributes:
      coordinator: "HOST:PORT", where process 0 listens.
      count: number of processes.
      index: of this one, from 0.
      devices: numbers of the local devices that this one takes; None for all.
      limit_s: seconds after which all must have met.
    """

    coordinator: str
    count: int
    index: int
    devices: list[int] | None = None
    limit_s: float = MEET_CLUSTER_S


def find_meeting(
    coordinator: str = "",
    count: int | None = None,
    index: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Meeting | None:
    """Where to meet, from arguments, or else from what started this process: Slurm
    (`srun`), Open MPI, a Cloud TPU slice, or the variables JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID (in an indexed Job or a JobSet of Kubernetes:
    JOB_COMPLETION_INDEX). None for a process by itself.

    Raises:
      InputError: if something is missing or out of range.
    """
    found, by_hand = _found(environment), coordinator != ""
    if not (by_hand or count or index is not None) and found is None:
        return None
    found = found or Meeting("", 0, -1)
    coordinator = coordinator or found.coordinator
    count = found.count if count is None else count
    index = found.index if index is None else index
    missing = {
        "--coordinator HOST:PORT": not coordinator,
        "--processes N": count == 0,
        "--process-index I": index < 0,
    }
    if any(missing.values()):
        names = " and ".join(name for name, lacks in missing.items() if lacks)
        raise InputError(
            f"several processes are to meet, but {names} is missing; give it to each "
            "of them, --process-index from 0"
        )
    if not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise InputError(
            f"--coordinator is {coordinator!r}; it must be HOST:PORT of process 0, "
            "such as 10.0.0.1:1234"
        )
    if not 0 <= index < count:
        raise InputError(
            f"--process-index is {index}; with --processes {count} it must be from 0 "
            f"to {count - 1}"
        )
    limit = MEET_S if by_hand else MEET_CLUSTER_S
    if count == 1:
        return None
    return Meeting(coordinator, count, index, found.devices, limit)


def _found(environment: Mapping[str, str]) -> Meeting | None:
    """A launcher's settings in the environment; parts it leaves out are empty."""

    def number(*names: str, default: int) -> int:
        values = [environment[name] for name in names if name in environment]
        return int(values[0]) if values and values[0].isdecimal() else default

    address = environment.get("JAX_COORDINATOR_ADDRESS", "")
    if address and "JAX_NUM_PROCESSES" in environment:
        index = number("JAX_PROCESS_ID", "JOB_COMPLETION_INDEX", default=-1)
        return Meeting(address, number("JAX_NUM_PROCESSES", default=0), index)
    tasks = number("SLURM_STEP_NUM_TASKS", default=1)
    if tasks > 1 and "SLURM_STEP_NODELIST" in environment:
        nodes = number("SLURM_STEP_NUM_NODES", default=1)
        local = number("SLURM_LOCALID", default=0)
        visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
        # Several tasks of a node that all see its GPUs take one each.
        devices = [local] if tasks > nodes and len(visible) > 1 else None
        address = address or _coordinator_of("slurm")
        return Meeting(address, tasks, number("SLURM_PROCID", default=-1), devices)
    ranks = number("OMPI_COMM_WORLD_SIZE", default=1)
    if ranks > 1:
        if "OMPI_MCA_orte_hnp_uri" in environment:  # Open MPI 5 has none
            address = address or _coordinator_of("ompi")
        return Meeting(address, ranks, number("OMPI_COMM_WORLD_RANK", default=-1))
    return _found_tpu(environment)


def _found_tpu(environment: Mapping[str, str]) -> Meeting | None:
    names = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    # It may hold a warning in place of names.
    on_kubernetes = len(names) > 1 and all(re.fullmatch(r"[\w.:-]+", n) for n in names)
    if not on_kubernetes and "TPU_SKIP_MDS_QUERY" in environment:
        return None
    from jax._src import cloud_tpu_init  # true only where there are TPU chips

    if not cloud_tpu_init.running_in_cloud_tpu_vm:
        return None
    kind = "gketpu" if on_kubernetes else "gcetpu"
    cluster = _cluster(kind)
    try:
        if not cluster.is_env_present():
            return None
        count, index = cluster.get_process_count(), cluster.get_process_id()
        address = _coordinator_of(kind) if count > 1 else "localhost:0"
    except Exception as error:  # whatever asking a metadata server raises
        raise InputError(
            f"this is a TPU host, but its slice is unknown ({type(error).__name__}: "
            f"{error}); give --coordinator, --processes and --process-index"
        ) from error
    return Meeting(address, count, index)


def _cluster(name: str) -> Any:
    from jax._src.clusters import ClusterEnv  # what `initialize` detects with

    return next(kind for kind in ClusterEnv._cluster_types if kind.name == name)


def _coordinator_of(name: str) -> str:
    port = os.environ.get("JAX_COORDINATOR_PORT")
    return _cluster(name).get_coordinator_address(
        timeout_secs=int(MEET_CLUSTER_S), override_coordinator_port=port
    )


@contextlib.contextmanager
def together(
    coordinator: str = "", count: int | None = None, index: int | None = None
) -> Iterator[None]:
    """Joins the other processes for as long as the block lasts; does nothing for a
    process by itself. Arguments as for `find_meeting`.

    A block that raises ends all processes: each says why in one line on standard error,
    with the exit code of `InputError` or 1.

    Raises:
      InputError: if the processes have not met in time.
    """
    meeting = find_meeting(coordinator, count, index)
    if meeting is None or _is_one_of_many():
        yield
        return
    board = _meet(meeting)
    try:
        yield
    except BaseException as error:
        if _may_be_of_another(error):
            time.sleep(CERTAIN_S)  # by then the board has ended this process
        board.fail(*_fault_of(error))
        raise
    board.finish()
    global _board
    _board = None


def _fault_of(error: BaseException) -> tuple[int, str]:
    """The exit code of an error and its text, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError | RefusedError):
        return error.exit_code, text
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        return code, f"left with exit code {code}"
    return 1, f"{type(error).__name__}: {text}"


def _may_be_of_another(error: BaseException) -> bool:
    """Whether an error may come of another process's end."""
    if isinstance(error, InputError | RefusedError | KeyboardInterrupt | SystemExit):
        return False
    words = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Barrier")
    return any(word in str(error) for word in words)


def _meet(meeting: Meeting) -> Board:
    global _board
    import jax

    host, _, port = meeting.coordinator.rpartition(":")
    began = time.monotonic()
    if meeting.index:
        _wait_for_listener(host.strip("[]"), int(port), meeting)

    def give_up() -> None:
        end(
            f"after {meeting.limit_s:.0f} s fewer than {meeting.count} processes have "
            f"met at {meeting.coordinator}; start each of them, with --process-index 0 "
            f"to {meeting.count - 1}",
            InputError.exit_code,
        )

    # JAX would abort, or wait for minutes.
    left = meeting.limit_s - (time.monotonic() - began)
    timer = threading.Timer(max(left, 1.0), give_up)
    timer.daemon = True
    timer.start()
    # Its service would take SIGTERM over, which is the command's.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            meeting.coordinator,
            meeting.count,
            meeting.index,
            local_device_ids=meeting.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=2 * int(meeting.limit_s),
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{meeting.count} processes cannot meet at {meeting.coordinator} "
            f"({reason}); name a free port of the host of process 0, before anything "
            "has used JAX"
        ) from error
    finally:
        timer.cancel()
    _board = Board(_state().client, meeting.index, meeting.count, (host, int(port)))
    return _board


def _wait_for_listener(host: str, port: int, meeting: Meeting) -> None:
    ends, reason = time.monotonic() + meeting.limit_s, "nobody listens"
    while time.monotonic() < ends:
        try:
            socket.create_connection((host, port), timeout=2.0).close()
            return
        except OSError as error:
            reason = str(error.strerror or error)
            time.sleep(0.2)
    raise InputError(
        f"no coordinator at {meeting.coordinator} after {meeting.limit_s:.0f} s "
        f"({reason}); start process 0 there, or correct --coordinator"
    )


def share(value: Any) -> Any:
    """The value of the first process, JSON values, in all of them."""
    return value if _board is None else _board.share(value)


def gather(value: Any) -> list[Any]:
    """The values of all processes, JSON values, by their numbers."""
    return [value] if _board is None else _board.gather(value)


def work_out(
    parts: Sequence[Any], work: Callable[[Any], Any]
) -> Iterator[tuple[int, Any]]:
    """Does parts of some work, each in one of the processes.

    Args:
      parts: alike in all processes.
      work: gives a part's result, JSON values.

    Yields:
      In the first process the number of a part and its result, as they come; in the
      others nothing.
    """
    if _board is None:
        return enumerate(map(work, parts))
    return _board.work_out(parts, work)


def board() -> Board | None:
    """The board that the processes share, inside `together`; None for a lone one."""
    return _board
