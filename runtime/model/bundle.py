"""The model bundle: a directory with two ONNX graphs and a manifest that says everything needed to run them.

A model that judges flicker too has a third file, `temporal.json`.

    bundle = load_bundle()                    # the one that ships with unmask
    bundle.window, bundle.sample_hz           # what its training data looked like
    bundle.calibration.p_fake(logit)          # what its numbers mean

Loading trusts nothing: the format version, every key, every hash and the graphs' inputs are checked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import onnx
from google.protobuf.message import DecodeError

from runtime.errors import BundleInvalid, BundleMismatch, BundleMissing, BundleUnsupported
from runtime.files import write_atomically
from runtime.model.calibration import Calibration
from runtime.model.temporal_classifier import (
    TEMPORAL_FILE,
    TemporalClassifier,
    read_temporal_classifier,
    to_json,
)

FORMAT_VERSION = 3
"""The only one that is written and read."""
MANIFEST = "manifest.json"
BACKBONE = "backbone.onnx"
HEAD = "head.onnx"
DEFAULT_BUNDLE = Path(__file__).parent / "default"

Weights = Literal["int8", "float16", "float32"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """States what a bundle's graphs take, give and mean, and where they come from.

    Args:
        name: What the model calls itself.
        input_size: Side of the square crop in pixels.
        crop_margin: Side of the crop as a multiple of the face box's height.
        sample_hz: How many crops of a face a second the training data held.
        window: The most samples that the head judges at once.
        min_frames: The fewest.
        feature_dim: Length of a feature vector.
        calibration: From logit to `p_fake` and state.
        weights: How the weights are stored; they are computed in float32.
        training: Data, recipe and provenance, as JSON values.
        metrics: How it measured on held-out data, as JSON values.
        parity: What the gates measured and allowed when the bundle was made, as JSON values.
        flicker: What the flicker of a window adds to its logit; None for a model that does not look at it.

    Raises:
        ValueError: A value is out of its range.
    """

    name: str
    input_size: int
    crop_margin: float
    sample_hz: float
    window: int
    min_frames: int
    feature_dim: int = 2048
    calibration: Calibration = field(default_factory=Calibration)
    weights: Weights = "float32"
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    temporal: TemporalClassifier | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if self.input_size < 32:
            raise ValueError(f"input_size must be at least 32, not {self.input_size}")
        if not (math.isfinite(self.crop_margin) and self.crop_margin > 0):
            raise ValueError(f"crop_margin must be above 0, not {self.crop_margin}")
        if not (math.isfinite(self.sample_hz) and self.sample_hz > 0):
            raise ValueError(f"sample_hz must be above 0, not {self.sample_hz}")
        if not 1 <= self.min_frames <= self.window:
            raise ValueError(
                f"min_frames must be within 1..window, not {self.min_frames} of a window of {self.window}"
            )
        if self.feature_dim < 1:
            raise ValueError(f"feature_dim must be at least 1, not {self.feature_dim}")
        if self.weights not in get_args(Weights):
            raise ValueError(f"weights must be one of {', '.join(get_args(Weights))}, not {self.weights!r}")

    @property
    def temperature(self) -> float:
        """Divides the biased logit."""
        return self.calibration.temperature

    @property
    def bias(self) -> float:
        """Is added to the logit first."""
        return self.calibration.bias

    @property
    def threshold_fake(self) -> float:
        """The `p_fake` from which a verdict is `fake`."""
        return self.calibration.threshold_fake

    @property
    def threshold_real(self) -> float:
        """The `p_fake` up to which a verdict is `real`."""
        return self.calibration.threshold_real

    @property
    def threshold_fpr1(self) -> float | None:
        """The `p_fake` that 1 % of real faces reached; None if not measured."""
        return self.calibration.threshold_fpr1

    @property
    def min_fill(self) -> float:
        """The share of the window below which a face is `warming`."""
        return self.min_frames / self.window


@dataclass(frozen=True, kw_only=True)
class Bundle(Manifest):
    """Is a checked bundle on disk: its manifest's facts, and where its graphs lie.

    Args:
        path: The directory.
        digest: SHA-256 of the manifest, in hexadecimal; it names the whole bundle, as the manifest holds the
            hash of each file.
        backbone: The graph from crops to features.
        head: The graph from features to logit.
    """

    path: Path
    digest: str
    backbone: Path
    head: Path


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write the manifest of the graphs that lie in a directory, and beside it the judge of flicker.

    Args:
        directory: Holds `backbone.onnx` and `head.onnx`.
        manifest: What to state about them.

    Returns:
        The path of the written file.

    Raises:
        FileNotFoundError: A graph is missing.
        ValueError: A value cannot be told in JSON, such as a NaN.
    """
    files = {
        file: {"sha256": _sha256(directory / file), "bytes": (directory / file).stat().st_size}
        for file in (BACKBONE, HEAD)
    }
    judge = None if manifest.temporal is None else to_json(manifest.temporal).encode()
    if judge is not None:
        files[TEMPORAL_FILE] = {"sha256": hashlib.sha256(judge).hexdigest(), "bytes": len(judge)}
    document = {
        "format_version": FORMAT_VERSION,
        "name": manifest.name,
        "input": {
            "name": "crops",
            "dtype": "uint8",
            "shape": ["N", manifest.input_size, manifest.input_size, 3],
            "color": "RGB",
            "crop_margin": manifest.crop_margin,
        },
        "features": {"name": "features", "dtype": "float32", "shape": ["N", "T", manifest.feature_dim]},
        "output": {"name": "logit", "dtype": "float32", "shape": ["N"]},
        "sampling": {
            "sample_hz": manifest.sample_hz,
            "window": manifest.window,
            "min_frames": manifest.min_frames,
        },
        "calibration": {
            **asdict(manifest.calibration),
            "meaning": "p_fake = sigmoid((logit + bias) / temperature), at equal priors; "
            "fake from threshold_fake, real up to threshold_real, uncertain between",
        },
        "weights": manifest.weights,
        "training": dict(manifest.training),
        "metrics": dict(manifest.metrics),
        "parity": dict(manifest.parity),
        "files": files,
    }
    path = directory / MANIFEST
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    # Nothing is touched until everything can be told.
    if judge is not None:
        write_atomically(directory / TEMPORAL_FILE, judge)
    write_atomically(path, text + "\n")
    if judge is None:
        (directory / TEMPORAL_FILE).unlink(missing_ok=True)
    return path


