"""A real S3 server on loopback: Ceph's RADOS Gateway over one monitor and one disk, in one folder.

Its state is in the folder, so any process may stop, kill, pause or start again what another one
started. Nothing here needs root; the daemons trust each other and every user of this machine, and
listen on 127.0.0.1 only.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from random import randrange
from types import TracebackType
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.s3.packages import CannotRun, Programs, fetch_programs

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ACCESS_KEY, SECRET_KEY = "an-access-key", "a-secret-key"
BUCKET = "bucket"
REGION = "us-east-1"
NUM_PORTS = 10  # the gateway's, the monitor's, and a range for the disk
START_SECONDS = 120.0
STOP_SECONDS = {"rgw": 2.0, "osd": 20.0, "mon": 20.0}  # this gateway may hang; it holds no state
DISK_BYTES = 8 * 2**30  # sparse: deleted objects are not given back to the file system

_MADE = "made"  # the folder holds a whole cluster
_PLAIN = re.compile(r"[A-Za-z0-9_./+@=-]+")


class Daemon(StrEnum):
    """In the order of starting."""

    MON = "mon"
    OSD = "osd"
    RGW = "rgw"


class CephS3:
    """One server. A context manager: started on entering, killed on leaving; the folder stays."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """Takes ten ports from `port` on: those of the folder's last start, or free ones."""
        self.folder = folder.absolute()
        self._given_port = port

    def __enter__(self) -> "CephS3":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> dict[str, str]:
        """The environment that `open_store(f"s3://{BUCKET}/...")` needs."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
        }

    def start(self) -> None:
        """Start what is not up, on the data that is there, and wait until S3 answers.

        Raises CannotRun where the programs cannot be had, or a daemon does not come up.
        """
        programs = fetch_programs()
        if not (self.folder / _MADE).exists():
            self.wipe()  # what a start that was cut off has left
            self._prepare(programs)
        self._start_mon(programs)
        self._start_osd(programs)
        self._start_rgw(programs)
        (self.folder / _MADE).touch()

    def stop(self) -> None:
        """End the daemons in good order; the data stay."""
        for daemon in reversed(Daemon):
            self._signal([daemon], signal.SIGTERM)
            if not waited(partial(self._is_down, daemon), STOP_SECONDS[daemon]):
                self.kill(daemon)

    def kill(self, *daemons: Daemon) -> None:
        """SIGKILL these, or all of them. What was acknowledged is there after `start`."""
        chosen = daemons or tuple(Daemon)
        self._signal(chosen, signal.SIGKILL)
        waited(lambda: not any(self.is_up(daemon) for daemon in chosen), 10)

    def pause(self, *daemons: Daemon) -> None:
        """Freeze these, or all of them: requests hang, and may still land after `resume`."""
        self._signal(daemons or Daemon, signal.SIGSTOP)

    def resume(self, *daemons: Daemon) -> None:
        self._signal(daemons or Daemon, signal.SIGCONT)

    def wipe(self) -> None:
        """Kill the daemons and delete the folder. Raises CannotRun for a folder of someone else."""
        if self.folder.exists() and any(self.folder.iterdir()):
            if not self._config.exists():
                raise CannotRun(f"{self.folder} holds other things than a server; give another one")
            self.kill()
            shutil.rmtree(self.folder)

    def is_up(self, daemon: Daemon) -> bool:
        return self._try_pid(daemon) is not None

    def _is_down(self, daemon: Daemon) -> bool:
        return not self.is_up(daemon)

    @property
    def _port(self) -> int:
        return int((self.folder / "port").read_text())

    @property
    def _config(self) -> Path:
        return self.folder / "ceph.conf"

    def _prepare(self, programs: Programs) -> None:
        """An empty cluster's folder, with its config."""
        for path in (self.folder, programs.root):
            if not _PLAIN.fullmatch(str(path)):
                raise CannotRun(f"Ceph's config cannot hold the path {path}: use plain characters")
        port = self._given_port or free_ports()
        for name in ("log", "run", "mon", "osd", "rgw"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "port").write_text(str(port))
        self._config.write_text(_config_text(self.folder, port, uuid4().hex, programs.libraries))

    def _start_mon(self, programs: Programs) -> None:
        if self.is_up(Daemon.MON):
            return
        if not (self.folder / _MADE).exists():
            # Its map says what other daemons must be able to do; without a release it lets none in.
            version = self._ask(programs, "ceph-mon", "--version")
            release = re.search(r"\) (\w+) \(", version)
            self._ask(
                *(programs, "monmaptool", "--create", "--fsid", self._fsid),
                *("--addv", "a", f"[v2:127.0.0.1:{self._port + 1}]"),
                *(("--set-min-mon-release", release[1]) if release else ()),
                str(self.folder / "monmap"),
            )
            self._ask(programs, "ceph-mon", "--mkfs", "-i", "a", "--monmap", self.folder / "monmap")
        self._spawn(Daemon.MON, [*programs.command("ceph-mon"), "-i", "a"])
        self._wait(Daemon.MON, lambda: self._ceph(programs, "osd", "stat") is not None)

    def _start_osd(self, programs: Programs) -> None:
        if self.is_up(Daemon.OSD):
            return
        if not (self.folder / _MADE).exists():
            disk = str(uuid4())
            self._ceph(programs, "osd", "new", disk, "0")
            self._ceph(programs, "osd", "crush", "add", "osd.0", "1", "root=default", "host=here")
            self._ask(programs, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        # After a kill the map still has the dead one, and clients would wait for its address.
        self._ceph(programs, "osd", "down", "osd.0")
        self._spawn(Daemon.OSD, [*programs.command("ceph-osd"), "-i", "0"])
        self._wait(Daemon.OSD, lambda: '"up":1' in (self._ceph(programs, "osd", "dump") or ""))

    def _start_rgw(self, programs: Programs) -> None:
        if self.is_up(Daemon.RGW):
            return
        if not (self.folder / _MADE).exists():
            self._ask(
                *(programs, "radosgw-admin", "-n", "client.rgw"),
                *("user", "create", "--uid=tests", "--display-name=tests"),
                *(f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"),
            )
        self._spawn(Daemon.RGW, [*programs.command("radosgw"), "-n", "client.rgw"])
        self._wait(Daemon.RGW, self._answers)
        if not (self.folder / _MADE).exists():  # after a kill this waits 30 s for the dead gateway
            self.client().create_bucket(Bucket=BUCKET)

    def client(self) -> "S3Client":
        """A plain boto3 client, for what a store has no verb for."""
        import boto3  # here, so that to kill and to pause from the shell takes no second

        session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        return session.client("s3", endpoint_url=self.endpoint)

    @property
    def _fsid(self) -> str:
        match = re.search(r"fsid = (\S+)", self._config.read_text())
        assert match
        return match[1]

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(self.endpoint, timeout=5) as answer:
            return b"ListAllMyBucketsResult" in answer.read()
        return False

    def _ask(self, programs: Programs, name: str, *arguments: str | Path) -> str:
        """Run one of Ceph's programs to its end."""
        command = [*programs.command(name), "-c", str(self._config), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=START_SECONDS, env=_environment()
        )
        if done.returncode:
            raise CannotRun(f"{name} ended with {done.returncode}: {done.stderr[-1000:]}")
        return done.stdout

    def _ceph(self, programs: Programs, *arguments: str) -> str | None:
        """Ask the monitor; None if it does not answer, or not with a yes."""
        command, environment = programs.ceph()
        done = subprocess.run(
            [*command, "-c", str(self._config), "--connect-timeout", "5", "-f", "json", *arguments],
            capture_output=True,
            text=True,
            env=_environment() | environment,
        )
        return done.stdout if done.returncode == 0 else None

    def _spawn(self, daemon: Daemon, command: list[str]) -> None:
        """Start a daemon in a session of its own: it outlives us, and a Ctrl-C is not for it."""
        with (self.folder / "log" / f"{daemon}.out").open("ab") as out:
            child = subprocess.Popen(
                [*command, "-c", str(self._config), "-f"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=_environment(),
                start_new_session=True,
            )
        child.returncode = 0  # not ours to wait for: whoever looks next may be another process
        self._pid_file(daemon).write_text(str(child.pid))
        waited(lambda: self.is_up(daemon), 1)  # a process has no command line for a moment

    def _wait(self, daemon: Daemon, is_ready: Callable[[], bool]) -> None:
        if not waited(lambda: is_ready() or not self.is_up(daemon), START_SECONDS):
            raise CannotRun(f"{daemon} is not ready after {START_SECONDS:.0f} s: see {self._logs}")
        if not self.is_up(daemon):
            raise CannotRun(f"{daemon} ended while it started: see {self._logs}")

    @property
    def _logs(self) -> Path:
        return self.folder / "log"

    def _signal(self, daemons: Iterable[Daemon], number: signal.Signals) -> None:
        for pid in filter(None, map(self._try_pid, daemons)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pid_file(self, daemon: Daemon) -> Path:
        return self.folder / "run" / f"{daemon}.pid"

    def _try_pid(self, daemon: Daemon) -> int | None:
        """The daemon's process. Numbers are used again: it is ours while it names our config."""
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            pid = int(self._pid_file(daemon).read_text())
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # a child that was killed is to leave the table
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return pid if str(self._config).encode() in words else None
        return None


def _config_text(folder: Path, port: int, fsid: str, libraries: Path) -> str:
    """Ceph's settings: loopback only, no keys between the daemons, one copy of everything."""
    sections: dict[str, dict[str, object]] = {
        "global": {
            "fsid": f"{fsid[:8]}-{fsid[8:12]}-{fsid[12:16]}-{fsid[16:20]}-{fsid[20:]}",
            "mon_host": f"[v2:127.0.0.1:{port + 1}]",
            "public_addr": "127.0.0.1",
            "cluster_addr": "127.0.0.1",
            "ms_bind_msgr1": "false",
            "ms_bind_port_min": port + 2,
            "ms_bind_port_max": port + NUM_PORTS - 1,
            "ms_mon_client_mode": "crc",  # the gateway's default, "secure", wants keys
            "auth_cluster_required": "none",
            "auth_service_required": "none",
            "auth_client_required": "none",
            "run_dir": folder / "run",
            "crash_dir": folder / "log",
            "keyring": folder / "keyring",
            "admin_socket": "",
            "log_file": f"{folder}/log/$name.log",
            "log_to_stderr": "false",
            "plugin_dir": libraries / "ceph",
            "erasure_code_dir": libraries / "ceph/erasure-code",
            "osd_class_dir": libraries / "rados-classes",
            "osd_pool_default_size": 1,
            "osd_pool_default_min_size": 1,
            "osd_pool_default_pg_num": 2,
            "osd_pool_default_pgp_num": 2,
            "osd_pool_default_pg_autoscale_mode": "off",
            "osd_crush_chooseleaf_type": 0,
            "mon_allow_pool_size_one": "true",
            "mon_max_pg_per_osd": 1000,
        },
        "mon": {
            "mon_data": folder / "mon",
            "mon_initial_members": "a",
            # A nearly full laptop is no reason to go read-only; a cluster gathers changes for 1 s.
            "mon_data_avail_crit": 1,
            "mon_data_avail_warn": 2,
            "paxos_propose_interval": 0.05,
            "paxos_min_wait": 0.01,
        },
        "osd": {
            "osd_data": folder / "osd",
            "bluestore_block_create": "true",
            "bluestore_block_size": DISK_BYTES,
            "osd_memory_target": 2**30,
            "osd_class_update_on_start": "false",
        },
        "client.rgw": {
            "rgw_data": folder / "rgw",
            "rgw_frontends": f"beast endpoint=127.0.0.1:{port} tcp_nodelay=1",
            "rgw_thread_pool_size": 64,
            "rgw_rados_pool_pg_num_min": 2,
            "rgw_dynamic_resharding": "false",
            "rgw_run_sync_thread": "false",
        },
    }
    return "".join(
        f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
        for section, values in sections.items()
    )


def _environment() -> dict[str, str]:
    """Ours, without what would lead Ceph's programs to another cluster."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CEPH_")}


def free_ports() -> int:
    """The first of ten free ports in a row, below those that the system lends to clients."""
    while True:
        first = randrange(20000, 32000)
        with suppress(OSError):
            for port in range(first, first + NUM_PORTS):
                with socket.create_server(("127.0.0.1", port)):
                    pass
            return first


def waited(is_done: Callable[[], bool], seconds: float) -> bool:
    """Whether it was done in time."""
    end = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
