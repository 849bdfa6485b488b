"""Model bundle on disk: two ONNX graphs, and a manifest with their parameters and hashes.

A model with a classifier of temporal residuals has a fourth file, `temporal.json`.

    bundle = load_bundle()                    # the one that ships with unmask
    bundle.window, bundle.sample_hz           # samples in a window, and per second
    bundle.calibration.p_fake(logit)          # probability of a fake

Loading checks the format version, every key, every hash and the inputs and outputs of the graphs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import onnx
from google.protobuf.message import DecodeError

from runtime.errors import BundleInvalid, BundleMismatch, BundleMissing, os_reason
from runtime.files import write_atomically
from runtime.model.manifest import (
    BACKBONE_FILE,
    HEAD_FILE,
    MANIFEST_FILE,
    FileEntry,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from runtime.model.temporal_classifier import (
    TEMPORAL_FILE,
    encode_temporal_classifier,
    read_temporal_classifier,
)

DEFAULT_BUNDLE = Path(__file__).parent / "default"


class Bundle(Manifest, frozen=True, kw_only=True):
    """Checked bundle on disk: the fields of its manifest, and the paths of its files.

    Args:
        path: Directory of the bundle.
        digest: SHA-256 of the manifest in hexadecimal. It identifies the whole bundle, because the manifest
            contains the hash of each file.
        backbone: ONNX graph from crops to features.
        head: ONNX graph from features to logit.
    """

    path: Path
    digest: str
    backbone: Path
    head: Path


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write the manifest of the graphs in a directory, and the temporal classifier beside it.

    Args:
        directory: Directory with `backbone.onnx` and `head.onnx`.
        manifest: The manifest, or a `Bundle`, of which only the fields of the manifest are written.

    Returns:
        The path of the manifest.

    Raises:
        OSError: A graph is missing, or the directory cannot be written.
        ValueError: A value cannot be written as JSON, such as NaN.
    """
    files = {
        file: FileEntry(sha256=_sha256(directory / file), bytes=(directory / file).stat().st_size)
        for file in (BACKBONE_FILE, HEAD_FILE)
    }
    classifier = None if manifest.temporal is None else encode_temporal_classifier(manifest.temporal).encode()
    if classifier is not None:
        files[TEMPORAL_FILE] = FileEntry(sha256=hashlib.sha256(classifier).hexdigest(), bytes=len(classifier))
    text = encode_manifest(manifest, files)
    if classifier is not None:
        write_atomically(directory / TEMPORAL_FILE, classifier)
    path = directory / MANIFEST_FILE
    write_atomically(path, text)
    if classifier is None:
        (directory / TEMPORAL_FILE).unlink(missing_ok=True)
    return path


def change_manifest(directory: Path, **changes: Any) -> Bundle:
    """Replace fields in the manifest of a bundle.

    Args:
        directory: Directory of the bundle.
        changes: New values by field name of `Manifest`.

    Returns:
        The bundle, loaded again.

    Raises:
        BundleError: The directory contains no valid bundle.
        ValueError: A value is out of its range.
    """
    write_manifest(directory, msgspec.structs.replace(load_bundle(directory), **changes))
    return load_bundle(directory)


def load_bundle(path: Path | None = None) -> Bundle:
    """Read and check a bundle.

    Args:
        path: Directory of the bundle; None for the one that ships with unmask.

    Returns:
        The bundle, with every file verified.

    Raises:
        BundleMissing: The directory, its manifest or a file does not exist.
        BundleUnsupported: The format version is not the one that this version reads.
        BundleInvalid: The manifest is not JSON, lacks a key or has an impossible value.
        BundleMismatch: A file differs from its description in the manifest.
    """
    directory = DEFAULT_BUNDLE if path is None else Path(path)
    if not directory.is_dir():
        raise BundleMissing(directory, "no such directory" if not directory.exists() else "not a directory")
    content = _read_manifest(directory / MANIFEST_FILE)
    manifest, files = decode_manifest(directory / MANIFEST_FILE, content)
    for name, entry in files.items():
        _check_hash(directory / name, entry.sha256)
    temporal = None
    if TEMPORAL_FILE in files:
        try:
            temporal = read_temporal_classifier(directory / TEMPORAL_FILE)
        except (OSError, ValueError) as error:
            raise BundleInvalid(directory / TEMPORAL_FILE, str(error)) from error
    bundle = Bundle(
        **{**msgspec.structs.asdict(manifest), "temporal": temporal},
        path=directory,
        digest=hashlib.sha256(content).hexdigest(),
        backbone=directory / BACKBONE_FILE,
        head=directory / HEAD_FILE,
    )
    size, dim = bundle.input_size, bundle.feature_dim
    _check_graph(bundle.backbone, {"crops": ("UINT8", (None, size, size, 3))}, {"features": (None, dim)})
    _check_graph(bundle.head, {"features": ("FLOAT", (None, None, dim))}, {"logit": (None,)})
    return bundle


def _read_manifest(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleMissing(path, "no such file, so this is not a model bundle") from None
    except OSError as error:
        raise BundleMissing(path, f"cannot be read ({os_reason(error)})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(path: Path, expected: str) -> None:
    try:
        found = _sha256(path)
    except FileNotFoundError:
        raise BundleMissing(path, "no such file, although it is in the manifest") from None
    except OSError as error:
        raise BundleMissing(path, f"cannot be read ({os_reason(error)})") from error
    if found != expected:
        raise BundleMismatch(
            path, f"its SHA-256 begins with {found[:12]}, that in the manifest with {expected[:12]}"
        )


def _check_graph(
    path: Path,
    inputs: Mapping[str, tuple[str, tuple[int | None, ...]]],
    outputs: Mapping[str, tuple[int | None, ...]],
) -> None:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise BundleMismatch(path, f"it is not an ONNX graph ({error})") from error
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
