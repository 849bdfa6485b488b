"""Manifest of a model bundle: inputs, outputs and calibration of its graphs, and its JSON form.

text = encode_manifest(manifest, {"backbone.onnx": FileEntry(sha256=..., bytes=...), ...})
manifest, files = decode_manifest(path, text.encode())
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec

from runtime.errors import BundleInvalid, BundleUnsupported
from runtime.model.calibration import Calibration
from runtime.model.temporal_classifier import TEMPORAL_FILE, TemporalClassifier
from streams.text import printable

FORMAT_VERSION = 10
"""The only format version that is written and read."""
MANIFEST_FILE = "manifest.json"
BACKBONE_FILE = "backbone.onnx"
HEAD_FILE = "head.onnx"

T = TypeVar("T")
Weights = Literal["int8", "float16", "float32"]
"""How weights are stored; the type of the arithmetic is the engine's choice."""

_MEANING = (
    "p_fake = sigmoid((logit + offset) / scale), at equal priors; "
    "fake from threshold_fake, real up to threshold_real, uncertain between"
)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs, outputs, calibration and provenance of a bundle's graphs.

    Args:
        name: Name of the model.
        input_size: Side of the square crop in pixels.
        crop_margin: Side of the crop as a multiple of the face box's height.
        sample_hz: Crops of a face per second in the training data.
        window: Largest number of samples in a window.
        min_frames: Smallest number of samples in a window.
        feature_dim: Length of a feature vector.
        feature_every: Samples of a face from one whose feature and temporal residuals are computed to the
            next; those between repeat the feature.
        calibration: Mapping from the logit to `p_fake` and state.
        weights: Stored type of the weights.
        training: Data, recipe and provenance, as JSON values.
        metrics: Figures on held-out data, as JSON values.
        parity: Figures and limits of the parity gates at export, as JSON values.
        temporal: Classifier of temporal residuals, whose logit is added to the network's; None for a model
            without one. It is stored in a file of its own.

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
    feature_every: int = 1
    calibration: Calibration = Calibration()
    weights: Weights = "float32"
    training: Mapping[str, Any] = {}
    metrics: Mapping[str, Any] = {}
    parity: Mapping[str, Any] = {}
    temporal: TemporalClassifier | None = None

    def __post_init__(self) -> None:
        # The name is shown in pages, metrics and logs.
        if not self.name or self.name != printable(self.name):
            raise ValueError("name must be one line of printable characters and not empty")
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
        if not 1 <= self.feature_every <= self.window:
            raise ValueError(
                f"feature_every must be within 1..window ({self.window}), not {self.feature_every}"
            )
        if self.weights not in get_args(Weights):
            raise ValueError(f"weights must be one of {', '.join(get_args(Weights))}, not {self.weights!r}")

    @property
    def min_fill(self) -> float:
        """Share of the window below which a face is `warming`."""
        return self.min_frames / self.window


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Hash and size of one file of the bundle.

    Args:
        sha256: SHA-256 in hexadecimal.
        bytes: Size.
    """

    sha256: str
    bytes: int | None = None


# The JSON document. Fields without a default are required; keys that are not listed are ignored.


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal["crops"]
    dtype: Literal["uint8"]
    shape: tuple[Literal["N"], int, int, Literal[3]]
    color: Literal["RGB"]
    crop_margin: float


class _Features(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "features"
    dtype: str = "float32"
    shape: tuple[Literal["N"], Literal["T"], int]


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "logit"
    dtype: str = "float32"
    shape: tuple[str, ...] = ("N",)


class _Sampling(msgspec.Struct, frozen=True, kw_only=True):
    sample_hz: float
    window: int
    min_frames: int
    feature_every: int = 1


class _Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """`Calibration` without defaults: a missing threshold must not be guessed."""

    scale: float
    offset: float
    threshold_fake: float
    threshold_real: float
    hysteresis: float
    threshold_fpr1: float | None
    meaning: str = _MEANING


class _Files(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    backbone: FileEntry = msgspec.field(name=BACKBONE_FILE)
    head: FileEntry = msgspec.field(name=HEAD_FILE)
    temporal: FileEntry | None = msgspec.field(name=TEMPORAL_FILE, default=None)


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    format_version: int
    name: str
    input: _Input
    features: _Features
    output: _Output = _Output()
    sampling: _Sampling
    calibration: _Calibration
    weights: Weights
    training: dict[str, Any]
    metrics: dict[str, Any]
    parity: dict[str, Any]
    files: _Files


class _Version(msgspec.Struct, frozen=True):
    format_version: int


def encode_manifest(manifest: Manifest, files: Mapping[str, FileEntry]) -> str:
    """Return a manifest as JSON text.

    Args:
        manifest: The manifest. The content of `temporal` is not included, only the entry of its file.
        files: Entries by file name, `backbone.onnx` and `head.onnx` at least.

    Raises:
        ValueError: A value cannot be written as JSON, such as NaN.
    """
    size = manifest.input_size
    document = _Document(
        format_version=FORMAT_VERSION,
        name=manifest.name,
        input=_Input(
            name="crops",
            dtype="uint8",
            shape=("N", size, size, 3),
            color="RGB",
            crop_margin=manifest.crop_margin,
        ),
        features=_Features(shape=("N", "T", manifest.feature_dim)),
        sampling=_Sampling(
            sample_hz=manifest.sample_hz,
            window=manifest.window,
            min_frames=manifest.min_frames,
            feature_every=manifest.feature_every,
        ),
        calibration=_Calibration(**asdict(manifest.calibration)),
        weights=manifest.weights,
        training=dict(manifest.training),
        metrics=dict(manifest.metrics),
        parity=dict(manifest.parity),
        files=_Files(backbone=files[BACKBONE_FILE], head=files[HEAD_FILE], temporal=files.get(TEMPORAL_FILE)),
    )
    # The standard encoder refuses NaN, which msgspec writes as null.
    return json.dumps(msgspec.to_builtins(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def decode_manifest(path: Path, content: bytes) -> tuple[Manifest, dict[str, FileEntry]]:
    """Read and check the JSON of a manifest.

    Args:
        path: Path of the manifest, for error messages.
        content: JSON text in UTF-8.

    Returns:
        The manifest, with `temporal` None in any case, and the entries of the bundle's files by name.

    Raises:
        BundleUnsupported: The format version is not `FORMAT_VERSION`.
        BundleInvalid: It is not JSON, lacks a key or has an impossible value; the message names the key.
    """
    version = _decode(path, content, _Version).format_version
    if version != FORMAT_VERSION:
        raise BundleUnsupported(path, version, FORMAT_VERSION)
    document = _decode(path, content, _Document)
    _, height, width, _ = document.input.shape
    if height != width:
        raise BundleInvalid(path, f"'input.shape' has sides of {height} and {width}, which must be equal")
    scaling = {field.name: getattr(document.calibration, field.name) for field in fields(Calibration)}
    try:
        manifest = Manifest(
            name=document.name,
            input_size=height,
            crop_margin=document.input.crop_margin,
            sample_hz=document.sampling.sample_hz,
            window=document.sampling.window,
            min_frames=document.sampling.min_frames,
            feature_every=document.sampling.feature_every,
            feature_dim=document.features.shape[2],
            calibration=Calibration(**scaling),
            weights=document.weights,
            training=document.training,
            metrics=document.metrics,
            parity=document.parity,
        )
    except ValueError as error:
        raise BundleInvalid(path, str(error)) from error
    files = {BACKBONE_FILE: document.files.backbone, HEAD_FILE: document.files.head}
    if document.files.temporal is not None:
        files[TEMPORAL_FILE] = document.files.temporal
    return manifest, files


def _decode(path: Path, content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise BundleInvalid(path, _explain(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleInvalid(path, f"not readable as JSON ({error})") from error


def _explain(message: str) -> str:
    """Rewrite msgspec's "Expected `float`, got `str` - at `$.a.b`" with the key's full name first."""
    what, _, place = message.partition(" - at `$")
    key = place.rstrip("`").lstrip(".")
    if missing := re.fullmatch(r"Object missing required field `(.+)`", what):
        return f"lacks the key {f'{key}.{missing[1]}'.lstrip('.')!r}"
    reason = (what[0].lower() + what[1:]).replace("`", "")
    return f"{key!r}: {reason}" if key else f"the manifest: {reason}"
