"""Connection to a Ray cluster. Ray is imported only in this package, and only when it is used.

    with open_cluster("10.0.0.1:6379") as cluster:
        pool = ActorPool(cluster, setup)

A process can be connected to one cluster only.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtime.engines.cpu import usable_cores
from runtime.errors import ClusterLost, ClusterUnreachable, ExtraMissing

logger = logging.getLogger(__name__)

PROBE_S = 20.0
AUTH_MODE = "RAY_AUTH_MODE"
NICENESS = "RAY_worker_niceness"
# Ray's threads occupy all heaps of the C library. Without this limit the thread that decodes a file gets
# another heap than that of the file before, and memory is not used again. Processes read it at their start.
ARENAS, MAX_ARENAS = "MALLOC_ARENA_MAX", "2"
CONNECT_S = 3.0
WATCH_S = 1.0
# Consecutive failures to reach the cluster after which it has stopped.
MAX_FAILURES = 2
SHUTDOWN_S = 5.0
# Attempts to start Ray on this machine: it gives up after 30 seconds, which a busy machine may need.
STARTS = 2
OBJECT_STORE_BYTES = 128 * 1024**2
LOCAL = "local"

# Private functions of Ray, in a process of its own: `ray.init` waits for minutes for a cluster that does not
# answer, and writes to standard error meanwhile.
PROBE = """
import json, sys
from ray._private import services
from ray._raylet import GcsClient
address = services.canonicalize_bootstrap_address(sys.argv[1])
if address is not None:
    from ray._private.ray_constants import KV_NAMESPACE_CLUSTER as namespace
    facts = json.loads(GcsClient(address=address).internal_kv_get(b"CLUSTER_METADATA", namespace))
    print(json.dumps([address, facts["ray_version"], facts["python_version"]]))
