"""Tests of the decisions on which worker watches which camera."""

from __future__ import annotations

import pytest

from runtime.fleet.cameras.assignments import Assignments
from runtime.fleet.cameras.exchange import OFFLINE_S, RELEASE_S
from runtime.fleet.cameras.processes import share_of


def fleet(cameras: int, *cores: float, need: float = 0.5) -> Assignments:
    assignments = Assignments([f"cam-{number}" for number in range(cameras)])
    for number, room in enumerate(cores):
        assignments.join(number, cores=room, need=need, now=0.0)
    assignments.place()
    return assignments


def counts(assignments: Assignments) -> list[int]:
    return [len(worker.cameras) for worker in assignments.workers.values()]


def check_each_camera_once(assignments: Assignments) -> None:
    owned = [name for worker in assignments.workers.values() for name in worker.cameras]
    placed = [name for name, camera in assignments.cameras.items() if camera.worker is not None]
    assert sorted(owned) == sorted(placed)
    assert len(owned) == len(set(owned))


def test_cameras_are_spread_by_the_room_of_the_workers() -> None:
    """A worker of twice the cores gets twice the cameras."""
    assert counts(fleet(6, 2.0, 1.0)) == [4, 2]
    assert counts(fleet(3, 2.0, 2.0, 2.0)) == [1, 1, 1]


def test_more_cameras_than_room() -> None:
    """Those that come last in the file wait."""
    assignments = fleet(7, 1.0, 1.5)
    assert assignments.waiting == ["cam-5", "cam-6"]
    assert assignments.room == 5
    check_each_camera_once(assignments)


def test_small_worker_takes_one_camera() -> None:
    """A camera that needs more than a whole worker is still watched."""
    assert counts(fleet(3, 1.0, need=1.5)) == [1]


def test_a_camera_that_has_finished_is_not_watched_again() -> None:
    """It waits for no other worker when its own ends, does not move and is not reported as offline."""
    assignments = fleet(2, 1.0)
    assignments.finish("cam-0")
    assignments.join(1, cores=1.0, need=0.5, now=0.0)
    assert assignments.balance() == []
    assert assignments.tick(OFFLINE_S + 0.1).offline == ("cam-1",)
    assert assignments.ended(0, certain=True) == ["cam-1"]
    assert assignments.waiting == ["cam-1"]
    assert not assignments.settled
    assignments.answered(1, {}, OFFLINE_S + 0.2)
    assert assignments.place() == ["cam-1"]
    assert assignments.settled


@pytest.mark.parametrize(("sources", "jobs"), [(1, 1), (4, 3), (7, 6), (10, 4), (12, 5)])
def test_processes_that_share_the_sources(sources: int, jobs: int) -> None:
    """In whichever order they start, the sources are spread evenly and none moves."""
    assignments = Assignments([f"cam-{number}" for number in range(sources)])
    for index in reversed(range(jobs)):
        share = share_of(sources, jobs, index)
        assignments.join(index, cores=2, need=2 / share, now=0.0)
        assignments.place()
        assert assignments.balance() == []
    assert assignments.settled
    assert max(counts(assignments)) - min(counts(assignments)) <= 1


def test_silent_worker() -> None:
    """Its cameras are offline first, stay its own while it may still watch them, and then go to others."""
    assignments = fleet(4, 2.0, 2.0)
    mine = assignments.assigned(0)
    assignments.answered(1, assignments.assigned(1), RELEASE_S)
    assert assignments.tick(OFFLINE_S).offline == ()
    assert assignments.tick(OFFLINE_S + 0.1).offline == tuple(mine)
    assert assignments.tick(OFFLINE_S + 0.2).offline == ()
    assignments.place()
    assert assignments.assigned(0) == mine
    assert assignments.tick(RELEASE_S + 0.1).released == (0,)
    assert sorted(assignments.place()) == sorted(mine)
    assert counts(assignments) == [4]
    assert all(not assignments.accepts(0, name, epoch) for name, epoch in mine.items())
    assert all(assignments.accepts(1, name, epoch + 1) for name, epoch in mine.items())
    assert not any(assignments.accepts(1, name, epoch) for name, epoch in mine.items())


def test_worker_that_answers_again() -> None:
    """It keeps its cameras, whose states are to be published again."""
    assignments = fleet(2, 1.0)
    assignments.tick(OFFLINE_S + 0.1)
    assert assignments.answered(0, {"cam-0": 1, "cam-1": 1}, 3.0) == ["cam-0", "cam-1"]
    assert assignments.tick(3.1).offline == ()
    assert assignments.answered(0, {"cam-0": 1, "cam-1": 1}, 3.2) == []


@pytest.mark.parametrize("certain", [True, False])
def test_ended_worker(certain: bool) -> None:
    """Its cameras are offline at once; they are placed at once only if its process has certainly ended."""
    assignments = fleet(4, 2.0, 2.0)
    cameras = assignments.ended(0, certain=certain)
    assert len(cameras) == 2
    assert sorted(assignments.place()) == (cameras if certain else [])
    assignments.answered(1, assignments.assigned(1), RELEASE_S)
    assignments.tick(RELEASE_S + 0.1)
    assignments.place()
    assert assignments.waiting == []
    check_each_camera_once(assignments)


def test_new_worker_gets_cameras_that_their_workers_have_stopped() -> None:
    """A camera that moves is nobody's until its worker confirms it, and its messages no longer count."""
    assignments = fleet(4, 2.0)
    before = assignments.assigned(0)
    assignments.join(1, cores=2.0, need=0.5, now=0.0)
    assert assignments.place() == []
    moving = assignments.balance()
    assert len(moving) == 2
    assert assignments.balance() == []
    assert not any(assignments.accepts(0, name, before[name]) for name in moving)
    assignments.answered(0, before, 0.1)
    assert assignments.place() == []
    check_each_camera_once(assignments)
    assignments.answered(0, assignments.assigned(0), 0.2)
    assert sorted(assignments.place()) == sorted(moving)
    assert counts(assignments) == [2, 2]
    assert {assignments.cameras[name].epoch for name in moving} == {2}
    check_each_camera_once(assignments)
