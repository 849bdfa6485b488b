"""Tests of reading sets of clips in each supported form, and of broken ones."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from train.data.clip_set import ClipSetError, is_clip_set, load_clips, read_clip_set
from train.data.crops import encode_jpeg

COLUMNS = "shard,clip,fake,method,target,source,group,frames,sample_hz,native_face_height_px"


def image(value: int, side: int = 24) -> bytes:
    """Return a JPEG of one colour, with the given red value."""
    crop = np.full((side, side, 3), 40, dtype=np.uint8)
    crop[..., 0] = value
    return encode_jpeg(crop, 95)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar file."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("pattern", ["{clip}.{i:02}.jpg", "{clip}/{i:02}.jpg"])
def test_clips_are_read_in_order_and_in_rgb(tmp_path: Path, pattern: str) -> None:
    """Frames are in order and RGB; the video is the name of the clip without its number."""
    (tmp_path / "clips.csv").write_text(
        f"{COLUMNS}\na.tar,swap_1_2_0,1,swap,1,2,1-2,3,8.333,91.5\na.tar,original_1_0,0,original,1,,1-2,3,10,80\n"
    )
    write_tar(
        tmp_path / "a.tar",
        [
            (pattern.format(clip=clip, i=i), image(100 + 50 * i))
            for clip in ("swap_1_2_0", "original_1_0")
            for i in reversed(range(3))
        ],
    )
    assert is_clip_set(tmp_path)
    found = read_clip_set(tmp_path)
    assert found.margin == 1.3
    assert found.splits() == set()
    clips = list(load_clips(found, found.entries))
    first = clips[0]
    assert (first.clip, first.video, first.fake, first.group) == ("swap_1_2_0", "swap_1_2", True, "1-2")
    assert (first.height, found.entries[0].sample_hz) == (91.5, 8.333)
    assert first.frames.shape == (3, 24, 24, 3)
    assert first.frames[:, 12, 12, 0] == pytest.approx([100, 150, 200], abs=3)
    assert first.frames[:, 12, 12, 2] == pytest.approx([40, 40, 40], abs=3)


def test_prepared_json_states_margin_and_notes(tmp_path: Path) -> None:
    """The margin in `prepared.json` overrides the default."""
    (tmp_path / "clips.csv").write_text(f"{COLUMNS},split\na.tar,x_0,0,real,x,,x,1,8,90,test\n")
    (tmp_path / "prepared.json").write_text(json.dumps({"spec": {"margin": 1.7}, "notes": ["beware"]}))
    found = read_clip_set(tmp_path)
    assert (found.margin, found.notes, found.splits()) == (1.7, ("beware",), {"test"})
    (tmp_path / "prepared.json").write_text("{}")
    with pytest.raises(ClipSetError, match="was not written by `prepare`"):
        read_clip_set(tmp_path)


def test_single_crops_are_clips_of_one_frame(tmp_path: Path) -> None:
    """Single crops are read as clips of one frame; a note warns of the recurring actors of DFDC."""
    folder = tmp_path / "dfdc_faces"
    folder.mkdir()
    (folder / "labels.csv").write_text(
        "shard,file,fake,group,native_width,native_height,split\n"
        "v.tar,abc.jpg,0,abc,204,204,val\nv.tar,xyz.jpg,1,abc,51,51,val\n"
    )
    write_tar(folder / "v.tar", [("abc.jpg", image(90)), ("xyz.jpg", image(200))])
    found = read_clip_set(folder)
    clips = list(load_clips(found, found.entries))
    assert [clip.frames.shape[0] for clip in clips] == [1, 1]
    assert [clip.video for clip in clips] == ["abc", "xyz"]
    assert clips[1].fake
    assert clips[0].height == pytest.approx(200)
    assert "actors of DFDC recur" in found.notes[0]


def test_an_index_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """As in a manifest, there may be a byte-order mark, and splits may be spelled out."""
    lines = [f"{COLUMNS},split", *(f"a.tar,x,0,real,x,,x,1,8,90,{split}" for split in ("Training", "dev"))]
    (tmp_path / "clips.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    assert [entry.split for entry in read_clip_set(tmp_path).entries] == ["train", "val"]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("shard,clip\na.tar,x", "no column fake and method and group and frames"),
        ("", "no column shard"),
        (f"{COLUMNS}\na.tar,x_0,yes,real,x,,x,1,8,90", "fake is 'yes'"),
        (f"{COLUMNS}\na.tar,x_0,0,real,x,,x,many,8,90", "line 2 cannot be read"),
        (f"{COLUMNS}\na.tar,x_0,0,real,x,,x,1,8,90\na.tar,x_1,0,real,x", "line 3 cannot be read"),
        (f"{COLUMNS},split\na.tar,x_0,0,real,x,,x,1,8,90", "line 2 cannot be read .it has too few columns"),
        (f"{COLUMNS},split\na.tar,x_0,0,real,x,,x,1,8,90,tset", "line 2 cannot be read .split is 'tset'"),
        (f"{COLUMNS}\na.tar,x_0,0,real,x,,x,-4,8,90", "line 2 cannot be read .frames is -4"),
        (f"{COLUMNS}\na.tar,x_0,0,real,x,,x,1,8,nan", "line 2 cannot be read .native_face_height_px is nan"),
        (f"{COLUMNS}\n{'x' * 200_000}", "line 2 cannot be read"),
        (COLUMNS, "lists no clips"),
    ],
)
def test_a_broken_index_is_reported(tmp_path: Path, index: str, message: str) -> None:
    """The error is one line that names the file."""
    (tmp_path / "clips.csv").write_text(index + "\n")
    with pytest.raises(ClipSetError, match=message) as caught:
        read_clip_set(tmp_path)
    assert "clips.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_shards_are_reported(tmp_path: Path) -> None:
    """Missing index, missing shard, broken shard, missing frame and broken frame each have an error."""
    with pytest.raises(ClipSetError, match=r"contains no clips\.csv or labels\.csv"):
        read_clip_set(tmp_path)
    (tmp_path / "clips.csv").write_text(f"{COLUMNS}\na.tar,x_0,0,real,x,,x,2,8,90\n")
    found = read_clip_set(tmp_path)
    shard = tmp_path / "a.tar"
    with pytest.raises(ClipSetError, match="cannot be read"):
        list(load_clips(found, found.entries))
    shard.write_bytes(b"no tar file" * 100)
    with pytest.raises(ClipSetError, match="cannot be read"):
        list(load_clips(found, found.entries))
    write_tar(shard, [("x_0.00.jpg", image(90))])
    with pytest.raises(ClipSetError, match=r"x_0\.01\.jpg is not in it"):
        list(load_clips(found, found.entries))
    write_tar(shard, [("x_0.00.jpg", image(90)), ("x_0.01.jpg", b"text")])
    with pytest.raises(ClipSetError, match="is not an image"):
        list(load_clips(found, found.entries))


def test_the_shared_data_sets_are_read(skip_or_fail: Callable[[str], None]) -> None:
    """The data sets of the project have the documented numbers of clips and groups."""
    root = os.environ.get("UNMASK_DATA")
    if not root:
        skip_or_fail("UNMASK_DATA does not name the data set")
    clips = read_clip_set(Path(str(root)) / "ffpp_clips")
    assert (len(clips.entries), len({entry.group for entry in clips.entries})) == (249, 18)
    assert next(load_clips(clips, clips.entries[-1:])).frames.shape == (16, 224, 224, 3)
    stills = read_clip_set(Path(str(root)) / "dfdc_faces")
    assert stills.splits() == {"train", "val"}
    assert next(load_clips(stills, stills.entries[-1:])).frames.shape == (1, 224, 224, 3)