"""


# Searches that have begun before their results are needed, by address and mode of authentication.
_begun: dict[tuple[str, str | None], subprocess.Popen[str]] = {}


@dataclass(frozen=True, kw_only=True)
class Node:
    """Living machine of a cluster.

    Args:
        id: Its id in Ray.
        host: Its address.
        cpus: Its CPUs, as given to Ray.
        gpus: Its GPUs.
    """

    id: str
    host: str
    cpus: int
    gpus: int


class Cluster:
    """Cluster that this process is connected to.

    Args:
        ray: The library.
        address: Address of the cluster.
    """

    advice = "let another machine join the cluster"

    def __init__(self, ray: Any, address: str) -> None:
        self.ray = ray
        self.address = address
        self._lost = threading.Event()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="ray cluster", daemon=True)
        self._watcher.start()

    @property
    def lost(self) -> bool:
        """Whether the cluster has stopped."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise an error if the cluster has stopped.

        Raises:
            ClusterLost: It has.
        """
        if self.lost:
            raise ClusterLost(self.address)

    def check_now(self) -> None:
        """Raise an error if the cluster does not answer now.

        Raises:
            ClusterLost: It does not.
        """
        if not _answers(self.address, WATCH_S):
            self._lost.set()
        self.check()

    def nodes(self) -> list[Node]:
        """Return the living machines.

        Raises:
            ClusterLost: The cluster has stopped.
        """
        self.check()
        return [
            Node(
                id=node["NodeID"],
                host=node["NodeManagerAddress"],
                cpus=int(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
            )
            for node in self.ray.nodes()
            if node["Alive"]
        ]

    def close(self) -> None:
        """Stop to watch the cluster."""
        self._closing.set()
        self._watcher.join()

    def _watch(self) -> None:
        failures = 0
        while not self._closing.wait(WATCH_S):
            failures = 0 if _answers(self.address, WATCH_S) else failures + 1
            if failures >= MAX_FAILURES:
                self._lost.set()
                return


def begin_search(address: str | None) -> None:
    """Start the search for a cluster, which takes a second or two, while the program is still loading.

    Args:
        address: As for `open_cluster`, which uses what has been found.
    """
    if address != LOCAL and find_spec("ray") is not None:
        wanted, mode = _wanted(address), os.environ.get(AUTH_MODE)
        if (wanted, mode) not in _begun:
            _begun[wanted, mode] = _start_probe(wanted, mode)


@contextlib.contextmanager
def open_cluster(address: str | None, *, cpus: int | None = None) -> Iterator[Cluster]:
    """Connect to a cluster; on leaving, everything that was started in it ends.

    Args:
        address: `HOST:PORT`; `auto` for that of this machine; `local` to start one that ends with this
            program; None for that of this machine, or else `local`.
        cpus: CPUs of one that is started; None for the cores of this machine.

    Raises:
        ExtraMissing: Ray is not installed.
        ClusterUnreachable: There is no cluster, or other versions run in it.
    """
    if find_spec("ray") is None:
        raise ExtraMissing("a cluster", "ray", "fleet")
    if address != LOCAL:
        _check_address(_wanted(address), address)
    begin_search(address)
    # The import takes half a second, as does the search meanwhile.
    ray = _import_ray()
    found = None if address == LOCAL else _find(_wanted(address), address)
    # Ray prints messages of the cluster to standard output, where the JSON lines are.
    with contextlib.redirect_stdout(_Discarded()):
        with _own_signal_handlers():
            connected = _connect(ray, found, address, cpus or usable_cores())
        cluster = Cluster(ray, connected)
        try:
            yield cluster
        finally:
            cluster.close()
            _disconnect(ray, lost=cluster.lost)


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Restore the handlers that Ray replaces by one that prints a stack and ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def own_niceness() -> int:
    """Return the niceness of this process; 0 where there is none."""
    return os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0


def set_niceness(niceness: int) -> None:
    """Set the niceness of all threads of this process, an actor, if its user may.

    Ray starts its workers with 15: beside other work on the machine they hardly run.

    Args:
        niceness: Niceness of the command.
    """
    # Linux has one for each thread.
    for thread in Path("/proc/self/task").iterdir() if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)


def own_host() -> str:
    """Return the address of the machine on which an actor runs."""
    return str(_import_ray().util.get_node_ip_address())


def _wanted(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "auto"


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A call after the end would start another cluster.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    import ray

    return ray


def _check_address(wanted: str, given: str | None) -> None:
    if "://" in wanted:
        raise ClusterUnreachable(given, "addresses of Ray's client are not supported")
    if wanted != "auto" and not _answers(wanted, CONNECT_S):
        raise ClusterUnreachable(wanted, "no Ray cluster answers")


def _read_mode_again() -> None:
    """Let Ray read its mode of authentication, which it does when it is imported, once more."""
    # Private, like the functions of the search; Ray has no other way after its import.
    importlib.import_module("ray._raylet").Config.initialize("")


def _find(wanted: str, given: str | None) -> str | None:
    """Return the address of a cluster that answers and runs the same versions; None if there is none yet."""
    found: list[str] | None = None
    reason: str | None = None
    for mode in (os.environ.get(AUTH_MODE), "token"):
        found, reason = _probe(wanted, mode)
        if found is not None or reason is None:
            break
    if found is None:
        if given is None and wanted == "auto":
            return None
        raise ClusterUnreachable(wanted, reason or "no Ray cluster answers")
    if mode is not None and mode != os.environ.get(AUTH_MODE):
        os.environ[AUTH_MODE] = mode
        _read_mode_again()
    address, *versions = found
    own = [metadata.version("ray"), platform.python_version()]
    if versions != own:
        raise ClusterUnreachable(
            address,
            f"it runs Ray {versions[0]} on Python {versions[1]}, this program {own[0]} on {own[1]}",
            "install the same versions on every machine",
        )
    return str(address)


def _probe(wanted: str, mode: str | None) -> tuple[list[str] | None, str | None]:
    """Return address and versions of a cluster, and why it refuses if another mode may help.

    Args:
        wanted: Address.
        mode: Ray's mode of authentication; None for its default.
    """
    probe = _begun.pop((wanted, mode), None) or _start_probe(wanted, mode)
    try:
        output, errors = probe.communicate(timeout=PROBE_S)
        if output.strip():
            found: list[str] = json.loads(output)
            return found, None
    except (subprocess.TimeoutExpired, ValueError):
        return None, None
    finally:
        _end_probe(probe)
    if "uthentication" in errors:
        return None, "it asks for a token; copy the file ~/.ray/auth_token of its head to this machine"
    return None, None


def _start_probe(wanted: str, mode: str | None) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_ADDRESS": "", **({} if mode is None else {AUTH_MODE: mode})}
    probe = subprocess.Popen(
        [sys.executable, "-P", "-c", PROBE, wanted],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    # An error of another option may end the program before it asks for the result.
    atexit.register(_end_probe, probe)
    return probe


def _end_probe(probe: subprocess.Popen[str]) -> None:
    atexit.unregister(_end_probe)
    with probe:
        probe.kill()


def _connect(ray: Any, found: str | None, given: str | None, cpus: int) -> str:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if found is None:
        logger.info("starting Ray on this machine")
        os.environ.setdefault(NICENESS, str(own_niceness()))
        os.environ.setdefault(ARENAS, MAX_ARENAS)
        options |= {
            "address": LOCAL,
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        options["address"] = found
    for attempt in range(STARTS if found is None else 1):
        if attempt:
            ray.shutdown()
        try:
            ray.init(**options)
            break
        except Exception as error:  # noqa: BLE001  Ray raises all kinds
            failure = error
    else:
        raise ClusterUnreachable(
            found or given,
            str(failure).partition("\n")[0].rstrip("."),
            "run this command on a machine of the cluster"
            if found
            else "try again when the machine is less busy",
        ) from failure
    return str(ray.get_runtime_context().gcs_address)


def _disconnect(ray: Any, *, lost: bool) -> None:
    """Disconnect; without a cluster Ray would wait for it for a minute."""
    closing = threading.Thread(target=ray.shutdown, daemon=True)
    closing.start()
    closing.join(SHUTDOWN_S if lost else 6 * SHUTDOWN_S)


def _answers(address: str, timeout_s: float) -> bool:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=deadline - time.monotonic()):
            return True
    except (OSError, ValueError, OverflowError):
        return False


class _Discarded(io.TextIOBase):
    """Standard output of Ray."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        logger.debug("ray: %s", text.rstrip())
        return len(text)
