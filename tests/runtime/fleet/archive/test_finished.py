"""Tests of the continuation of an interrupted scan."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from runtime.errors import ResumeFailed
from runtime.fleet.archive.finished import open_continued, read_finished


def line(file: str, state: str = "scored") -> str:
    return json.dumps({"file": file, "state": state}) + "\n"


def test_last_line_that_was_cut_off(tmp_path: Path) -> None:
    """It is removed, and its file is not done."""
    path = tmp_path / "out.jsonl"
    path.write_text(line("a.mp4") + line("b.mp4", "unreadable") + line("c.mp4")[:-9])
    finished = read_finished(path)
    assert finished.without([Path("a.mp4"), Path("b.mp4"), Path("c.mp4")]) == [Path("c.mp4")]
    assert finished.unreadable == 1
    assert path.read_text() == line("a.mp4") + line("b.mp4", "unreadable")


@pytest.mark.parametrize("length", [1, 8, 20])
def test_only_line_that_was_cut_off(length: int, tmp_path: Path) -> None:
    """A scan that was killed in its first line begins again, wherever the line was cut."""
    path = tmp_path / "out.jsonl"
    path.write_text(line("a.mp4")[:length])
    assert read_finished(path).files == set()
    assert path.read_text() == ""


def test_last_line_without_a_line_break(tmp_path: Path) -> None:
    """A whole line gets its line break."""
    path = tmp_path / "out.jsonl"
    path.write_text(line("a.mp4") + line("b.mp4").rstrip())
    assert read_finished(path).files == {"a.mp4", "b.mp4"}
    assert path.read_text() == line("a.mp4") + line("b.mp4")


def test_new_file(tmp_path: Path) -> None:
    """A file that does not exist is a scan from the beginning."""
    assert read_finished(tmp_path / "new.jsonl").files == set()


@pytest.mark.parametrize(
    "content", ["not JSON\n", '{"type": "hello"}\n', "[]\n", "not JSON", '{"port": 8765}', "[]"]
)
def test_other_files(content: str, tmp_path: Path) -> None:
    """Something else is left as it is, with one line."""
    path = tmp_path / "other.txt"
    path.write_text(content)
    with pytest.raises(ResumeFailed, match="line 1 is not a line of"):
        read_finished(path)
    assert path.read_text() == content


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(ResumeFailed, match=r"missing/out\.jsonl: no such file"):
        open_continued(tmp_path / "missing" / "out.jsonl", io.StringIO())


def test_standard_output_is_the_file(tmp_path: Path) -> None:
    """Lines that are appended by the shell are not written twice."""
    path = tmp_path / "out.jsonl"
    with path.open("a") as output:
        assert open_continued(path, output) is None
    continued = open_continued(path, io.StringIO())
    assert continued is not None
    continued.close()
