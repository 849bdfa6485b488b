"""Tests on a Ray cluster of two nodes of this machine, one for all tests of this file, in their order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.helpers.rtsp_process import RtspProcess
from benchmarks.suites.fleet import FleetBenchConfig, measure_head
from runtime.commands.scan.command import run_scan
from runtime.commands.scan.outcome import ScanOptions, ScanOutcome
from runtime.config.sources import WatchedSource
from runtime.errors import ClusterLost, ClusterUnreachable, ExtraMissing, NoWorkers
from runtime.fleet.cameras.actors import CameraActors
from runtime.fleet.cameras.head import FleetMonitor
from runtime.fleet.cameras.worker import FleetSetup
from runtime.fleet.cluster import begin_search, open_cluster, own_niceness
from runtime.messages import BroadcastMessage, StreamMessage, Thresholds, VerdictMessage
from runtime.model.bundle import load_bundle
from runtime.version import version
from streams.input.source import parse_source
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[3]
CAMERAS = 4
OFFLINE_LIMIT_S = 3.0
LIVE_LIMIT_S = 15.0
PATIENCE_S = 60.0
# Without those of Ray's processes that nothing here needs.
NODE: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 80 * 1024**2,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
}
# Ray's own sockets and processes at its end.
pytestmark = pytest.mark.filterwarnings("default")


@dataclass
class TwoNodes:
    """A cluster, and its node without the head of Ray."""

    cluster: Any
    second: Any

    @property
    def address(self) -> str:
        return str(self.cluster.address)


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # By default Ray's workers give way to everything else, here to the other tests. Not 0, which they set.
    os.environ["RAY_worker_niceness"] = "1"  # noqa: SIM112
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    from ray.cluster_utils import Cluster

    for attempt in range(3):
        cluster: Any = Cluster()
        try:
            cluster.add_node(**NODE)
            second = cluster.add_node(**NODE)
            break
        except Exception:
            # Ray gives up after 30 seconds, which a machine that runs other tests may need.
            cluster.shutdown()
            if attempt == 2:
                raise
    yield TwoNodes(cluster, second)
    cluster.shutdown()


def process_of(title: str) -> int | None:
    """Return the process of a Ray actor by its title; None if there is none."""
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(title.encode()):
                return int(folder.name)
        except OSError:
            continue
    return None


def test_scan_with_a_killed_worker(
    nodes: TwoNodes,
    small_bundle: Path,
    face_video: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twenty files give the lines of a scan without Ray, although a worker is killed in the middle."""
    kinds = (face_video, clip)
    assert run_scan(ScanOptions(paths=kinds, as_json=True, model=small_bundle)) == 0
    of_kind = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    files = [tmp_path / f"{number:02}.mp4" for number in range(20)]
    for number, file in enumerate(files):
        file.symlink_to(kinds[number % 2])
    expected = [{**of_kind[number % 2], "file": str(file)} for number, file in enumerate(files)]

    begin = ScanOutcome.begin
    killed: list[int] = []
    niceness: list[int] = []

    def begin_and_kill(self: ScanOutcome, file: Path) -> None:
        begin(self, file)
        if self.scanned >= 6 and not killed and (process := process_of("ray::ScanActor.scan")) is not None:
            niceness.append(os.getpriority(os.PRIO_PROCESS, process))
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    monkeypatch.setattr(ScanOutcome, "begin", begin_and_kill)
    options = ScanOptions(paths=files, as_json=True, model=small_bundle, ray=nodes.address)
    assert run_scan(options) == 0
    out, err = capsys.readouterr()
    assert killed
    # Only root may lower it.
    assert os.geteuid() or niceness == [own_niceness()]
    lines = sorted((json.loads(line) for line in out.splitlines()), key=lambda line: str(line["file"]))
    assert lines == expected
    assert err == ""


