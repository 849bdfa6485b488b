"""Tests of the decisions of a scan with workers, with a pool that answers at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from runtime.errors import NoWorkers
from runtime.fleet.archive.pool import Ended, Event, Finished, Ready, Unusable
from runtime.fleet.archive.queue import FileQueue
from runtime.fleet.archive.scan import ArchiveEvents, ArchiveResult, ArchiveScan
from runtime.fleet.archive.worker import ScannedFile
from runtime.pipeline.scan_result import ScanResult


class ScriptedPool:
    """Workers that end, fail or cannot see a file as its name says; `retired` lists those given up."""

    def __init__(self, workers: int) -> None:
        self.retired: list[int] = []
        self.max_under_way = 0
        self._events: deque[Event] = deque(Ready(number, "engine") for number in range(workers))
        self._living = set(range(workers))

    @property
    def workers(self) -> int:
        return len(self._living)

    def assign(self, worker: int, path: Path) -> None:
        assert worker in self._living
        if "kills" in path.name:
            self._events += [Ended(worker), Ready(worker, "engine")]
        elif "failing" in path.name:
            self._events.append(Finished(worker, ScannedFile(failure="the engine failed")))
        else:
            result = ScanResult(file=str(path), state="no_face")
            missing = "unmounted" in path.name and worker == 0
            self._events.append(Finished(worker, ScannedFile(result=result, missing=missing)))
        self.max_under_way = max(self.max_under_way, len(self._events))

    def retire(self, worker: int) -> None:
        self.retired.append(worker)
        self._living.remove(worker)

    def events(self, timeout_s: float) -> Sequence[Event]:
        events = [self._events.popleft()] if self._events else []
        self._living -= {event.worker for event in events if isinstance(event, Unusable)}
        return events

    def lose(self, worker: int, reason: str) -> None:
        self._events = deque([Unusable(worker, reason)])


def scan(pool: ScriptedPool, names: Iterable[str]) -> tuple[list[ArchiveResult], list[str]]:
    results: list[ArchiveResult] = []
    problems: list[str] = []
    receivers = ArchiveEvents(on_result=results.append, on_problem=problems.append)
    ArchiveScan((Path(name) for name in names), pool, receivers, exists=lambda _: True).run()
    return results, problems


def test_file_that_ends_three_workers() -> None:
    """It is reported as failed under its own position, and the rest goes on."""
    results, problems = scan(ScriptedPool(2), ["a", "kills", "b", "c"])
    by_index = {done.index: done.result for done in results}
    assert sorted(by_index) == [0, 1, 2, 3]
    assert by_index[1].state == "unreadable"
    assert by_index[1].file == "kills"
    assert "3 workers have ended" in str(by_index[1].error)
    assert [by_index[index].state for index in (0, 2, 3)] == ["no_face"] * 3
    assert problems == []


def test_attempts() -> None:
    """A file whose worker has ended comes before new ones, up to its third attempt."""
    queue = FileQueue([Path("a"), Path("b")])
    first = queue.next()
    assert first is not None
    assert queue.worker_ended(first) is None
    second = queue.next()
    assert second is not None
    assert (second.path, second.attempts) == (Path("a"), 1)
    assert queue.worker_ended(second) is None
    third = queue.next()
    assert third is not None
    assert queue.worker_ended(third) == 3
    assert not queue.empty
    last = queue.next()
    assert last is not None
    assert last.path == Path("b")
    assert queue.empty


def test_files_are_consumed_as_workers_take_them() -> None:
    """The number of files under way does not depend on the number of files."""
    taken = 0
    done = 0
    ahead = 0

    def names() -> Iterator[str]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield str(number)

    def count(_: ArchiveResult) -> None:
        nonlocal done, ahead
        ahead = max(ahead, taken - done)
        done += 1

    pool = ScriptedPool(3)
    ArchiveScan((Path(name) for name in names()), pool, ArchiveEvents(on_result=count)).run()
    assert done == 10_000
    assert ahead <= 5


def test_worker_without_the_shared_storage() -> None:
    """A worker that does not see a file that exists is given up, and the file goes to another."""
    pool = ScriptedPool(2)
    results, problems = scan(pool, ["unmounted-1", "unmounted-2", "unmounted-3"])
    assert sorted(done.index for done in results) == [0, 1, 2]
    assert pool.retired == [0]
    assert len(problems) == 1
    assert "mount it" in problems[0]


def test_failed_engine() -> None:
    """A worker whose engine has failed is given up; without any, the scan ends with the reason."""
    pool = ScriptedPool(2)
    with pytest.raises(NoWorkers, match="the engine failed"):
        scan(pool, ["failing", "a", "b"])
    assert sorted(pool.retired) == [0, 1]


def test_refused_workers() -> None:
    """Without a worker the scan ends with the last reason."""
    pool = ScriptedPool(1)
    pool.lose(0, "10.0.0.8: no such model")
    with pytest.raises(NoWorkers, match=r"10\.0\.0\.8: no such model"):
        scan(pool, ["a"])
