"""Damaged bundle files: only the documented errors, of one line that names a file."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BundleError
from runtime.model.bundle import load_bundle, write_manifest
from runtime.model.manifest import BACKBONE_FILE, HEAD_FILE, MANIFEST_FILE
from runtime.model.temporal_classifier import TEMPORAL_FILE
from tests.support.fuzzing import examples, mutations
from tests.support.small_bundle import SMALL, write_small_bundle
from tests.support.temporal import uniform_temporal_classifier

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, -1, 1, 0.5, 1e308, "", "N", "crops", "\x1b[31m", "a\nb", [], {}, [1], "../x"]),
    st.text(max_size=5),
    st.lists(st.integers(-3, 3), max_size=4),
)
GRAPHS = 6  # in one process, which takes a second to start

# Prints the name of the error of each bundle that is given, or `ok`.
LOAD = """
import logging, sys
from pathlib import Path
import numpy as np
from runtime.engines.factory import open_engine
from runtime.errors import BundleError, EngineError
from runtime.model.bundle import load_bundle
for path in sys.argv[1:]:
    try:
        bundle = load_bundle(Path(path))
        with open_engine(bundle, "onnxruntime", threads=1) as engine:
            engine.features(np.zeros((2, bundle.input_size, bundle.input_size, 3), np.uint8))
            engine.logits(np.zeros((2, bundle.window, bundle.feature_dim), np.float32))
    except (BundleError, EngineError) as error:
        assert "\\n" not in str(error), error
        print(type(error).__name__)
    else:
        print("ok")
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small bundle with a temporal classifier."""
    directory = write_small_bundle(tmp_path_factory.mktemp("bundles") / "small")
    temporal = uniform_temporal_classifier(0.1, bias=0.0, window=SMALL.window)
    write_manifest(directory, msgspec.structs.replace(SMALL, temporal=temporal))
    return directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for damaged bundles."""
    return tmp_path_factory.mktemp("damaged")


def damaged(original: Path, directory: Path, name: str, content: bytes) -> Path:
    """Copy a bundle with another content of one file, whose hash is right."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(original, directory)
    (directory / name).write_bytes(content)
    if name != MANIFEST_FILE:
        manifest = json.loads((directory / MANIFEST_FILE).read_text())
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (directory / MANIFEST_FILE).write_text(json.dumps(manifest))
    return directory


def changed(document: Any, data: st.DataObject) -> Any:
    """Return a JSON document with one value, at any depth, replaced, removed or added."""
    document = copy.deepcopy(document)
    node = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return document
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            node = inner
            continue
        if isinstance(node, dict) and data.draw(st.integers(0, 3)) == 0:
            del node[key]
        else:
            node[key] = data.draw(VALUES)
        return document


def check(directory: Path) -> None:
    """Load a bundle; check that it is valid or that its error is a documented one."""
    message = ""
    try:
        load_bundle(directory)
    except BundleError as error:
        message = str(error)
    assert message.isprintable()
    assert not message or directory.name in message


@pytest.mark.fuzz
@examples(80, 20_000)
@given(name=st.sampled_from([MANIFEST_FILE, TEMPORAL_FILE]), data=st.data())
def test_changed_values(original: Path, folder: Path, name: str, data: st.DataObject) -> None:
    """Manifest and temporal classifier with a value of another type or size."""
    document = changed(json.loads((original / name).read_text()), data)
    check(damaged(original, folder / "values", name, json.dumps(document).encode()))


@pytest.mark.fuzz
@examples(80, 20_000)
@given(name=st.sampled_from([MANIFEST_FILE, TEMPORAL_FILE]), data=st.data())
def test_changed_bytes(original: Path, folder: Path, name: str, data: st.DataObject) -> None:
    """Manifest and temporal classifier with changed bytes."""
    content = data.draw(mutations((original / name).read_bytes()))
    check(damaged(original, folder / "bytes", name, content))


@pytest.mark.fuzz
@examples(1, 500)
@given(data=st.data())
def test_changed_graphs(original: Path, folder: Path, data: st.DataObject) -> None:
    """Graphs with changed bytes, in a process of their own: no crash."""
    paths = []
    for number in range(GRAPHS):
        name = data.draw(st.sampled_from([BACKBONE_FILE, HEAD_FILE]))
        content = data.draw(mutations((original / name).read_bytes()))
        paths.append(damaged(original, folder / f"graph-{number}", name, content))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, len(done.stdout.split())) == (0, GRAPHS), done.stderr
