"""The bundle on disk: what is written is read back, and nothing that was tampered with is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from onnx import TensorProto

from runtime.errors import (
    BundleError,
    BundleInvalid,
    BundleMismatch,
    BundleMissing,
    BundleUnsupported,
)
from runtime.model.bundle import change_manifest, load_bundle, write_manifest
from tests.support.temporal import uniform_temporal_classifier

JUDGE = uniform_temporal_classifier(0.01, bias=-0.25, window=8, centre=0.5, scale=2.0)
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[[Path], Path]) -> Path:
    return make_bundle(tmp_path / "bundle")


def edit_manifest(bundle: Path, edit: Edit) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def rehash(bundle: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        for file, facts in document["files"].items():
            facts["sha256"] = hashlib.sha256((bundle / file).read_bytes()).hexdigest()

    edit_manifest(bundle, edit)


def refused(bundle: Path, kind: type[BundleError]) -> str:
    """Load a bundle that must be refused; give the message, which must be one line with advice."""
    with pytest.raises(kind) as caught:
        load_bundle(bundle)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    return message


def test_what_is_written_is_read_back(small_bundle: Path) -> None:
    """Every fact of the manifest survives the file."""
    bundle = load_bundle(small_bundle)
    assert bundle.path == small_bundle
    assert bundle.digest == hashlib.sha256((small_bundle / "manifest.json").read_bytes()).hexdigest()
    assert bundle.backbone.name == "backbone.onnx"
    again = write_manifest(small_bundle, bundle)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == bundle.digest


def test_a_judge_of_flicker_travels_with_the_bundle(bundle: Path) -> None:
    """It is a third file, hashed like the others; without it none is left behind."""
    assert load_bundle(bundle).temporal is None
    changed = change_manifest(bundle, temporal=JUDGE, name="judged")
    assert (changed.temporal, changed.name) == (JUDGE, "judged")
    assert changed.calibration == load_bundle(bundle).calibration
    (bundle / "temporal.json").write_text("{}")
    assert "temporal.json" in refused(bundle, BundleMismatch)
    rehash(bundle)
    assert "not a temporal classifier" in refused(bundle, BundleInvalid)
    (bundle / "temporal.json").unlink()
    assert "temporal.json" in refused(bundle, BundleMissing)


def test_taking_the_judge_out_takes_its_file_out(bundle: Path) -> None:
    """A judge of another model must not lie about."""
    change_manifest(bundle, temporal=JUDGE)
    assert change_manifest(bundle, temporal=None).temporal is None
    assert not (bundle / "temporal.json").exists()


def test_calibration_can_be_read_from_the_bundle(small_bundle: Path) -> None:
    """The facts that a verdict needs are attributes of the bundle."""
    bundle = load_bundle(small_bundle)
    assert (bundle.calibration.scale, bundle.calibration.offset) == (2.0, 0.25)
    calibration = bundle.calibration
    assert (calibration.threshold_fake, calibration.threshold_real, calibration.threshold_fpr1) == (
        0.6,
        0.4,
        0.9,
    )
    assert bundle.min_fill == 0.5


def test_missing_directory_manifest_and_file_are_named(bundle: Path, tmp_path: Path) -> None:
    """What is not there is an error that names it, and also a FileNotFoundError."""
    assert "nothing-here" in refused(tmp_path / "nothing-here", BundleMissing)
    assert "not a directory" in refused(bundle / "head.onnx", BundleMissing)
    (bundle / "head.onnx").unlink()
    assert "head.onnx" in refused(bundle, BundleMissing)
    (bundle / "manifest.json").unlink()
    assert "manifest.json" in refused(bundle, BundleMissing)
    with pytest.raises(FileNotFoundError):
        load_bundle(bundle)


@pytest.mark.parametrize("file", ["backbone.onnx", "head.onnx"])
def test_one_changed_byte_is_noticed(bundle: Path, file: str) -> None:
    """Weights that are not those that were measured are never run."""
    content = bytearray((bundle / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / file).write_bytes(content)
    message = refused(bundle, BundleMismatch)
    assert file in message
    assert "SHA-256" in message


@pytest.mark.parametrize(("version", "advice"), [(4, "update unmask"), (2, "export the bundle again")])
def test_unknown_versions_are_refused_before_anything_else(bundle: Path, version: int, advice: str) -> None:
    """A bundle of another version is not guessed at, whatever else it holds."""
    (bundle / "manifest.json").write_text(json.dumps({"format_version": version}))
    assert advice in refused(bundle, BundleUnsupported)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'"text"'])
def test_manifests_that_are_not_json_objects_are_refused(bundle: Path, content: bytes) -> None:
    """An empty or cut manifest is told apart from a wrong one."""
    (bundle / "manifest.json").write_bytes(content)
    refused(bundle, BundleInvalid)


def leaves(document: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in document.items():
        if isinstance(value, dict) and key not in ("training", "metrics", "parity"):
            found += leaves(value, (*path, key))
        found.append((*path, key))
    return found


def test_every_needed_key_is_named_when_it_lacks(bundle: Path) -> None:
    """Dropping any key that is read gives an error with its full name; the rest only informs."""
    document = json.loads((bundle / "manifest.json").read_text())
    informing = {
        ("calibration", "meaning"),
        *(("files", file, "bytes") for file in ("backbone.onnx", "head.onnx")),
        *((port, fact) for port in ("features", "output") for fact in ("name", "dtype", "shape")),
        ("output",),
    } - {("features", "shape")}
    for path in leaves(document):
        cut = json.loads(json.dumps(document))
        holder = cut
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        (bundle / "manifest.json").write_text(json.dumps(cut))
        if path in informing:
            load_bundle(bundle)
        else:
            assert repr(".".join(path)) in refused(bundle, BundleInvalid)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d["sampling"].update(sample_hz=0), "sample_hz"),
        (lambda d: d["sampling"].update(sample_hz="8"), "sample_hz"),
        (lambda d: d["sampling"].update(window=True), "window"),
        (lambda d: d["sampling"].update(min_frames=9), "min_frames"),
        (lambda d: d["calibration"].update(scale=-1.0), "calibration.scale"),
        (lambda d: d["calibration"].update(threshold_real=0.9), "thresholds"),
        (lambda d: d["calibration"].update(threshold_fpr1="high"), "threshold_fpr1"),
        (lambda d: d["input"].update(color="BGR"), "input.color"),
        (lambda d: d["input"].update(shape=["N", 3, 32, 32]), "input.shape"),
        (lambda d: d["input"].update(shape=["N", 8, 8, 3]), "input_size"),
        (lambda d: d["input"].update(crop_margin=0), "crop_margin"),
        (lambda d: d["features"].update(shape=["N", "T"]), "features.shape"),
        (lambda d: d.update(weights="int4"), "weights"),
        (lambda d: d.update(name=""), "name"),
        (lambda d: d.update(files=[]), "files"),
    ],
)
def test_impossible_values_are_refused(bundle: Path, edit: Edit, words: str) -> None:
    """A value that could only lead to wrong verdicts is an error at load, by name."""
    edit_manifest(bundle, edit)
    assert words in refused(bundle, BundleInvalid)


def test_whole_numbers_pass_for_floats(bundle: Path) -> None:
    """Many JSON writers shorten 8.0 to 8."""
    edit_manifest(bundle, lambda d: d["sampling"].update(sample_hz=8))
    assert load_bundle(bundle).sample_hz == 8.0


def test_an_unmeasured_false_alarm_threshold_is_none(bundle: Path) -> None:
    """What was not measured is stated as such."""
    edit_manifest(bundle, lambda d: d["calibration"].update(threshold_fpr1=None))
    assert load_bundle(bundle).calibration.threshold_fpr1 is None


def test_graphs_that_contradict_the_manifest_are_refused(bundle: Path) -> None:
    """Right hashes do not help if the graphs take something else than the manifest says."""
    model = onnx.load(bundle / "backbone.onnx")
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, bundle / "backbone.onnx")
    rehash(bundle)
    message = refused(bundle, BundleMismatch)
    assert "crops float (any, 32, 32, 3)" in message
    assert "crops uint8 (any, 32, 32, 3)" in message


def test_files_that_are_no_graphs_are_refused(bundle: Path) -> None:
    """A file with the right hash that is not ONNX at all is a mismatch, not a crash."""
    (bundle / "head.onnx").write_bytes(b"no graph")
    rehash(bundle)
    assert "head.onnx" in refused(bundle, BundleMismatch)


def test_a_fixed_batch_size_is_refused(bundle: Path) -> None:
    """The batcher needs N to be free, the buffer T."""
    model = onnx.load(bundle / "head.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    onnx.save(model, bundle / "head.onnx")
    rehash(bundle)
    assert "features float (any, 8, 16)" in refused(bundle, BundleMismatch)


def test_not_a_number_is_never_written(bundle: Path) -> None:
    """NaN is no JSON; a metric that could not be measured must be left out or null."""
    manifest = load_bundle(bundle)
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(bundle, msgspec.structs.replace(manifest, metrics={"auc": math.nan}))
