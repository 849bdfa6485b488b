"""Uploaded videos from the first byte to the report. No I/O and no clock: sizes and times are passed in.

receiving -> waiting -> scanning -> done, failed or cancelled
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

JobState: TypeAlias = Literal["receiving", "waiting", "scanning", "done", "failed", "cancelled"]
ACTIVE: frozenset[str] = frozenset({"receiving", "waiting", "scanning"})
GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Limits of uploads.

    Args:
        max_bytes: Largest file.
        max_jobs: Largest number of videos that are received, wait or are scanned.
        reserve_bytes: Space on the disk that uploads leave free.
        receive_s: Longest time in seconds for receiving a file.
        abandoned_s: Time in seconds after which a client that no longer asks for progress has left.
        keep_s: Time in seconds for which a report is kept.
        max_reports: Largest number of reports that are kept; the oldest is dropped first.

    Raises:
        ValueError: A limit is not positive.
    """

    max_bytes: int = 2 * GIB
    max_jobs: int = 4
    reserve_bytes: int = GIB
    receive_s: float = 3600.0
    # Browsers let a page in the background ask once a minute only.
    abandoned_s: float = 90.0
    keep_s: float = 3600.0
    max_reports: int = 20

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_jobs, self.abandoned_s, self.keep_s, self.max_reports) <= 0:
            raise ValueError(f"every limit of uploads must be positive: {self}")


class UploadRefused(Exception):
    """An upload that is not accepted now.

    Args:
        reason: Cause and advice in one sentence.
        full: Whether it is refused for lack of space on the disk, else because of too many uploads.
    """

    def __init__(self, reason: str, *, full: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.full = full


@dataclass(kw_only=True)
class Job:
    """One uploaded video.

    Args:
        id: Secret name of the job, which only its client knows.
        name: Name of the file, made safe.
        size: Announced size in bytes.
        seen: Time at which its client was last heard of, in seconds.
        state: See the module.
        seconds: Seconds of the video that are analysed.
        length_s: Length of the video in seconds; None if it is unknown.
        error: Why it has failed; None if it has not.
        result: Result of the scan for the client; None before the end.
        ended: Time of the end in seconds; None before.
    """

    id: str
    name: str
    size: int
    seen: float
    state: JobState = "receiving"
    seconds: float = 0.0
    length_s: float | None = None
    error: str | None = None
    result: dict[str, Any] | None = None
    ended: float | None = None


@dataclass
class JobList:
    """All jobs, in the order of their arrival.

    Args:
        limits: Limits of uploads.
    """

    limits: UploadLimits
    _jobs: dict[str, Job] = field(default_factory=dict)

    def open(self, job_id: str, name: str, size: int, *, free_bytes: int, now: float) -> Job:
        """Add a job, whose video is about to be received.

        Args:
            job_id: Its id.
            name: Name of the file.
            size: Announced size in bytes.
            free_bytes: Free space on the disk.
            now: Time in seconds.

        Raises:
            UploadRefused: There are too many jobs, the file is too large or the disk too full.
        """
        active = self.active()
        if size > self.limits.max_bytes:
            raise UploadRefused(
                f"The file has {_size(size)}; at most {_size(self.limits.max_bytes)} are accepted."
            )
        if len(active) >= self.limits.max_jobs:
            raise UploadRefused(f"{len(active)} videos are being scanned or wait; try again later.")
        announced = sum(job.size for job in active if job.state == "receiving")
        if free_bytes - announced - size < self.limits.reserve_bytes:
            raise UploadRefused("The disk of the server has too little free space for this file.", full=True)
        job = Job(id=job_id, name=name, size=size, seen=now)
        self._jobs[job_id] = job
        return job

    def active(self) -> list[Job]:
        """Return the jobs that have not ended, in order."""
        return [job for job in self._jobs.values() if job.state in ACTIVE]

    def get(self, job_id: str, now: float) -> Job | None:
        """Return a job whose client asks for it; None if there is none of this id."""
        job = self._jobs.get(job_id)
        if job is not None:
            job.seen = now
        return job

    def next_waiting(self) -> Job | None:
        """Return the job to scan next; None if none waits."""
        return next((job for job in self._jobs.values() if job.state == "waiting"), None)

    def position(self, job: Job) -> int:
        """Return how many videos are scanned before this one."""
        before = 0
        for other in self._jobs.values():
            if other is job:
                break
            before += other.state in ("waiting", "scanning")
        return before

    def end(self, job: Job, state: JobState, now: float, *, error: str | None = None) -> None:
        """End a job; one that has ended keeps its state."""
        if job.state in ACTIVE:
            job.state, job.error, job.ended = state, error, now

    def abandoned(self, now: float) -> list[Job]:
        """Return the jobs whose client has left while they wait or are scanned."""
        return [
            job
            for job in self._jobs.values()
            if job.state in ("waiting", "scanning") and now - job.seen > self.limits.abandoned_s
        ]

    def remove_expired(self, now: float) -> list[Job]:
        """Remove the jobs whose report is no longer kept, and return them."""
        ended = [job for job in self._jobs.values() if job.ended is not None]
        surplus = len(ended) - self.limits.max_reports
        expired = [
            job
            for number, job in enumerate(ended)
            if number < surplus or now - (job.ended or 0.0) > self.limits.keep_s
        ]
        for job in expired:
            del self._jobs[job.id]
        return expired


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 else f"{size / 1024**2:.1f} MiB"
