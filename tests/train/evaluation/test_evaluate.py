"""Whole evaluations of a real bundle, on prepared clips and on videos."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from rich.console import Console

from runtime.errors import BundleMissing
from train.data.clip_cutter import ClipSpec
from train.data.clip_set import ClipSetError
from train.data.layouts import LayoutError
from train.data.prepare import prepare
from train.evaluation.evaluate import evaluate
from train.evaluation.report import ReportError

Film = Callable[..., Path]

PLOTS = ("roc.png", "scores.png", "reliability.png")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, film: Film) -> Path:
    """Eight originals, and a darker copy of each as its forgery, in a folder that states a test side."""
    root = tmp_path_factory.mktemp("videos")
    for i in range(4):
        side = "train" if i == 0 else "test"
        film(root / side / "real" / f"{i}.mp4", brightness=1.1 + i / 50)
        film(root / side / "fake" / "dark" / f"{i}.mp4", brightness=0.4 + i / 50)
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """The same, prepared."""
    out = tmp_path_factory.mktemp("clips") / "set"
    prepare(videos, out, spec=ClipSpec(size=64, margin=1.5, sample_hz=10, frames=8, min_frames=4), workers=2)
    return out


def strict(path: Path) -> dict[str, object]:
    """Read JSON and refuse what the standard does not have."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found: dict[str, object] = json.loads(path.read_text(), parse_constant=refuse)
    return found


def test_a_bundle_on_prepared_clips(tmp_path: Path, clips: Path, dark_bundle: Path) -> None:
    """The test side is taken; figures, report and plots are there, and metrics.json is what was returned."""
    screen = io.StringIO()
    found = evaluate(
        dark_bundle,
        clips,
        tmp_path / "out",
        replicates=50,
        console=Console(file=screen, force_terminal=True),
    )
    assert found == strict(tmp_path / "out" / "metrics.json")
    assert found["data"]["split"] == "test"
    counts = found["counts"]
    assert (counts["videos"], counts["real_videos"], counts["groups"]) == (6, 3, 3)
    # Forgeries are darker and the model calls dark faces forged.
    assert found["video"]["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0, "groups": 3}
    assert found["methods"]["dark"]["videos"] == 3
    assert (found["seed"], found["replicates"]) == (0, 50)
    assert any("groups: only 3" in note for note in found["notes"])
    text = (tmp_path / "out" / "report.md").read_text()
    for part in (
        "How dark measures on set",
        "## Methods",
        "averaging frames",
        "| AUC | 1.000 [1.000, 1.000] |",
    ):
        assert part in text
    assert "robustness" not in found
    for plot in PLOTS:
        picture = cv2.imread(str(tmp_path / "out" / plot))
        assert picture is not None
        assert picture.std() > 5


def test_videos_are_prepared_and_measured_alike(
    tmp_path: Path, videos: Path, clips: Path, dark_bundle: Path
) -> None:
    """Given videos, only the stated test side is prepared, as the model wants it, and scores alike."""
    found = evaluate(dark_bundle, videos, tmp_path / "out", workers=2, replicates=20)
    assert found["data"] == {"name": videos.name, "split": "test", "groups": None}
    assert found["counts"]["videos"] == 6
    assert {path.name for path in (tmp_path / "out" / "clips").glob("*.tar")} == {"test-000.tar"}
    on_clips = evaluate(dark_bundle, clips, tmp_path / "other", replicates=20)
    assert found["video"]["auc"] == on_clips["video"]["auc"]
    assert found["counts"]["windows"] == on_clips["counts"]["windows"]


def test_sides_and_groups_can_be_chosen(tmp_path: Path, clips: Path, dark_bundle: Path) -> None:
    """Another side, all of them, and groups by name; what is not there is an error and writes nothing."""
    everything = evaluate(dark_bundle, clips, tmp_path / "all", split="all", replicates=20)
    assert everything["counts"]["videos"] == 8
    chosen = evaluate(dark_bundle, clips, tmp_path / "groups", groups={"0", "2"}, replicates=20)
    assert chosen["counts"]["groups"] == 2
    assert chosen["data"]["groups"] == ["0", "2"]
    with pytest.raises(ClipSetError, match="holds no clip of the split all and the groups given"):
        evaluate(dark_bundle, clips, tmp_path / "none", groups={"nobody"})
    assert not (tmp_path / "none").exists()


def test_robustness_adds_its_table(tmp_path: Path, clips: Path, dark_bundle: Path) -> None:
    """Darkening makes this model call everything fake: the table shows it."""
    found = evaluate(dark_bundle, clips, tmp_path, robustness=True, robustness_videos=2, replicates=10)
    lines = {(line["corruption"], line["severity"]): line for line in found["robustness"]}
    assert len(lines) == 19
    assert lines["none", 0]["scores"] == 2
    assert lines["gamma", 3]["false_alarms_at_half"] >= lines["none", 0]["false_alarms_at_half"]
    assert "## Robustness" in (tmp_path / "report.md").read_text()
    with pytest.raises(ValueError, match="robustness_videos"):
        evaluate(dark_bundle, clips, tmp_path, robustness_videos=1)


def test_stills_are_measured_as_frames_and_said_to_be_no_verdicts(
    tmp_path: Path, clips: Path, dark_bundle: Path
) -> None:
    """A set of single crops gives figures by frame only, under a name that says so."""
    stills = tmp_path / "stills"
    stills.mkdir()
    lines = (clips / "clips.csv").read_text().splitlines()
    (stills / "labels.csv").write_text("shard,file,fake,group\n")
    with (stills / "labels.csv").open("a") as file:
        for line in lines[1:]:
            shard, clip, fake, *_ = line.split(",")
            file.write(f"{shard},{clip}.00.jpg,{fake},{clip}\n")
    for path in clips.glob("*.tar"):
        (stills / path.name).write_bytes(path.read_bytes())
    found = evaluate(dark_bundle, stills, tmp_path / "out", replicates=20)
    assert found["video"]["auc"]["value"] is None
    assert found["frame"]["auc"]["value"] == 1.0
    assert found["frame"]["kind"] == "diagnosis: each crop repeated 8 times"
    text = (tmp_path / "out" / "report.md").read_text()
    assert "nothing is said of live verdicts" in text
    assert "faces larger here than live" in text
    assert "## Methods" not in text
    for plot in PLOTS:
        assert (tmp_path / "out" / plot).exists()


def test_mistakes_are_named_before_anything_is_written(
    tmp_path: Path, clips: Path, dark_bundle: Path
) -> None:
    """No such model, no such data, nowhere to write to."""
    with pytest.raises(BundleMissing):
        evaluate(tmp_path / "nowhere", clips, tmp_path / "out")
    with pytest.raises(LayoutError, match="no such file"):
        evaluate(dark_bundle, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match="nothing can be written"):
        evaluate(dark_bundle, clips, tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists()
