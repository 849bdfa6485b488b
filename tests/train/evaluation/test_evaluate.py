"""Evaluations of a real bundle, on prepared clips and on videos."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from rich.console import Console

import unmask
from runtime.errors import BundleMissing
from train.data.clip_cutter import ClipSpec
from train.data.clip_set import ClipSetError
from train.data.layouts import LayoutError
from train.data.prepare import prepare
from train.data.splits import GroupUnknown
from train.evaluation.evaluate import EvaluationConfig, evaluate
from train.evaluation.report import ReportError
from train.scoring.bootstrap import BootstrapConfig

Film = Callable[..., Path]

PLOTS = ("roc.png", "scores.png", "reliability.png")
FEW = BootstrapConfig(replicates=20)
QUICK = EvaluationConfig(bootstrap=FEW)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, film: Film) -> Path:
    """Four originals and a darker copy of each as its fake, in a folder with train and test splits."""
    root = tmp_path_factory.mktemp("videos")
    for i in range(4):
        split = "train" if i == 0 else "test"
        film(root / split / "real" / f"{i}.mp4", brightness=1.1 + i / 50)
        film(root / split / "fake" / "dark" / f"{i}.mp4", brightness=0.4 + i / 50)
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """The same videos, prepared."""
    out = tmp_path_factory.mktemp("clips") / "set"
    prepare(videos, out, spec=ClipSpec(size=64, margin=1.5, sample_hz=10, frames=8, min_frames=4), workers=2)
    return out


def strict(path: Path) -> dict[str, object]:
    """Read JSON, refusing constants that are not in the standard."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found: dict[str, object] = json.loads(path.read_text(), parse_constant=refuse)
    return found


def test_bundle_on_prepared_clips(tmp_path: Path, clips: Path, dark_bundle: Path) -> None:
    """The test split is taken; report and plots are written, and metrics.json is what is returned."""
    screen = io.StringIO()
    found = evaluate(
        dark_bundle,
        clips,
        tmp_path / "out",
        EvaluationConfig(bootstrap=BootstrapConfig(replicates=50)),
        console=Console(file=screen, force_terminal=True),
    )
    assert found == strict(tmp_path / "out" / "metrics.json")
    assert found["data"]["split"] == "test"
    counts = found["counts"]
    assert (counts["videos"], counts["real_videos"], counts["groups"]) == (6, 3, 3)
    # Fakes are darker, and the model's logit is higher for dark faces.
    assert found["video"]["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0, "groups": 3}
    assert found["methods"]["dark"]["videos"] == 3
    assert (found["seed"], found["replicates"]) == (0, 50)
    assert any("groups: only 3" in note for note in found["notes"])
    text = (tmp_path / "out" / "report.md").read_text()
    for part in (
        "Evaluation of dark on set",
        "## Methods",
        "## Ablation",
        "| AUC | 1.000 [1.000, 1.000] |",
    ):
        assert part in text
    assert "robustness" not in found
    for plot in PLOTS:
        image = cv2.imread(str(tmp_path / "out" / plot))
        assert image is not None
        assert image.std() > 5


def test_videos_are_prepared_and_give_the_same_metrics(
    tmp_path: Path, videos: Path, clips: Path, dark_bundle: Path
) -> None:
    """Of videos only the test split is prepared, as the model needs it, with the same metrics."""
    found = evaluate(dark_bundle, videos, tmp_path / "out", EvaluationConfig(workers=2, bootstrap=FEW))
    assert found["data"] == {"name": videos.name, "split": "test", "groups": None}
    assert found["counts"]["videos"] == 6
    assert {path.name for path in (tmp_path / "out" / "clips").glob("*.tar")} == {"test-000.tar"}
    on_clips = evaluate(dark_bundle, clips, tmp_path / "other", QUICK)
    assert found["video"]["auc"] == on_clips["video"]["auc"]
    assert found["counts"]["windows"] == on_clips["counts"]["windows"]


def test_split_and_groups_can_be_chosen(tmp_path: Path, clips: Path, dark_bundle: Path) -> None:
    """All splits, or groups by name; a group without clips in the split is an error and writes nothing."""
    everything = evaluate(dark_bundle, clips, tmp_path / "all", EvaluationConfig(split="all", bootstrap=FEW))
    assert everything["counts"]["videos"] == 8
    chosen = evaluate(
        dark_bundle, clips, tmp_path / "groups", EvaluationConfig(groups={"0", "2"}, bootstrap=FEW)
    )
    assert chosen["counts"]["groups"] == 2
    assert chosen["data"]["groups"] == ["0", "2"]
    with pytest.raises(ClipSetError, match="contains no clip of the split test and the given groups"):
        evaluate(dark_bundle, clips, tmp_path / "none", EvaluationConfig(split="test", groups={"0"}))
    assert not (tmp_path / "none").exists()


def test_robustness_adds_a_table(tmp_path: Path, clips: Path, dark_bundle: Path) -> None:
    """Darkening raises this model's FPR: the table shows it."""
    found = evaluate(
        dark_bundle,
        clips,
        tmp_path,
        EvaluationConfig(robustness=True, robustness_videos=2, bootstrap=BootstrapConfig(replicates=10)),
    )
    rows = {(row["corruption"], row["severity"]): row for row in found["robustness"]}
    assert len(rows) == 19
    assert rows["none", 0]["scores"] == 2
    assert rows["gamma", 3]["fpr_at_half"] >= rows["none", 0]["fpr_at_half"]
    assert "## Robustness" in (tmp_path / "report.md").read_text()
    with pytest.raises(ValueError, match="robustness_videos"):
        EvaluationConfig(robustness_videos=1)


def test_single_crops_are_measured_by_frame_only(tmp_path: Path, clips: Path, dark_bundle: Path) -> None:
    """A set of single crops gives metrics by frame only, and the report says so."""
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
    found = evaluate(dark_bundle, stills, tmp_path / "out", QUICK)
    assert found["video"]["auc"]["value"] is None
    assert found["frame"]["auc"]["value"] == 1.0
    assert found["frame"]["kind"] == "diagnosis: each crop repeated 8 times"
    text = (tmp_path / "out" / "report.md").read_text()
    assert "does not predict live verdicts" in text
    assert "larger faces here than live" in text
    assert "## Methods" not in text
    for plot in PLOTS:
        assert (tmp_path / "out" / plot).exists()


def test_errors_are_raised_before_anything_is_written(tmp_path: Path, clips: Path, dark_bundle: Path) -> None:
    """A missing model, missing data, and a directory that cannot be written."""
    with pytest.raises(BundleMissing):
        evaluate(tmp_path / "nowhere", clips, tmp_path / "out")
    with pytest.raises(LayoutError, match="no such file"):
        evaluate(dark_bundle, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match="cannot be written"):
        evaluate(dark_bundle, clips, tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists()


def test_a_misspelt_group_is_refused(
    tmp_path: Path, videos: Path, clips: Path, dark_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside a group that exists it would be left out without a word; videos are not prepared first."""
    for data in (clips, videos):
        with pytest.raises(GroupUnknown, match="no group 'typo'"):
            evaluate(dark_bundle, data, tmp_path / "out", EvaluationConfig(groups={"1", "typo"}))
    assert not (tmp_path / "out").exists()
    arguments = ["evaluate", clips, "--model", dark_bundle, "--out", tmp_path / "out", "--groups", "1, typo"]
    assert unmask.run(["train", *map(str, arguments)]) == 2
    assert "no group 'typo' in the data" in capsys.readouterr().err
