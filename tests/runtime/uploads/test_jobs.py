"""Tests of the list of uploads, without I/O and clock."""

from __future__ import annotations

import pytest

from runtime.uploads.jobs import GIB, JobList, UploadLimits, UploadRefused

LIMITS = UploadLimits(max_bytes=GIB, max_jobs=2, reserve_bytes=GIB, abandoned_s=10, keep_s=100, max_reports=2)
MIB = 1024**2


def test_limits() -> None:
    """Too large, too many, too little space: each has a message of its own."""
    jobs = JobList(LIMITS)
    with pytest.raises(UploadRefused, match=r"The file has 2\.0 GiB; at most 1\.0 GiB are accepted"):
        jobs.open("a", "a.mp4", 2 * GIB, free_bytes=100 * GIB, now=0)
    with pytest.raises(UploadRefused, match="too little free space") as full:
        jobs.open("a", "a.mp4", GIB, free_bytes=2 * GIB - 1, now=0)
    assert full.value.full
    jobs.open("a", "a.mp4", GIB, free_bytes=2 * GIB, now=0)
    # What the first one has announced will fill the disk too.
    with pytest.raises(UploadRefused, match="too little free space"):
        jobs.open("b", "b.mp4", GIB, free_bytes=2 * GIB, now=0)
    jobs.open("b", "b.mp4", 5 * MIB, free_bytes=3 * GIB, now=0)
    with pytest.raises(UploadRefused, match="2 videos are being scanned or wait") as many:
        jobs.open("c", "c.mp4", 5 * MIB, free_bytes=100 * GIB, now=0)
    assert not many.value.full
    with pytest.raises(ValueError, match="must be positive"):
        UploadLimits(max_jobs=0)


def test_order_and_positions() -> None:
    """Videos are scanned in the order of their arrival."""
    jobs = JobList(UploadLimits())
    first, second, third = (jobs.open(name, name, 1, free_bytes=9 * GIB, now=0) for name in "abc")
    for job in (first, second, third):
        job.state = "waiting"
    assert [jobs.position(job) for job in (first, second, third)] == [0, 1, 2]
    assert jobs.next_waiting() is first
    first.state = "scanning"
    assert jobs.next_waiting() is second
    jobs.end(first, "done", 5.0)
    jobs.end(first, "cancelled", 6.0)
    assert (first.state, first.ended, jobs.position(third)) == ("done", 5.0, 1)
    assert jobs.active() == [second, third]


def test_abandoned_and_expired() -> None:
    """A client that no longer asks has left; reports are kept for a time, and only the newest."""
    jobs = JobList(LIMITS)
    for number in range(3):
        job = jobs.open(str(number), "x", 1, free_bytes=9 * GIB, now=0)
        job.state = "waiting"
        jobs.get(str(number), 5.0)
        assert jobs.abandoned(15.0) == []
        assert jobs.abandoned(15.1) == [job]
        jobs.end(job, "done", float(number))
    assert [job.id for job in jobs.remove_expired(10.0)] == ["0"]
    assert [job.id for job in jobs.remove_expired(101.5)] == ["1"]
    assert jobs.get("1", 0) is None
    assert jobs.get("2", 0) is not None
