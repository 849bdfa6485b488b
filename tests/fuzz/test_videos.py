"""Damaged videos to `unmask scan`, in a process of its own: no crash, no traceback, no hang."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fuzzing import examples, mutations
from tests.support.videos import write_face_video

SUFFIXES = [".mp4", ".ts"]
FILES = 6  # in one process, which takes a second to start
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A second of a face, by suffix."""
    folder = tmp_path_factory.mktemp("originals")
    return {
        suffix: write_face_video(folder / f"face{suffix}", seconds=1.0).read_bytes() for suffix in SUFFIXES
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the damaged videos."""
    return tmp_path_factory.mktemp("videos")


@pytest.mark.fuzz
@examples(1, 500)
@given(data=st.data())
def test_damaged_videos(originals: dict[str, bytes], folder: Path, data: st.DataObject) -> None:
    """Each file has a result or an error in one line; exit code 0 or 2."""
    for path in folder.iterdir():
        path.unlink()
    for number in range(FILES):
        suffix = data.draw(st.sampled_from(SUFFIXES))
        content = data.draw(mutations(originals[suffix]))
        (folder / f"{number}{suffix}").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "unmask", "scan", "--json", folder],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == FILES
