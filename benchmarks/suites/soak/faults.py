"""Faults of the soak: something is done to a camera, the network, a client or the disk, and undone."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.helpers.rtsp_process import RtspProcess
from benchmarks.suites.soak.clips import Clips
from benchmarks.suites.soak.faulty_link import FaultyLink
from benchmarks.suites.soak.monitored_process import MonitoredProcess

Affected = Literal["one", "all", "none"]

NORMAL, LARGE, STILL, SLOW = range(4)  # indices of `Clips.h264`
CLIENTS = 20
CONNECTIONS = 300
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass(kw_only=True)
class SoakCamera:
    """One camera behind a network that can be disturbed.

    Args:
        name: Name of its stream.
        process: The camera.
        link: The network.
        clips: Its videos.
    """

    name: str
    process: RtspProcess
    link: FaultyLink
    clips: Clips

    @property
    def source(self) -> str:
        """Return the source for the command line."""
        return f"{self.name}=rtsp://127.0.0.1:{self.link.port}/cam"


@dataclass(kw_only=True)
class Scene:
    """Everything that a fault can act on.

    Args:
        camera: The camera whose turn it is.
        cameras: All cameras.
        monitor: The process under test.
        server: Address and port of its server.
        sockets: Connections that a fault has opened.
    """

    camera: SoakCamera
    cameras: Sequence[SoakCamera]
    monitor: MonitoredProcess
    server: tuple[str, int]
    sockets: list[socket.socket] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Args:
        name: What happens, in a few words.
        start: Function that begins it.
        stop: Function that ends it.
        affects: Cameras that may be without a score meanwhile.
        seconds: Its duration.
    """

    name: str
    start: Callable[[Scene], object]
    stop: Callable[[Scene], object] = lambda scene: None
    affects: Affected = "one"
    seconds: float = 15.0


def _link(**values: float) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        for name, value in values.items():
            setattr(scene.camera.link, name, value)

    return change


def _show(number: int) -> Callable[[Scene], None]:
    return lambda scene: scene.camera.process.show(number)


def _other_codec(scene: Scene) -> None:
    scene.camera.process.kill()
    scene.camera.process.start("--codec", "h265", videos=[scene.camera.clips.hevc])


def _own_codec(scene: Scene) -> None:
    scene.camera.process.kill()
    scene.camera.process.start()


def _kill_all(scene: Scene) -> None:
    for camera in scene.cameras:
        camera.process.kill()


def _start_all(scene: Scene) -> None:
    for camera in scene.cameras:
        camera.process.start()


def _silent_clients(scene: Scene) -> None:
    """Open WebSockets that are never read."""
    for _ in range(CLIENTS):
        client = socket.create_connection(scene.server, timeout=5.0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(UPGRADE)
        scene.sockets.append(client)


def _close_clients(scene: Scene) -> None:
    while scene.sockets:
        scene.sockets.pop().close()


def _many_connections(scene: Scene) -> None:
    """Open and leave many connections, some in the middle of a request."""
    for number in range(CONNECTIONS):
        with socket.create_connection(scene.server, timeout=5.0) as client:
            client.sendall(UPGRADE[: number % len(UPGRADE)])


FAULTS = (
    Fault(
        name="camera killed, then back",
        start=lambda scene: scene.camera.process.kill(),
        stop=lambda scene: scene.camera.process.start(),
    ),
    Fault(name="frozen image with noise", start=_show(STILL), stop=_show(NORMAL)),
    Fault(name="time stamps 5 s back", start=_link(shift_s=-5.0), seconds=10.0),
    Fault(name="twice the size", start=_show(LARGE), stop=_show(NORMAL)),
    Fault(name="10 % of the packets lost", start=_link(drop=0.1), stop=_link(drop=0.0)),
    Fault(name="25, 3, 25 frames a second", start=_show(SLOW), stop=_show(NORMAL)),
    Fault(
        name=f"{CLIENTS} clients that do not read", start=_silent_clients, stop=_close_clients, affects="none"
    ),
    Fault(
        name="disk full",
        start=lambda scene: scene.monitor.limit_files(),
        stop=lambda scene: scene.monitor.lift_limit(),
        affects="none",
    ),
    Fault(name="camera back with H.265", start=_other_codec, stop=_own_codec),
    Fault(
        name="camera silent, then back",
        start=lambda scene: scene.camera.process.freeze(),
        stop=lambda scene: scene.camera.process.thaw(),
    ),
    Fault(name="10 % of the packets overwritten", start=_link(garble=0.1), stop=_link(garble=0.0)),
    Fault(
        name="everything 3 s late, then at once",
        start=lambda scene: scene.camera.link.pause(),
        stop=lambda scene: scene.camera.link.resume(),
        seconds=3.0,
    ),
    Fault(name="time stamps an hour ahead", start=_link(shift_s=3600.0), seconds=10.0),
    Fault(name=f"{CONNECTIONS} short connections", start=_many_connections, affects="none", seconds=1.0),
    Fault(
        name="all cameras killed, then back", start=_kill_all, stop=_start_all, affects="all", seconds=10.0
    ),
    Fault(
        name="program stopped for 5 s",
        start=lambda scene: scene.monitor.suspend(),
        stop=lambda scene: scene.monitor.resume(),
        affects="all",
        seconds=5.0,
    ),
)
