"""Uploaded videos: received to disk, scanned one at a time by a process of low priority, deleted after it.

async with UploadService(model=None, engine="auto") as uploads:
    job_id = await uploads.receive("clip.mp4", size, parts)
    print(uploads.status(job_id))
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import AsyncIterable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import runtime
from runtime.errors import os_reason
from runtime.uploads.folder import REPORTS, UploadFolder, safe_name
from runtime.uploads.jobs import Job, JobList, UploadLimits, UploadRefused

logger = logging.getLogger(__name__)

# A scan that reports nothing for this long is ended; opening a model may take a while.
SILENCE_S = 120.0
# Time that a worker has to end after it has closed its output.
EXIT_S = 10.0
CHECK_S = 1.0
MAX_LINE_BYTES = 1 << 20
# Standard error of a scan, beside the video; no safe name of a video begins with a dot.
LOG_FILE = ".log"
MAX_LOG_CHARACTERS = 4000


class UploadService:
    """Uploads of one server; for its event loop.

    Args:
        model: Directory of the bundle; None for the bundled model.
        engine: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
        limits: Limits of uploads.
        parent: Folder for the videos; None for the system's folder of temporary files.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        model: Path | None = None,
        engine: str = "auto",
        limits: UploadLimits | None = None,
        parent: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or UploadLimits()
        self._model = None if model is None else model.resolve()
        self._engine = engine
        self._clock = clock
        self._folder = UploadFolder(parent)
        self._jobs = JobList(self.limits)
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self._folder)
        self._stack.push_async_callback(self._end_worker)
        for work in (self._scan_all(), self._drop_old()):
            self._stack.push_async_callback(_cancel, asyncio.create_task(work))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def active(self) -> int:
        """Number of videos that are received, wait or are scanned."""
        return len(self._jobs.active())

    async def receive(self, name: str, size: int, parts: AsyncIterable[bytes]) -> str:
        """Receive a video, which is scanned as soon as the ones before it are done.

        Args:
            name: Name of the file at the client; folders in it are dropped.
            size: Announced size in bytes.
            parts: The content.

        Returns:
            The id of the job.

        Raises:
            UploadRefused: The upload is not accepted, or the disk is full.
            ConnectionError: The client has left; nothing of its video is kept.
        """
        job_id = secrets.token_urlsafe(16)
        job = self._jobs.open(
            job_id, safe_name(name), size, free_bytes=self._folder.free_bytes, now=self._clock()
        )
        try:
            path = self._folder.new(job_id) / job.name
            async with asyncio.timeout(self.limits.receive_s):
                await _write(path, parts, size)
        except BaseException as error:
            self._jobs.end(job, "cancelled", self._clock())
            self._folder.delete(job_id)
            if isinstance(error, TimeoutError):
                raise ConnectionResetError("the client sent its file too slowly") from error
            if isinstance(error, OSError) and not isinstance(error, ConnectionError):
                reason = os_reason(error)
                raise UploadRefused(f"The server cannot store the file: {reason}.", full=True) from error
            raise
        job.state, job.seen = "waiting", self._clock()
        self._changed.set()
        return job_id

    def status(self, job_id: str) -> dict[str, Any] | None:
        """Return the state of a job as a JSON object; None if there is no such job.

        A client that does not ask for `abandoned_s` is taken to have left, and its job is cancelled.

        Args:
            job_id: Id of the job.
        """
        job = self._jobs.get(job_id, self._clock())
        if job is None:
            return None
        return {
            "state": job.state,
            "name": job.name,
            "before": self._jobs.position(job) if job.state == "waiting" else 0,
            "seconds": job.seconds,
            "length_s": job.length_s,
            "error": job.error,
            "result": job.result,
        }

    def cancel(self, job_id: str) -> bool:
        """Cancel a job or delete its report; return whether there is such a job."""
        job = self._jobs.get(job_id, self._clock())
        if job is None:
            return False
        self._cancel(job)
        return True

    def report(self, job_id: str, kind: str) -> bytes | None:
        """Return a report; None if there is none.

        Args:
            job_id: Id of the job.
            kind: `html` or `json`.
        """
        job = self._jobs.get(job_id, self._clock())
        if job is None or job.state != "done":
            return None
        return (self._folder.path / job.id / REPORTS[kind]).read_bytes()

    def _cancel(self, job: Job) -> None:
        scanning = job.state == "scanning"
        self._jobs.end(job, "cancelled", self._clock())
        if scanning and self._process is not None:
            # Its folder is deleted once it has ended.
            with suppress(ProcessLookupError):
                self._process.kill()
        else:
            if job.state == "done":
                job.state, job.result = "cancelled", None
            self._folder.delete(job.id)

    async def _scan_all(self) -> None:
        """Scan the videos that wait, one at a time."""
        while True:
            job = self._jobs.next_waiting()
            if job is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            job.state = "scanning"
            folder = self._folder.path / job.id
            try:
                await self._scan(job, folder)
            except Exception:
                logger.exception("an uploaded video could not be scanned")
                self._fail(job, "Internal error; the log has its traceback.")
            (folder / job.name).unlink(missing_ok=True)
            if job.result is None:
                self._folder.delete(job.id)

    async def _scan(self, job: Job, folder: Path) -> None:
        process = await self._start(folder, job.name)
        self._process = process
        patience_s = 0.0
        try:
            assert process.stdout is not None
            while True:
                async with asyncio.timeout(SILENCE_S):
                    line = await process.stdout.readline()
                if not line:
                    # It is about to end. To kill it now would take its exit code from asyncio.
                    patience_s = EXIT_S
                    break
                self._apply(job, json.loads(line))
        except TimeoutError:
            self._fail(job, f"The scan made no progress for {SILENCE_S:g} s.")
        finally:
            # If the service is closed meanwhile, it waits itself.
            await _end(process, patience_s)
            self._process = None
        if job.state == "scanning":
            log = (folder / LOG_FILE).read_text(errors="replace")[-MAX_LOG_CHARACTERS:]
            logger.error("the scan of an uploaded video ended with %s: %s", process.returncode, log)
            self._fail(job, "The scan ended unexpectedly; the server's log has the reason.")

    async def _end_worker(self) -> None:
        if self._process is not None:
            await _end(self._process, 0.0)

    def _apply(self, job: Job, message: dict[str, Any]) -> None:
        if job.state != "scanning":
            return  # sent before the worker of a cancelled job was killed
        if "result" in message:
            job.result = message["result"]
            self._jobs.end(job, "done", self._clock())
        elif "error" in message:
            self._fail(job, message["error"])
        else:
            job.seconds, job.length_s = message["seconds"], message["length_s"]

    def _fail(self, job: Job, error: str) -> None:
        self._jobs.end(job, "failed", self._clock(), error=error)

    async def _start(self, folder: Path, name: str) -> asyncio.subprocess.Process:
        # -P: no module is imported from the current folder, whatever is in it.
        root = Path(runtime.__path__[0]).parent
        search = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        model = () if self._model is None else (str(self._model),)
        program = (sys.executable, "-P", "-m", "runtime.uploads.worker")
        with (folder / LOG_FILE).open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *(*program, str(folder), name, self._engine, *model),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=MAX_LINE_BYTES,
                env={**os.environ, "PYTHONPATH": search},
            )

    async def _drop_old(self) -> None:
        """Cancel the jobs of clients that have left, and delete old reports."""
        while True:
            await asyncio.sleep(CHECK_S)
            now = self._clock()
            for job in self._jobs.abandoned(now):
                self._cancel(job)
            for job in self._jobs.remove_expired(now):
                self._folder.delete(job.id)


async def _end(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """Wait for a process to end, and kill it if it does not."""
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _write(path: Path, parts: AsyncIterable[bytes], size: int) -> None:
    """Write the parts of a video; the disk does not hold up the event loop."""
    received = 0
    with path.open("xb") as file:
        async for part in parts:
            received += len(part)
            if received > size:
                raise ConnectionAbortedError("the client sent more than it had announced")
            await asyncio.to_thread(file.write, part)
    if received < size:
        raise ConnectionResetError("the client left before it had sent the whole file")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
