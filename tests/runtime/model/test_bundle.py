"""Bundle on disk: reading what was written, and refusing damaged or contradictory files."""

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

from runtime.engines.onnx_cpu.int8 import activation_ranges
from runtime.errors import (
    BundleError,
    BundleInvalid,
    BundleMismatch,
    BundleMissing,
    BundleUnsupported,
)
from runtime.model.bundle import change_manifest, load_bundle, write_manifest
from runtime.model.manifest import FORMAT_VERSION
from tests.support.temporal import uniform_temporal_classifier

CLASSIFIER = uniform_temporal_classifier(0.01, bias=-0.25, window=8, centre=0.5, scale=2.0)
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
    """Load a bundle that must be refused; return the message, which must be one line with advice."""
    with pytest.raises(kind) as caught:
        load_bundle(bundle)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    return message


def test_loading_returns_what_was_written(small_bundle: Path) -> None:
    """Writing the loaded manifest again gives the same file."""
    bundle = load_bundle(small_bundle)
    assert bundle.path == small_bundle
    assert bundle.digest == hashlib.sha256((small_bundle / "manifest.json").read_bytes()).hexdigest()
    assert bundle.backbone.name == "backbone.onnx"
    again = write_manifest(small_bundle, bundle)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == bundle.digest


def test_a_temporal_classifier_is_stored_with_the_bundle(bundle: Path) -> None:
    """It is a file of its own, hashed like the others."""
    assert load_bundle(bundle).temporal is None
    changed = change_manifest(bundle, temporal=CLASSIFIER, name="changed")
    assert (changed.temporal, changed.name) == (CLASSIFIER, "changed")
    assert changed.calibration == load_bundle(bundle).calibration
    (bundle / "temporal.json").write_text("{}")
    assert "temporal.json" in refused(bundle, BundleMismatch)
    rehash(bundle)
    assert "not a temporal classifier" in refused(bundle, BundleInvalid)
    (bundle / "temporal.json").unlink()
    assert "temporal.json" in refused(bundle, BundleMissing)


def test_removing_the_temporal_classifier_removes_its_file(bundle: Path) -> None:
    """No file of another model is left in the bundle."""
    change_manifest(bundle, temporal=CLASSIFIER)
    assert change_manifest(bundle, temporal=None).temporal is None
    assert not (bundle / "temporal.json").exists()


def test_calibration_can_be_read_from_the_bundle(small_bundle: Path) -> None:
    """The values that a verdict needs are attributes of the bundle."""
    bundle = load_bundle(small_bundle)
    assert (bundle.calibration.scale, bundle.calibration.offset) == (2.0, 0.25)
    calibration = bundle.calibration
    assert (calibration.threshold_fake, calibration.threshold_real, calibration.threshold_fpr1) == (
        0.6,
        0.4,
        0.9,
    )
    assert bundle.min_fill == 0.5


def test_missing_files_are_named(bundle: Path, tmp_path: Path) -> None:
    """A missing directory, manifest or graph raises a FileNotFoundError that names it."""
    assert "nothing-here" in refused(tmp_path / "nothing-here", BundleMissing)
    assert "not a directory" in refused(bundle / "head.onnx", BundleMissing)
    (bundle / "head.onnx").unlink()
    assert "head.onnx" in refused(bundle, BundleMissing)
    (bundle / "manifest.json").unlink()
    assert "manifest.json" in refused(bundle, BundleMissing)
    with pytest.raises(FileNotFoundError):
        load_bundle(bundle)


@pytest.mark.parametrize("file", ["backbone.onnx", "head.onnx"])
def test_one_changed_byte_is_detected(bundle: Path, file: str) -> None:
    """A graph with another hash than in the manifest is refused."""
    content = bytearray((bundle / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / file).write_bytes(content)
    message = refused(bundle, BundleMismatch)
    assert file in message
    assert "SHA-256" in message


@pytest.mark.parametrize(
    ("version", "advice"),
    [(FORMAT_VERSION + 1, "update unmask"), (FORMAT_VERSION - 1, "export the bundle again")],
)
def test_unknown_versions_are_refused_before_anything_else(bundle: Path, version: int, advice: str) -> None:
    """A manifest of another version is refused, whatever else it contains."""
    (bundle / "manifest.json").write_text(json.dumps({"format_version": version}))
    assert advice in refused(bundle, BundleUnsupported)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'"text"'])