def change_manifest(directory: Path, **changes: Any) -> Bundle:
    """State something else about the graphs of a bundle.

    Args:
        directory: The bundle's.
        changes: Values of `Manifest`, by their names.

    Returns:
        The bundle as it is now.

    Raises:
        BundleError: It is no bundle.
        ValueError: A value is out of its range.
    """
    loaded = load_bundle(directory)
    stated = {entry.name: getattr(loaded, entry.name) for entry in fields(Manifest)}
    write_manifest(directory, Manifest(**{**stated, **changes}))
    return load_bundle(directory)


def load_bundle(path: Path | None = None) -> Bundle:
    """Read and check a bundle.

    Args:
        path: Its directory; None for the one that ships with unmask.

    Returns:
        The bundle, every file of it verified.

    Raises:
        BundleMissing: The directory, its manifest or a file is not there.
        BundleUnsupported: It has a format version that is not known here.
        BundleInvalid: The manifest is not JSON, lacks a key or holds an impossible value.
        BundleMismatch: A file is not the one that the manifest describes.
    """
    directory = DEFAULT_BUNDLE if path is None else Path(path)
    manifest_path = directory / MANIFEST
    if not directory.is_dir():
        raise BundleMissing(directory, "no such directory" if not directory.exists() else "not a directory")
    try:
        content = manifest_path.read_bytes()
    except FileNotFoundError:
        raise BundleMissing(manifest_path, "no such file, so this is no model bundle") from None
    except OSError as error:
        raise BundleMissing(manifest_path, f"cannot be read ({error.strerror})") from error
    document = _Document(manifest_path, content)
    version = document.take("format_version", int)
    if version != FORMAT_VERSION:
        raise BundleUnsupported(manifest_path, version, FORMAT_VERSION)
    outputs = TEMPORAL_FILE in document.take("files", dict)
    for file in (BACKBONE, HEAD, *([TEMPORAL_FILE] if outputs else [])):
        _check_hash(directory / file, document.entry("files", file).take("sha256", str))
    facts = document.facts()
    if outputs:
        try:
            facts["temporal"] = read_temporal_classifier(directory / TEMPORAL_FILE)
        except (OSError, ValueError) as error:
            raise BundleInvalid(directory / TEMPORAL_FILE, str(error)) from error
    bundle = Bundle(
        **facts,
        path=directory,
        digest=hashlib.sha256(content).hexdigest(),
        backbone=directory / BACKBONE,
        head=directory / HEAD,
    )
    size, dim = bundle.input_size, bundle.feature_dim
    _check_graph(bundle.backbone, {"crops": ("UINT8", (None, size, size, 3))}, {"features": (None, dim)})
    _check_graph(bundle.head, {"features": ("FLOAT", (None, None, dim))}, {"logit": (None,)})
    return bundle


