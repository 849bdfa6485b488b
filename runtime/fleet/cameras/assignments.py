"""Decisions on which worker watches which camera. No I/O and no clock: answers and times are passed in.

A camera belongs to one worker, until that worker confirms that it has stopped, is known to have ended, or has
been silent for so long that it must have stopped by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from runtime.fleet.cameras.exchange import OFFLINE_S, RELEASE_S

EPSILON = 1e-6


@dataclass
class Camera:
    """Where a camera is.

    Args:
        name: Name of the stream.
        worker: Worker that it belongs to; None if it waits.
        epoch: Number of its assignment.
        moving: Whether its worker shall stop to watch it.
        finished: Whether it has ended or failed, and is not to be watched again.
    """

    name: str
    worker: int | None = None
    epoch: int = 0
    moving: bool = False
    finished: bool = False


@dataclass
class Worker:
    """Room on a worker.

    Args:
        cores: Cores that it may use.
        need: Cores that it needs for a camera.
        answered: Time of its last answer in seconds.
        silent: Whether its cameras are reported as offline.
        ended: Whether its end was reported, without a proof that its process has ended.
        cameras: Names of the cameras that belong to it.
    """

    cores: float
    need: float
    answered: float
    silent: bool = False
    ended: bool = False
    cameras: set[str] = field(default_factory=set)

    @property
    def room(self) -> int:
        """Largest number of cameras; at least one."""
        return max(1, int(self.cores / self.need + EPSILON))

    def share(self, change: int = 0) -> float:
        """Return the used share of its room, after a change of the number of cameras."""
        return (len(self.cameras) + change) / self.room


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes by the passing of time.

    Args:
        offline: Cameras whose worker has become silent.
        released: Workers that have ended, or must have stopped everything; they are removed.
    """

    offline: tuple[str, ...] = ()
    released: tuple[int, ...] = ()


class Assignments:
    """Cameras and workers of a fleet.

    Args:
        names: Names of the cameras; those that come first are placed first.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.cameras = {name: Camera(name) for name in names}
        self.workers: dict[int, Worker] = {}

    @property
    def waiting(self) -> list[str]:
        """Names of the cameras that belong to no worker and have not finished."""
        return [one.name for one in self.cameras.values() if one.worker is None and not one.finished]

    @property
    def room(self) -> int:
        """Number of cameras that all workers can watch."""
        return sum(worker.room for worker in self.workers.values() if not worker.ended)

    @property
    def settled(self) -> bool:
        """Whether no camera waits or moves."""
        return not self.waiting and not any(camera.moving for camera in self.cameras.values())

    def join(self, worker: int, *, cores: float, need: float, now: float) -> None:
        """Add a worker.

        Args:
            worker: Its number.
            cores: Cores that it may use.
            need: Cores that it needs for a camera.
            now: Time in seconds.
        """
        self.workers[worker] = Worker(cores=cores, need=need, answered=now)

    def finish(self, name: str) -> None:
        """Handle the end of a camera: it makes room for others, and is never placed again."""
        self.cameras[name].finished = True
        self._release(self.cameras[name])

    def answered(self, worker: int, running: Mapping[str, int], now: float) -> list[str]:
        """Handle an answer.

        Args:
            worker: Number of the worker.
            running: Epoch of each camera that it watches or has not stopped yet.
            now: Time in seconds.

        Returns:
            Its cameras, if it was silent before.
        """
        state = self.workers[worker]
        state.answered = now
        for name in tuple(state.cameras):
            camera = self.cameras[name]
            if camera.moving and name not in running:
                self._release(camera)
        recovered = sorted(state.cameras) if state.silent else []
        state.silent = False
        return recovered

    def silenced(self, worker: int) -> list[str]:
        """Handle a failed question; return the cameras of the worker, unless they are offline already."""
        state = self.workers[worker]
        cameras = [] if state.silent else sorted(state.cameras)
        state.silent = True
        return cameras

    def ended(self, worker: int, *, certain: bool) -> list[str]:
        """Handle the end of a worker.

        Args:
            worker: Its number.
            certain: Whether its process is known to have ended; else its cameras stay with it for a while.

        Returns:
            Its cameras, which are offline.
        """
        state = self.workers[worker]
        cameras = sorted(state.cameras)
        state.silent = state.ended = True
        if certain:
            self.remove(worker)
        return cameras

    def remove(self, worker: int) -> None:
        """Remove a worker that has ended or stopped; its cameras wait."""
        for name in self.workers.pop(worker).cameras:
            camera = self.cameras[name]
            camera.worker, camera.moving = None, False

    def tick(self, now: float) -> Changes:
        """Handle the passing of time."""
        offline: list[str] = []
        released: list[int] = []
        for number, worker in self.workers.items():
            silence = now - worker.answered
            if silence > OFFLINE_S and not worker.silent:
                worker.silent = True
                offline += sorted(worker.cameras)
            if silence > RELEASE_S:
                released.append(number)
        for number in released:
            self.remove(number)
        return Changes(offline=tuple(offline), released=tuple(released))

    def accepts(self, worker: int, name: str, epoch: int) -> bool:
        """Return whether a message of a worker about a camera counts."""
        camera = self.cameras.get(name)
        return camera is not None and not camera.moving and (camera.worker, camera.epoch) == (worker, epoch)

    def assigned(self, worker: int) -> dict[str, int]:
        """Return the epoch of each camera that a worker shall watch."""
        return {
            name: self.cameras[name].epoch
            for name in sorted(self.workers[worker].cameras)
            if not self.cameras[name].moving
        }

    def place(self) -> list[str]:
        """Assign waiting cameras to the workers with the smallest used share of their room.

        Returns:
            The names of those that have been placed.
        """
        placed = []
        for name in self.waiting:
            free = [
                (worker.share(1), number)
                for number, worker in self.workers.items()
                if not worker.silent and len(worker.cameras) < worker.room
            ]
            if not free:
                break
            _, number = min(free)
            camera = self.cameras[name]
            camera.worker, camera.epoch = number, camera.epoch + 1
            self.workers[number].cameras.add(name)
            placed.append(name)
        return placed

    def balance(self) -> list[str]:
        """Let cameras move from the fullest worker to the emptiest, where that makes the fullest emptier.

        Returns:
            The names of those that move, none while others still move: their workers stop to watch them, then
            they wait.
        """
        moving: list[str] = []
        if not self.settled:
            return moving
        shares = {number: worker.share() for number, worker in self.workers.items() if not worker.silent}
        while len(shares) > 1:
            fullest, emptiest = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
            step = 1 / self.workers[emptiest].room
            staying = [
                name for name in sorted(self.workers[fullest].cameras) if not self.cameras[name].moving
            ]
            if not staying or shares[emptiest] + step > shares[fullest] - EPSILON:
                break
            camera = self.cameras[staying[-1]]
            camera.moving = True
            moving.append(camera.name)
            shares[fullest] -= 1 / self.workers[fullest].room
            shares[emptiest] += step
        return moving

    def _release(self, camera: Camera) -> None:
        assert camera.worker is not None
        self.workers[camera.worker].cameras.discard(camera.name)
        camera.worker, camera.moving = None, False