def test_manifests_that_are_not_json_objects_are_refused(bundle: Path, content: bytes) -> None:
    """An empty or truncated manifest is refused."""
    (bundle / "manifest.json").write_bytes(content)
    refused(bundle, BundleInvalid)


def leaves(document: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in document.items():
        if isinstance(value, dict) and key not in ("training", "metrics", "parity"):
            found += leaves(value, (*path, key))
        found.append((*path, key))
    return found


def test_missing_keys_are_named(bundle: Path) -> None:
    """Removing a required key gives an error with its full name; the other keys are optional."""
    document = json.loads((bundle / "manifest.json").read_text())
    optional = {
        ("calibration", "meaning"),
        ("sampling", "feature_every"),
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
        if path in optional:
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
        (lambda d: d["sampling"].update(feature_every=0), "feature_every"),
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
        (lambda d: d.update(name="a\x1b[31m\nb"), "name"),
        (lambda d: d.update(files=[]), "files"),
    ],
)
def test_values_out_of_range_are_refused(bundle: Path, edit: Edit, words: str) -> None:
    """A value of a wrong type or range gives an error that names it."""
    edit_manifest(bundle, edit)
    assert words in refused(bundle, BundleInvalid)


def test_integers_are_accepted_as_floats(bundle: Path) -> None:
    """Many JSON writers shorten 8.0 to 8."""
    edit_manifest(bundle, lambda d: d["sampling"].update(sample_hz=8))
    assert load_bundle(bundle).sample_hz == 8.0


def test_a_threshold_that_was_not_measured_is_none(bundle: Path) -> None:
    """`threshold_fpr1` may be null."""
    edit_manifest(bundle, lambda d: d["calibration"].update(threshold_fpr1=None))
    assert load_bundle(bundle).calibration.threshold_fpr1 is None


def test_graphs_that_contradict_the_manifest_are_refused(bundle: Path) -> None:
    """Inputs of another type than in the manifest are refused, even with the right hash."""
    model = onnx.load(bundle / "backbone.onnx")
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, bundle / "backbone.onnx")
    rehash(bundle)
    message = refused(bundle, BundleMismatch)
    assert "crops float (any, 32, 32, 3)" in message
    assert "crops uint8 (any, 32, 32, 3)" in message


def test_files_that_are_not_onnx_are_refused(bundle: Path) -> None:
    """A file with the right hash that is not ONNX raises `BundleMismatch`."""
    (bundle / "head.onnx").write_bytes(b"no graph")
    rehash(bundle)
    assert "head.onnx" in refused(bundle, BundleMismatch)


def test_a_fixed_batch_size_is_refused(bundle: Path) -> None:
    """N and T of the graphs must be free."""
    model = onnx.load(bundle / "head.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    onnx.save(model, bundle / "head.onnx")
    rehash(bundle)
    assert "features float (any, 8, 16)" in refused(bundle, BundleMismatch)


def test_nan_is_not_written(bundle: Path) -> None:
    """NaN is not valid JSON; a metric that was not measured is left out or null."""
    manifest = load_bundle(bundle)
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(bundle, msgspec.structs.replace(manifest, metrics={"auc": math.nan}))


def test_an_error_quotes_no_terminal_codes_of_the_manifest(bundle: Path) -> None:
    """A bundle may come from others; the hash in the manifest is shown as it stands there."""
    edit_manifest(bundle, lambda document: document["files"]["head.onnx"].update(sha256="\x1b[31m\n"))
    with pytest.raises(BundleMismatch) as caught:
        load_bundle(bundle)
    assert str(caught.value).isprintable()


def test_the_bundled_model_can_be_computed_in_int8() -> None:
    """It contains the ranges of its activations; without them every engine on the CPU would use float32."""
    bundle = load_bundle(None)
    assert activation_ranges(bundle.backbone.read_bytes()) is not None
    assert bundle.parity["int8"]["used"]