class _Document:
    """A manifest's JSON, whose every absence and wrong type is a named error."""

    def __init__(self, path: Path, content: bytes | Mapping[str, Any], where: str = "") -> None:
        self.path = path
        self.where = where
        if isinstance(content, bytes):
            try:
                content = json.loads(content)
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise BundleInvalid(path, f"not readable as JSON ({error})") from error
        if not isinstance(content, Mapping):
            raise BundleInvalid(path, f"{where.rstrip('.') or 'the manifest'} is not a JSON object")
        self.content = content

    def take(self, key: str, kind: type[T]) -> T:
        if key not in self.content:
            raise BundleInvalid(self.path, f"lacks the key {self.where + key!r}")
        value = self.content[key]
        # JSON writes 8.0 as 8 in many programs; Python takes True for 1.
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BundleInvalid(self.path, f"{self.where + key!r} is {value!r}, not of type {kind.__name__}")
        return value

    def entry(self, *keys: str) -> _Document:
        document = self
        for key in keys:
            content = document.take(key, dict)
            document = _Document(self.path, content, f"{document.where}{key}.")
        return document

    def facts(self) -> dict[str, Any]:
        crops = self.entry("input")
        shape = crops.take("shape", list)
        if len(shape) != 4 or not isinstance(shape[1], int) or shape[1:] != [shape[1], shape[1], 3]:
            raise BundleInvalid(self.path, f"'input.shape' is {shape!r}, not ['N', size, size, 3]")
        features = self.entry("features").take("shape", list)
        if len(features) != 3 or not isinstance(features[2], int):
            raise BundleInvalid(self.path, f"'features.shape' is {features!r}, not ['N', 'T', dim]")
        for key, value in (("name", "crops"), ("dtype", "uint8"), ("color", "RGB")):
            if crops.take(key, str) != value:
                raise BundleInvalid(self.path, f"'input.{key}' is {crops.take(key, str)!r}, not {value!r}")
        sampling, scale = self.entry("sampling"), self.entry("calibration")
        far1 = scale.take("threshold_fpr1", object)
        try:
            facts: dict[str, Any] = {
                "name": self.take("name", str),
                "input_size": shape[1],
                "crop_margin": crops.take("crop_margin", float),
                "sample_hz": sampling.take("sample_hz", float),
                "window": sampling.take("window", int),
                "min_frames": sampling.take("min_frames", int),
                "feature_dim": features[2],
                "calibration": Calibration(
                    temperature=scale.take("temperature", float),
                    bias=scale.take("bias", float),
                    threshold_fake=scale.take("threshold_fake", float),
                    threshold_real=scale.take("threshold_real", float),
                    hysteresis=scale.take("hysteresis", float),
                    threshold_fpr1=None if far1 is None else scale.take("threshold_fpr1", float),
                ),
                "weights": self.take("weights", str),
                "training": self.take("training", dict),
                "metrics": self.take("metrics", dict),
                "parity": self.take("parity", dict),
            }
            Manifest(**facts)
        except BundleInvalid:
            raise
        except ValueError as error:
            raise BundleInvalid(self.path, str(error)) from error
        return facts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(path: Path, expected: str) -> None:
    try:
        found = _sha256(path)
    except FileNotFoundError:
        raise BundleMissing(path, "no such file, but the manifest names it") from None
    except OSError as error:
        raise BundleMissing(path, f"cannot be read ({error.strerror})") from error
    if found != expected:
        raise BundleMismatch(path, f"its SHA-256 begins with {found[:12]}, the manifest says {expected[:12]}")


def _check_graph(
    path: Path,
    inputs: Mapping[str, tuple[str, tuple[int | None, ...]]],
    outputs: Mapping[str, tuple[int | None, ...]],
) -> None:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise BundleMismatch(path, f"it is no ONNX graph ({error})") from error
    expected = {**inputs, **{name: ("FLOAT", shape) for name, shape in outputs.items()}}
    found = {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim),
        )
        for value in (*graph.input, *graph.output)
    }
    if found != expected:
        raise BundleMismatch(path, f"it has {_ports(found)}, but should have {_ports(expected)}")


def _ports(ports: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> str:
    return ", ".join(
        f"{name} {kind.lower()} ({', '.join('any' if n is None else str(n) for n in shape)})"
        for name, (kind, shape) in ports.items()
    )
