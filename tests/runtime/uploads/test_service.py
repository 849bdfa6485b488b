"""Tests of uploads with real videos, scanned by the worker process with a small model of random weights."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from runtime.uploads import service
from runtime.uploads.folder import UploadFolder
from runtime.uploads.jobs import Job, UploadLimits, UploadRefused
from runtime.uploads.service import UploadService
from runtime.uploads.worker import NotAVideo, check_container
from tests.faults.test_large_frames import LARGE, png_packets, write_frames

TIMEOUT_S = 60.0


async def parts_of(content: bytes) -> AsyncIterator[bytes]:
    """Yield a content in parts."""
    for begin in range(0, len(content), 65536):
        yield content[begin : begin + 65536]


async def finish(uploads: UploadService, job_id: str) -> dict[str, Any]:
    """Return the status of a job once it has ended."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            status = uploads.status(job_id)
            assert status is not None
            if status["state"] not in ("waiting", "scanning"):
                return status
            await asyncio.sleep(0.05)


async def send(uploads: UploadService, name: str, content: bytes) -> str:
    """Upload a content."""
    return await uploads.receive(name, len(content), parts_of(content))


def test_videos_are_scanned_in_turn_and_deleted(
    small_bundle: Path, face_video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A report follows; of the video nothing remains, and at the end nothing at all."""

    async def run() -> None:
        async with UploadService(model=small_bundle, engine="onnxruntime", parent=tmp_path) as uploads:
            content = face_video.read_bytes()
            first = await send(uploads, "../../first.mp4", content)
            second = await send(uploads, "second.txt", b"no video" * 1000)
            assert (uploads.active, uploads.report(first, "html")) == (2, None)
            await asyncio.sleep(0)
            status = uploads.status(second)
            assert status is not None
            assert (status["state"], status["before"]) == ("waiting", 1)
            done = await finish(uploads, first)
            assert (done["state"], done["name"], done["error"]) == ("done", "first.mp4", None)
            assert done["result"]["verdict"] in ("real", "uncertain", "fake")
            assert done["length_s"] == pytest.approx(4.0, abs=0.1)
            assert b"first.mp4" in (uploads.report(first, "html") or b"")
            report = json.loads(uploads.report(first, "json") or b"")
            assert report["videos"][0]["file"] == "first.mp4"
            failed = await finish(uploads, second)
            assert failed["state"] == "failed"
            assert failed["error"].startswith("second.txt: not a video that can be read")
            assert list(tmp_path.rglob("*.mp4")) == []
            assert uploads.cancel(first)
            assert uploads.report(first, "html") is None
            assert not uploads.cancel("unknown")
        assert list(tmp_path.iterdir()) == []

    asyncio.run(run())
    # Such as that of asyncio about a process whose exit code somebody else has taken.
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_worker_that_hangs_holds_up_no_other_video(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed, its video has failed, and the next one gets its turn."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")

    async def run() -> None:
        async with UploadService(model=small_bundle, parent=tmp_path) as uploads:
            before = set(children.read_text().split())
            first = await send(uploads, "first.mp4", b"no video" * 1000)
            second = await send(uploads, "second.mp4", b"no video" * 1000)
            async with asyncio.timeout(TIMEOUT_S):
                while not (started := set(children.read_text().split()) - before):
                    await asyncio.sleep(0.01)
            os.kill(int(started.pop()), signal.SIGSTOP)
            assert (await finish(uploads, first))["error"] == "The scan made no progress for 1 s."
            # On a busy machine this one may take longer to start too.
            assert (await finish(uploads, second))["state"] == "failed"

    monkeypatch.setattr(service, "SILENCE_S", 1.0)
    asyncio.run(run())


def test_bad_videos_have_one_message_each(small_bundle: Path, face_video: Path, tmp_path: Path) -> None:
    """Cut off, and frames that would fill the memory; the message does not contain the server's folder."""
    content = face_video.read_bytes()
    large = write_frames(tmp_path / "large.mov", png_packets(LARGE, 2), LARGE)
    cases = {
        "cut.mp4": (content[: len(content) // 2], "damaged or cut off"),
        "large.mov": (large.read_bytes(), "larger than 8192 x 4352 pixels"),
    }

    async def run() -> None:
        limits = UploadLimits(max_jobs=len(cases))
        async with UploadService(model=small_bundle, limits=limits, parent=tmp_path) as uploads:
            ids = {name: await send(uploads, name, data) for name, (data, _) in cases.items()}
            for name, (_, words) in cases.items():
                status = await finish(uploads, ids[name])
                assert status["state"] == "failed"
                assert status["error"].startswith(f"{name}: ")
                assert words in status["error"]
                assert str(tmp_path) not in status["error"]

    asyncio.run(run())


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.txt"])
@pytest.mark.parametrize("kind", ["playlist", "concatenation", "session"])
def test_files_that_refer_to_others_are_refused(kind: str, name: str, clip: Path, tmp_path: Path) -> None:
    """A client could have files of the server scanned, or addresses requested."""
    contents = {
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\nfile://{clip}\n#EXT-X-ENDLIST\n",
        "concatenation": f"ffconcat version 1.0\nfile '{clip}'\n",
        "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    }
    path = tmp_path / name
    path.write_text(contents[kind])
    with pytest.raises(NotAVideo, match="not a video that can be read"):
        check_container(path)
    assert check_container(clip) == pytest.approx(4.0, abs=0.1)


def test_a_client_that_leaves_costs_nothing(small_bundle: Path, face_video: Path, tmp_path: Path) -> None:
    """While it uploads, while its video waits or is scanned."""
    now = 0.0

    async def cut_off() -> AsyncIterator[bytes]:
        yield b"the beginning"
        raise ConnectionResetError("the client left")

    async def too_slow() -> AsyncIterator[bytes]:
        yield b"the beginning"
        await asyncio.Event().wait()

    async def run() -> None:
        nonlocal now
        limits = UploadLimits(abandoned_s=10, receive_s=0.5)
        service = UploadService(model=small_bundle, limits=limits, parent=tmp_path, clock=lambda: now)
        async with service as uploads:
            with pytest.raises(ConnectionResetError):
                await uploads.receive("a.mp4", 1000, cut_off())
            with pytest.raises(ConnectionResetError, match="before it had sent the whole file"):
                await uploads.receive("a.mp4", 1000, parts_of(b"too little"))
            with pytest.raises(ConnectionAbortedError, match="more than it had announced"):
                await uploads.receive("a.mp4", 3, parts_of(b"too much"))
            with pytest.raises(ConnectionResetError, match="too slowly"):
                await uploads.receive("a.mp4", 1000, too_slow())
            assert (uploads.active, list(tmp_path.rglob("a.mp4"))) == (0, [])
            content = face_video.read_bytes()
            ids = [await send(uploads, "b.mp4", content) for _ in range(3)]
            now = 9.0
            assert uploads.cancel(ids[2])
            uploads.status(ids[1])
            now = 11.0
            async with asyncio.timeout(TIMEOUT_S):
                # The second client still asks, so only its video is scanned.
                while uploads.active > 1:
                    await asyncio.sleep(0.05)
            done = await finish(uploads, ids[1])
            assert done["state"] == "done"
            states = [(uploads.status(job_id) or {})["state"] for job_id in ids]
            assert states == ["cancelled", "done", "cancelled"]

    asyncio.run(run())


def test_a_job_that_is_cancelled_as_it_ends_keeps_no_report(
    small_bundle: Path, face_video: Path, tmp_path: Path
) -> None:
    """The result has been sent, but not read yet."""

    class CancelledBefore(UploadService):
        def _apply(self, job: Job, message: dict[str, Any]) -> None:
            if "result" in message:
                assert self.cancel(job.id)
            super()._apply(job, message)

    async def run() -> None:
        async with CancelledBefore(model=small_bundle, engine="onnxruntime", parent=tmp_path) as uploads:
            first = await send(uploads, "a.mp4", face_video.read_bytes())
            second = await send(uploads, "b.mp4", b"no video" * 1000)
            # Scanned once the first one is over.
            assert (await finish(uploads, second))["state"] == "failed"
            status = uploads.status(first)
            assert status is not None
            assert (status["state"], status["result"]) == ("cancelled", None)
            assert list(tmp_path.rglob(".report.*")) == []

    asyncio.run(run())


def test_a_disk_without_room_for_a_folder_costs_no_slot(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one without inodes; the upload is refused like one that fills the disk."""

    def fail(folder: UploadFolder, job_id: str) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(UploadFolder, "new", fail)

    async def run() -> None:
        limits = UploadLimits(max_jobs=1)
        async with UploadService(model=small_bundle, limits=limits, parent=tmp_path) as uploads:
            for _ in range(2):
                with pytest.raises(UploadRefused, match="no space left on device") as refused:
                    await send(uploads, "a.mp4", b"a video")
                assert refused.value.full
            assert uploads.active == 0

    asyncio.run(run())


def test_a_failing_worker_is_reported(
    small_bundle: Path, face_video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model that went away, and a disk that cannot be written."""
    gone = tmp_path / "gone"

    async def run() -> None:
        async with UploadService(model=gone, parent=tmp_path) as uploads:
            status = await finish(uploads, await send(uploads, "a.mp4", face_video.read_bytes()))
            assert status["state"] == "failed"
            assert "gone" in status["error"]
        async with UploadService(model=small_bundle, engine="\0", parent=tmp_path) as uploads:
            status = await finish(uploads, await send(uploads, "a.mp4", face_video.read_bytes()))
            assert status["error"] == "Internal error; the log has its traceback."

    asyncio.run(run())
    assert "could not be scanned" in caplog.text


def test_too_large_files_are_refused_before_they_are_sent(small_bundle: Path, tmp_path: Path) -> None:
    """Nothing of them is read."""

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    async def run() -> None:
        limits = UploadLimits(max_bytes=100)
        async with UploadService(model=small_bundle, limits=limits, parent=tmp_path) as uploads:
            with pytest.raises(UploadRefused, match="at most"):
                await uploads.receive("a.mp4", 101, never())

    asyncio.run(run())
