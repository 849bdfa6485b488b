"""Tests of the reports of `unmask scan` on real files with a small model of random weights."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from runtime.commands.scan.command import run_scan
from runtime.commands.scan.outcome import ScanOptions, ScanOutcome
from runtime.errors import ReportNotWritten, VideoNotWritten
from runtime.model.calibration import Calibration
from runtime.pipeline.scan_result import ScanResult
from runtime.scan_report.wording import reason_text, verdict_text

VOID = {"meta", "img", "rect", "line", "path", "br"}


class Page(HTMLParser):
    """Elements of a page; fails on an element that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element without content."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Check that the innermost element is closed."""
        if tag not in VOID:
            assert self._open.pop() == tag

    def values(self, name: str) -> list[str]:
        """Return all values of an attribute."""
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]


@pytest.fixture(scope="module")
def reports(
    small_bundle: Path, face_video: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Page, dict[str, Any]]:
    """Reports on a face, a video without a face, and a file that is no video and has a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    hostile = folder / "<img src=x onerror=alert(1)>.mp4"
    hostile.write_text("no video")
    outputs = [folder / "out.html", folder / "out.json"]
    options = ScanOptions(
        paths=[face_video, clip, hostile], as_json=True, reports=outputs, model=small_bundle
    )
    assert run_scan(options) == 2
    return Page(outputs[0].read_text(encoding="utf-8")), json.loads(outputs[1].read_text(encoding="utf-8"))


def test_page_is_self_contained(reports: tuple[Page, dict[str, Any]]) -> None:
    """No script, no handler, nothing loaded from outside; images are in the page."""
    page, _ = reports
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object"}
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.values("src"))
    assert all(target.startswith("#v") for target in page.values("href"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_every_link_of_the_timeline_has_its_frame(reports: tuple[Page, dict[str, Any]]) -> None:
    """Each click on the timeline leads to a figure; several intervals of four seconds have one."""
    page, _ = reports
    links, ids = set(page.values("href")), set(page.values("id"))
    assert {link[1:] for link in links} <= ids
    assert len([name for name in ids if name.startswith("v0-")]) >= 8


def test_page_states_verdict_limits_and_facts(reports: tuple[Page, dict[str, Any]]) -> None:
    """Verdict in words, the limits, the model and its thresholds, the hash of the file."""
    page, document = reports
    video = document["videos"][0]
    for text in (
        video["verdict_title"],
        video["sha256"],
        document["model"]["name"],
        document["model"]["sha256"],
        "no proof",
        "No face found",
        "Not readable",
        "&lt;img src=x",
    ):
        assert text in page.text


def test_json_has_every_score(reports: tuple[Page, dict[str, Any]]) -> None:
    """The timeline has one entry per sample of the face, and the score is that of `--json`."""
    _, document = reports
    video, other, broken = document["videos"]
    assert (video["state"], other["state"], broken["state"]) == ("scored", "no_face", "unreadable")
    scores = [entry["p_fake"] for entry in video["timeline"]]
    assert len(scores) == 32
    assert sum(score is not None for score in scores) == video["faces"][0]["windows"]
    assert re.fullmatch("[0-9a-f]{64}", video["sha256"])
    assert video["moments"][0]["p_fake"] == pytest.approx(max(score for score in scores if score), abs=1e-4)
    assert broken["error"]


def test_report_needs_a_known_suffix_and_a_directory(
    small_bundle: Path, face_video: Path, tmp_path: Path
) -> None:
    """The mistake is reported before the scan begins."""
    for path in (tmp_path / "out.pdf", tmp_path / "missing" / "out.html"):
        with pytest.raises(ReportNotWritten, match=r"cannot write the report .*; give --report"):
            run_scan(ScanOptions(paths=[face_video], reports=[path], model=small_bundle))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no directory that takes no file of any user")
def test_a_place_without_room_for_a_file_is_noticed_before_the_scan(
    small_bundle: Path, face_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The directory exists, but takes no file."""
    with pytest.raises(ReportNotWritten):
        run_scan(ScanOptions(paths=[face_video], reports=[Path("/proc/self/out.html")], model=small_bundle))
    assert capsys.readouterr().out == ""


def test_a_report_that_fails_costs_no_other(
    small_bundle: Path, face_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of three cannot be written after all."""
    broken, *others = (tmp_path / name / "out.json" for name in ("broken", "second", "third"))
    for path in (broken, *others):
        path.parent.mkdir()
    options = ScanOptions(paths=[face_video], reports=[broken, *others], model=small_bundle)
    begin = ScanOutcome.begin

    def remove(outcome: ScanOutcome, file: Path) -> None:
        broken.parent.rmdir()
        begin(outcome, file)

    monkeypatch.setattr(ScanOutcome, "begin", remove)
    with pytest.raises(ReportNotWritten, match="broken"):
        run_scan(options)
    assert all(path.is_file() for path in others)


def test_outputs_do_not_replace_a_video(small_bundle: Path, face_video: Path, tmp_path: Path) -> None:
    """A link to it is the same file."""
    for name, outputs in (("link.html", "reports"), ("link.mp4", "annotate")):
        link = tmp_path / name
        link.symlink_to(face_video)
        options: dict[str, Any] = {outputs: [link] if outputs == "reports" else link}
        with pytest.raises((ReportNotWritten, VideoNotWritten), match="video to scan; give another path"):
            run_scan(ScanOptions(paths=[face_video], model=small_bundle, **options))
        assert link.samefile(face_video)


@pytest.mark.parametrize(
    ("p_fake", "state", "title"),
    [
        (0.9, "fake", "Probably a deepfake"),
        (0.5, "uncertain", "Cannot tell"),
        (0.1, "real", "No sign of a deepfake"),
    ],
)
def test_verdict_in_words(p_fake: float, state: str, title: str) -> None:
    """The words follow the thresholds of the model."""
    text = verdict_text(ScanResult(file="a.mp4", state="scored", p_fake=p_fake), Calibration())
    assert (text.state, text.title) == (state, title)
    assert f"{p_fake:.2f}" in text.text


def test_every_state_has_words() -> None:
    """States without a score have a text of their own; an unknown reason is shown as it is."""
    titles = set()
    for state in ("no_face", "no_motion", "turned", "too_short", "too_slow", "unreadable"):
        text = verdict_text(ScanResult(file="a.mp4", state=state), Calibration())
        assert text.state == "none"
        titles.add(text.title)
    assert len(titles) == 6
    assert reason_text("no_motion") == "the face does not move"
    assert reason_text("low_light") == "low light"