def test_node_without_the_model(
    nodes: TwoNodes, small_bundle: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that cannot use the model is given up with one line; without any, the command ends."""
    monkeypatch.setattr("runtime.commands.scan.command.version", lambda: "0.0.1")
    with pytest.raises(NoWorkers, match=r"\d: unmask .* install the same version on every machine"):
        run_scan(ScanOptions(paths=[clip], as_json=True, model=small_bundle, ray=nodes.address))


@dataclass
class Published:
    """Messages of a fleet with the time of each."""

    messages: list[tuple[float, BroadcastMessage]] = field(default_factory=list)

    def add(self, message: BroadcastMessage) -> None:
        self.messages.append((time.monotonic(), message))

    def states(self, stream: str, since: float = 0.0) -> list[tuple[float, str]]:
        return [
            (at, message.state)
            for at, message in self.messages
            if isinstance(message, StreamMessage) and message.stream == stream and at >= since
        ]

    def is_live(self, stream: str, since: float = 0.0) -> bool:
        """Return whether the stream is live and has had a verdict."""
        states = self.states(stream, since)
        return (
            bool(states)
            and states[-1][1] == "live"
            and any(
                isinstance(message, VerdictMessage) and message.stream == stream and at >= states[-1][0]
                for at, message in self.messages
            )
        )


def test_load_of_the_head(nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark counts the messages of simulated cameras, and the cores of this process."""
    monkeypatch.setattr("benchmarks.suites.fleet.WARMUP_S", 0.1)
    config = FleetBenchConfig(cameras=[6], workers=1, rate_hz=10.0, seconds=1.0, subscribers=0)
    with open_cluster(nodes.address) as cluster:
        load = measure_head(cluster, 6, config)
    assert load.messages_hz > 6
    assert load.cores > 0


def test_fleet_with_a_removed_node(
    nodes: TwoNodes,
    small_bundle: Path,
    face_video: Path,
    rtsp_server: Callable[..., RtspProcess],
) -> None:
    """Cameras move to a node that joins; when it is gone they are offline in 3 s, and live again in 15 s."""
    camera = rtsp_server(face_video)
    names = [f"cam-{number}" for number in range(CAMERAS)]
    cameras = [WatchedSource(source=parse_source(camera.url(), name=name)) for name in names]
    bundle = load_bundle(small_bundle)
    thresholds = Thresholds(real=bundle.calibration.threshold_real, fake=bundle.calibration.threshold_fake)
    setup = FleetSetup(
        folder=Path.cwd(),
        model=small_bundle,
        digest=bundle.digest,
        version=version(),
        engine="auto",
        threads=None,
        cores_per_camera=1 / CAMERAS,
        thresholds=thresholds,
    )
    published = Published()

    async def run() -> None:
        async def until(condition: Callable[[], bool], limit_s: float = PATIENCE_S) -> float:
            started = time.monotonic()
            while not condition():
                assert fleet.failure is None, fleet.failure
                assert time.monotonic() - started < limit_s, published.messages[-20:]
                await asyncio.sleep(0.02)
            return time.monotonic() - started

        fleet = FleetMonitor(
            cluster,
            CameraActors(cluster, setup),
            cameras,
            engine="auto",
            thresholds={},
            publish=published.add,
        )
        async with fleet:
            assert [published.states(name)[0][1] for name in names] == ["connecting"] * CAMERAS

            def on_second_node() -> list[str]:
                return [name for name in names if fleet.node_of(name) == nodes.second.node_id]

            await until(lambda: all(published.is_live(name) for name in names))
            assert {fleet.node_of(name) for name in names} == {nodes.cluster.head_node.node_id}
            # Ray accepts it on the main thread only; the fleet has a thread of its own.
            nodes.second = nodes.cluster.add_node(**NODE)
            # Half of the cameras move to the machine that has joined.
            await until(
                lambda: (
                    all(published.is_live(name) for name in names) and len(on_second_node()) == CAMERAS // 2
                )
            )
            assert fleet.settled
            on_second = on_second_node()
            removed_at = time.monotonic()
            nodes.cluster.remove_node(nodes.second, allow_graceful=False)
            await until(lambda: all(published.is_live(name, removed_at) for name in on_second), LIVE_LIMIT_S)
            for name in on_second:
                # On a busy machine it may have been overloaded before.
                states = published.states(name, removed_at)
                offline_at = next(at for at, state in states if state == "offline")
                assert offline_at - removed_at < OFFLINE_LIMIT_S
            for name in set(names) - set(on_second):
                assert fleet.node_of(name) not in (None, nodes.second.node_id)
                assert "connecting" not in {state for _, state in published.states(name, removed_at)}
            faces = [
                (message.stream, message.face)
                for at, message in published.messages
                if isinstance(message, VerdictMessage) and message.state != "stale" and at < removed_at
            ]
            later = [
                (message.stream, message.face)
                for at, message in published.messages
                if isinstance(message, VerdictMessage)
                and message.stream in on_second
                and at > published.states(message.stream, removed_at)[0][0]
            ]
            assert later
            assert not set(faces) & {face for face in later if face[0] in on_second}

    # This process must not be connected by way of the node that will be removed.
    nodes.cluster.remove_node(nodes.second)
    with open_cluster(nodes.address) as cluster:
        asyncio.run(run())


def test_fleet_without_the_head_of_ray(nodes: TwoNodes, small_bundle: Path, tmp_path: Path) -> None:
    """The end of Ray ends the command with one line and exit code 2, and all workers.

    In a process of its own, and last: a client of Ray ends its process a minute after a request that Ray has
    not answered.
    """
    file = tmp_path / "cameras.toml"
    file.write_text(
        f"""model = "{small_bundle}"
[server]
port = 0
[fleet]
cores_per_camera = 0.5
[[sources]]
name = "cam"
address = "demo"
"""
    )
    command = [sys.executable, "-m", "unmask", "fleet", str(file), "--address", nodes.address]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as fleet:
        try:
            worker = wait_for(lambda: process_of("ray::CameraActor.exchange"), PATIENCE_S)
            nodes.cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            _, err = fleet.communicate(timeout=PATIENCE_S)
        finally:
            fleet.kill()
    assert fleet.returncode == 1, err
    assert err.splitlines()[-1] == f"unmask: {ClusterLost(nodes.address)}"
    assert "Traceback" not in err
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), PATIENCE_S)


