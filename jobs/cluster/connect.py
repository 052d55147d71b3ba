"""A Ray to work on: one that is started here, or one that is up, asked first whether it is.

Ray itself waits for minutes for an address where nothing answers, warns on the terminal meanwhile,
and may end the process. So an address is asked before Ray is: by the same protocol, once, and with
a limit of time. Only this module knows how.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from pathlib import Path

import grpc
import ray
from ray.exceptions import RayError, RayTaskError

from jobs.cluster.addresses import check_address
from jobs.cluster.ray_errors import told
from jobs.commands.terminal import keep_stderr_to_python
from schemas.errors import ClusterLost, InputError

CLIENT_TRIES = 4

_PACKAGES = ("schemas", "pipeline", "jobs")
_RAYS = (RayError, grpc.RpcError, OSError, RuntimeError, ValueError)
_SENTENCE = re.compile(r"(?s)(.*?)(?:\.\s.*|\.?\s*)")


@contextmanager
def on_ray(address: str | None) -> Iterator[None]:
    """A Ray to work on: the cluster at `address`, or one on this machine, ended afterwards.

    Raises InputError for an address that cannot be joined, within half a minute (four of them by
    `ray://`, if its server is up and fails), and for a folder in which workers would find another
    package in the place of ours; ClusterLost where none can be started here, and for what Ray
    itself says in the block, but for errors of our own code that it hands on.
    """
    _check_folder(Path.cwd())
    logging.getLogger("ray").setLevel(logging.ERROR)  # Ray itself does so too late for some
    keep_stderr_to_python()  # Ray's core writes errors past it that are none
    if address:
        check_address(address)
    try:
        _join(address)
    except Exception as error:
        if not _is_rays(error):
            raise
        if not address:
            ray.shutdown()  # of what came up
            raise ClusterLost(
                f"Ray cannot be started on this machine ({first_sentence(error)}); see that /tmp "
                "and /dev/shm have room, that no other Ray is in its way, and for a limit of "
                "processes or memory; or give the --address of one that is up. Nothing is lost: "
                "the same command goes on"
            ) from error
        forks = "start its head with GRPC_ENABLE_FORK_SUPPORT=0 in the environment, "
        raise InputError(
            f"the Ray at {address} answers and cannot be joined ({first_sentence(error)}); see "
            f"its logs, {forks if isinstance(error, ConnectionAbortedError) else ''}"
            "or submit the work there: ray job submit"
        ) from error
    try:
        yield
    except RayTaskError:
        raise
    except RayError as error:
        raise ClusterLost(
            f"Ray could not go on: {told(error)}; what is made stays, and the same command goes on"
        ) from error
    finally:
        ray.shutdown()


def _is_rays(error: Exception) -> bool:
    """Whether Ray could not start: some of what it says then has no type of its own."""
    return isinstance(error, _RAYS) or type(error) is Exception


def _join(address: str | None) -> None:
    """`ray.init`, and again where Ray's client server lost the process that it forks for a client.

    It forks while other threads of it are inside gRPC, and on a busy head such a child often dies
    before it has begun: 5 of 16 did where four loops shared two cores, and two in a row; none of 20
    with gRPC's handlers of forks turned off.
    """
    for _ in range(CLIENT_TRIES - 1):
        with suppress(ConnectionAbortedError):
            return _init(address)
    return _init(address)


def _init(address: str | None) -> None:
    ray.init(
        address=address or "local",
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _check_folder(folder: Path) -> None:
    """Workers import from the folder in which a command starts before they look elsewhere."""
    home = Path(__file__).resolve().parents[2]
    for name in _PACKAGES:
        spec = PathFinder.find_spec(name, [str(folder)])
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin is not None and origin.parents[1] != home:
            raise InputError(
                f"another package named {name!r} is in the way of Ray's workers: {origin}; they "
                f"look in {folder} first, and need coppice's own at {home / name}: start from "
                "another folder"
            )


def first_sentence(error: Exception) -> str:
    """What an error says first, on one line: Ray's go on for paragraphs.

    Where that only announces a traceback, the traceback's last line comes after it.
    """
    said, _, traceback = str(error).partition("Traceback (most")
    match = _SENTENCE.fullmatch(said.strip())
    text = " ".join((match[1] if match else said).split()).rstrip(": ")
    if said.endswith(":\n"):
        text += ": " + traceback.rstrip().rpartition("\n")[2].strip()
    return text[:200] or type(error).__name__
