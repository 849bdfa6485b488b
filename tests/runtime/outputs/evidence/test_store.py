"""Folder of events: limits, damage, and what belongs to others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import EvidenceFailed
from runtime.outputs.evidence.manifest import MANIFEST, ManifestError, check_folder, read_manifest
from runtime.outputs.evidence.store import DAY_S, EvidenceStore, StoreLimits
from tests.support.evidence import START, keep_event, write_damaged


def test_events_are_found_again(tmp_path: Path) -> None:
    """Newest first; a folder without a valid manifest is reported, and stays."""
    store = EvidenceStore(tmp_path, wall=lambda: START)
    kept = [keep_event(store, time=START + number) for number in range(3)]
    damaged = write_damaged(tmp_path)
    (tmp_path / "something else").mkdir()
    again = EvidenceStore(tmp_path, wall=lambda: START)
    assert again.events() == store.events() == kept[::-1]
    assert damaged.exists()


def test_the_oldest_are_deleted_when_there_is_no_room(tmp_path: Path) -> None:
    """By size and by age; nothing that is not an event of this folder."""
    now = [START]
    store = EvidenceStore(tmp_path, StoreLimits(max_gb=1e-9, max_days=1), wall=lambda: now[0])
    (tmp_path / "mine.txt").write_text("kept")
    keep_event(store, time=START)
    second = keep_event(store, time=START + 1)
    assert store.events() == [second]
    now[0] += 2 * DAY_S
    store.make_room()
    assert store.events() == []
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_only_files_of_the_manifest_are_served(tmp_path: Path) -> None:
    """Neither other files nor other folders."""
    store = EvidenceStore(tmp_path, wall=lambda: START)
    event = keep_event(store)
    (tmp_path / event.id / "secret").write_text("x")
    assert store.file(event.id, MANIFEST) == tmp_path / event.id / MANIFEST
    assert store.file(event.id, "crops/00.png") is not None
    for name in ("secret", "../x", "", "crops", "crops/../manifest.json", "/etc/passwd"):
        assert store.file(event.id, name) is None
    assert store.file("..", MANIFEST) is None


def test_drafts_of_a_crash_are_removed(tmp_path: Path) -> None:
    """Those of another running program are not."""
    (tmp_path / ".draft-old").mkdir()
    os.utime(tmp_path / ".draft-old", (1, 1))
    (tmp_path / ".draft-new").mkdir()
    EvidenceStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".draft-new"]


@pytest.mark.parametrize("name", ["a file", "a file/below"])
def test_a_folder_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    """One line that names it and the option."""
    (tmp_path / "a file").write_text("")
    with pytest.raises(EvidenceFailed, match="--evidence"):
        EvidenceStore(tmp_path / name)


def _remove(folder: Path) -> None:
    (folder / "frame.jpg").unlink()


def _change(folder: Path) -> None:
    with (folder / "trail.json").open("ab") as file:
        file.write(b" ")


def _add(folder: Path) -> None:
    (folder / "crops" / "99.png").write_bytes(b"")


def _link(folder: Path) -> None:
    (folder / "frame.jpg").rename(folder.parent / "elsewhere.jpg")
    (folder / "frame.jpg").symlink_to(folder.parent / "elsewhere.jpg")


def _escape(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][0]["name"] = "../elsewhere"
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _cut(folder: Path) -> None:
    os.truncate(folder / MANIFEST, 20)


def _enlarge(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b" " * 2_000_000)


def _swap(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["id"] = "20200101T000000Z-cam-1-0000"
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [_remove, _change, _add, _link, _escape, _cut, _enlarge, _swap])
def test_every_change_is_found(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """And an unchanged folder has no difference."""
    event = keep_event(EvidenceStore(tmp_path, wall=lambda: START))
    folder = tmp_path / event.id
    assert list(check_folder(folder)) == []
    damage(folder)
    assert len(list(check_folder(folder))) == 1


def test_a_manifest_of_nothing(tmp_path: Path) -> None:
    """A missing one is an error, not a crash."""
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path)