def test_no_cluster(small_bundle: Path, clip: Path) -> None:
    """One line names the address and says how to start a cluster."""
    options = ScanOptions(paths=[clip], as_json=True, model=small_bundle, ray="127.0.0.1:1")
    with pytest.raises(ClusterUnreachable, match=r"127\.0\.0\.1:1: no Ray cluster answers; start one with"):
        run_scan(options)


def test_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names both versions."""
    answer = json.dumps(["10.0.0.1:6379", "2.1.0", "3.9.1"])
    monkeypatch.setattr("runtime.fleet.cluster.PROBE", f"print({answer!r})")
    begin_search("auto")
    with (
        pytest.raises(ClusterUnreachable, match=r"it runs Ray 2\.1\.0 on Python 3\.9\.1, this program"),
        open_cluster("auto"),
    ):
        pass


def test_ray_reads_its_mode_of_authentication_again() -> None:
    """It does so after its import too, which the search for a cluster relies on; in a process of its own."""
    script = """
import os
os.environ["RAY_AUTH_MODE"] = "disabled"
from ray._raylet import get_authentication_mode
from runtime.fleet.cluster import _read_mode_again
before = get_authentication_mode()
os.environ["RAY_AUTH_MODE"] = "token"
_read_mode_again()
print(before, get_authentication_mode())
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = done.stdout.split()
    assert before != after


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setattr("runtime.fleet.cluster.find_spec", lambda _: None)
    with pytest.raises(ExtraMissing, match=r"unmask\[fleet\]"), open_cluster("auto"):
        pass
