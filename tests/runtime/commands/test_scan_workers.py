"""Tests of `unmask scan --jobs` and `--resume`, and of the address after `--ray`."""

from __future__ import annotations

import errno
import json
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from runtime.child_process import start_child
from runtime.commands.options import UserError
from runtime.commands.scan.arguments import with_ray_value
from runtime.commands.scan.command import run_scan
from runtime.commands.scan.outcome import ScanOptions, ScanOutcome
from runtime.errors import NoWorkers
from runtime.fleet.archive.processes import ProcessPool
from runtime.fleet.archive.worker import ScanSetup


def lines(path: Path) -> list[dict[str, object]]:
    return sorted(
        (json.loads(line) for line in path.read_text().splitlines()), key=lambda line: str(line["file"])
    )


def test_processes_and_resume(
    small_bundle: Path,
    face_video: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two processes give the lines of one, also when one is killed; then only what has no line is scanned."""
    files = [tmp_path / f"{number}.mp4" for number in range(6)]
    for number, file in enumerate(files):
        file.symlink_to((face_video, clip)[number % 2])
    empty = tmp_path / "empty.mp4"
    empty.touch()
    plain, resumed = tmp_path / "plain.jsonl", tmp_path / "resumed.jsonl"
    paths = [*files, empty]
    assert run_scan(ScanOptions(paths=paths, as_json=True, model=small_bundle)) == 2
    plain.write_text(capsys.readouterr().out)
    whole = lines(plain)
    cut = plain.read_text().splitlines(keepends=True)
    resumed.write_text(cut[0] + cut[1][:20])

    begin = ScanOutcome.begin
    killed: list[int] = []

    def begin_and_kill(self: ScanOutcome, file: Path) -> None:
        begin(self, file)
        if not killed and file != files[1]:
            killed.append(worker_processes()[0])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(ScanOutcome, "begin", begin_and_kill)
    options = ScanOptions(paths=paths, as_json=True, model=small_bundle, jobs=2, resume=resumed)
    assert run_scan(options) == 2
    out, err = capsys.readouterr()
    assert killed
    assert lines(resumed) == whole
    assert len(out.splitlines()) == len(paths) - 1
    assert err.count("empty.mp4") == 1

    assert run_scan(options) == 2, "an earlier line says that a file could not be read"
    assert capsys.readouterr().out == ""
    assert lines(resumed) == whole
    assert worker_processes() == []


def test_workers_that_cannot_start(
    small_bundle: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others scan everything, and one line says what to do; without any other it is the error."""
    files = [tmp_path / f"{number}.mp4" for number in range(3)]
    for file in files:
        file.symlink_to(clip)
    allowed = 1

    def start(process: BaseProcess) -> None:
        nonlocal allowed
        if allowed == 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        allowed -= 1
        start_child(process)

    monkeypatch.setattr("runtime.child_process.start_child", start)
    options = ScanOptions(paths=files, as_json=True, model=small_bundle, jobs=3)
    assert run_scan(options) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["no_face"] * 3
    reason = "a worker process cannot start: too many open files; give a smaller number with --jobs"
    assert err.count(reason) == 1
    with pytest.raises(NoWorkers, match=reason):
        run_scan(options)
    assert worker_processes() == []


@pytest.mark.parametrize(("files", "jobs", "threads"), [(1, 8, 8), (2, 8, 4), (3, 2, 4)])
def test_cores_are_shared_by_the_processes_that_start(
    files: int,
    jobs: int,
    threads: int,
    small_bundle: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With fewer files than jobs no core is left out."""
    for number in range(files):
        (tmp_path / f"{number}.mp4").symlink_to(clip)
    started: list[tuple[int | None, int]] = []

    class Pool(ProcessPool):
        def __init__(self, setup: ScanSetup, processes: int) -> None:
            started.append((setup.threads, processes))
            raise NoWorkers(["only the setup is looked at"])

    monkeypatch.setattr("runtime.commands.scan.command.ProcessPool", Pool)
    monkeypatch.setattr("runtime.commands.scan.command.usable_cores", lambda: 8)
    with pytest.raises(NoWorkers):
        run_scan(ScanOptions(paths=[tmp_path], model=small_bundle, jobs=jobs))
    assert started == [(threads, min(files, jobs))]


def worker_processes() -> list[int]:
    """Return the child processes that multiprocessing has spawned for work."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_text()
            except (OSError, ValueError):
                continue
            if parent == os.getpid() and "spawn_main" in command:
                found.append(int(folder.name))
    return sorted(found)


def test_reports_of_processes(small_bundle: Path, face_video: Path, clip: Path, tmp_path: Path) -> None:
    """A report lists the videos in the order of the command line."""
    report = tmp_path / "report.json"
    options = ScanOptions(paths=[face_video, clip], model=small_bundle, jobs=2, reports=[report])
    assert run_scan(options) == 0
    videos = json.loads(report.read_text())["videos"]
    assert [Path(video["file"]).name for video in videos] == [face_video.name, clip.name]


def test_model_that_cannot_be_loaded(
    small_bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers with another model than the command are refused, with one line."""
    monkeypatch.setattr("runtime.commands.scan.command.version", lambda: "0.0.1")
    with pytest.raises(NoWorkers, match="install the same version"):
        run_scan(ScanOptions(paths=[clip], model=small_bundle, jobs=2, as_json=True))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"jobs": 2, "ray": ""}, "give one of them"),
        ({"jobs": 2, "annotate": Path("out.mp4")}, "leave out --ray and --jobs"),
        ({"resume": Path("out.jsonl"), "reports": [Path("report.html")]}, "leave out --resume"),
    ],
)
def test_options_that_exclude_each_other(options: dict[str, object], expected: str, clip: Path) -> None:
    """One line says which to leave out."""
    with pytest.raises(UserError, match=expected):
        run_scan(ScanOptions(paths=[clip], **options))  # type: ignore[arg-type]


def test_address_after_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word after `--ray` is its address if it has the form of one and is no file."""
    monkeypatch.chdir(tmp_path)
    assert with_ray_value(["--ray", "videos", "--json"]) == ["--ray=", "videos", "--json"]
    assert with_ray_value(["videos", "--ray"]) == ["videos", "--ray="]
    assert with_ray_value(["videos", "--ray", "10.0.0.1:6379"]) == ["videos", "--ray", "10.0.0.1:6379"]
    assert with_ray_value(["--ray", "auto", "videos"]) == ["--ray", "auto", "videos"]
    assert with_ray_value(["--ray", "[::1]:6379", "a"]) == ["--ray", "[::1]:6379", "a"]
    assert with_ray_value(["--ray=head:1", "a"]) == ["--ray=head:1", "a"]
    assert with_ray_value(["--", "--ray"]) == ["--", "--ray"]
    (tmp_path / "auto").mkdir()
    assert with_ray_value(["--ray", "auto"]) == ["--ray=", "auto"]
