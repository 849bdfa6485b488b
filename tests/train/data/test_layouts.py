"""Tests of reading each layout, from empty files named as in the real data sets."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from train.data.layouts import LayoutError, Video, find_videos
from train.data.splits import check_no_leak


def touch(root: Path, *names: str) -> None:
    """Create empty files; layouts are read from names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def by_name(videos: tuple[Video, ...]) -> dict[str, Video]:
    """Index videos by name, after checks that hold for every layout."""
    check_no_leak([video.group for video in videos], [str(video.split) for video in videos])
    found = {video.name: video for video in videos}
    assert len(found) == len(videos)
    assert all(video.split is not None for video in videos)
    return found


def write_manifest(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a CSV manifest with the columns of its first row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_folder_links_fakes_to_originals_by_name(tmp_path: Path) -> None:
    """fake/method/035_036 belongs to real/035 and real/036; other files are ignored."""
    touch(tmp_path, "real/035.mp4", "real/036.MP4", "real/040.mkv", "real/notes.txt", "real/._035.mp4")
    touch(tmp_path, "fake/swap/035_036.mp4", "fake/lips/040.mp4", "fake/other.webm")
    found = find_videos(tmp_path)
    videos = by_name(found.videos)
    assert found.layout == "folder"
    assert found.notes == ()
    assert set(videos) == {"real_035", "real_036", "real_040", "swap_035_036", "lips_040", "fake_other"}
    assert len({videos[name].group for name in ("real_035", "real_036", "swap_035_036")}) == 1
    assert videos["lips_040"].group == videos["real_040"].group != videos["real_035"].group
    assert videos["lips_040"].method == "lips"
    assert videos["fake_other"].fake
    assert not videos["real_035"].fake


def test_folder_without_common_names_has_a_note(tmp_path: Path) -> None:
    """If no fake can be linked to its original, a note asks for a manifest."""
    touch(tmp_path, "Real/a.mp4", "Real/b.mp4", "Fake/x.mp4", "Fake/y.mp4")
    found = find_videos(tmp_path)
    assert "use a manifest with groups" in found.notes[0]


def test_split_folders_are_used(tmp_path: Path) -> None:
    """Without val/, a tenth of the training groups is used for validation, and a note says so."""
    for i in range(20):
        touch(tmp_path, f"train/real/{i}.mp4", f"train/fake/{i}.mp4")
    touch(tmp_path, "test/real/90.mp4", "test/fake/90.mp4")
    found = find_videos(tmp_path)
    by_name(found.videos)
    assert Counter(video.split for video in found.videos) == {"train": 36, "val": 4, "test": 2}
    assert any("tenth of the training groups" in note for note in found.notes)


def test_folder_with_a_leak_is_refused(tmp_path: Path) -> None:
    """A fake in another split than its original is an error that names the group."""
    touch(tmp_path, "train/real/a.mp4", "test/fake/a.mp4")
    with pytest.raises(LayoutError, match="group 'a' is in test and in train"):
        find_videos(tmp_path)
    assert len(by_name(find_videos(tmp_path, split="group").videos)) == 2


def test_manifest_states_label_group_and_split(tmp_path: Path) -> None:
    """Paths are relative to the manifest, and an empty split is that of the group."""
    manifest = write_manifest(
        tmp_path / "list.csv",
        [
            {"path": "x/a.mp4", "label": "real", "group": "g1", "split": "test"},
            {"path": "y/a.mp4", "label": "FAKE", "group": "g1", "split": ""},
            {"path": "b.mp4", "label": "0", "group": "g2", "split": "training"},
            {"path": "c d.é.mp4", "label": "1", "group": "", "split": "valid"},
        ],
    )
    found = find_videos(manifest)
    videos = by_name(found.videos)
    by_path = {video.path.relative_to(tmp_path).as_posix(): video for video in found.videos}
    assert by_path["y/a.mp4"].split == "test"
    assert by_path["y/a.mp4"].fake
    assert by_path["b.mp4"].split == "train"
    assert by_path["c d.é.mp4"].split == "val"
    # Two files are called a.mp4; their names must differ.
    assert len([name for name in videos if name.startswith("a-")]) == 2
    assert all("." not in name and " " not in name for name in videos)


def test_the_splits_of_a_manifest_are_kept(tmp_path: Path) -> None:
    """If a manifest states train for all videos, none is taken away for validation."""
    rows = [{"path": f"{i}.mp4", "label": "real", "group": str(i), "split": "train"} for i in range(20)]
    for row in rows:
        touch(tmp_path, row["path"])
    found = find_videos(write_manifest(tmp_path / "list.csv", rows))
    assert {video.split for video in found.videos} == {"train"}
    assert not found.notes


def test_manifest_links_target_and_source(tmp_path: Path) -> None:
    """Without groups, a face swap links the videos of both people."""
    manifest = write_manifest(
        tmp_path / "list.csv",
        [
            {"path": "1.mp4", "label": "real", "target": "ann", "source": ""},
            {"path": "2.mp4", "label": "real", "target": "bob", "source": ""},
            {"path": "3.mp4", "label": "fake", "target": "ann", "source": "bob"},
        ],
    )
    assert {video.group for video in find_videos(manifest).videos} == {"ann-bob"}


@pytest.mark.parametrize("name", ["originals/a.mp4", "./originals/a.mp4", "a.mp4", "a"])
@pytest.mark.parametrize("column", ["target", "source"])
def test_manifest_links_a_fake_to_the_file_that_it_names(tmp_path: Path, name: str, column: str) -> None:
    """Path, file name and name without suffix name the same original; another file is another group."""
    rows = [
        {"path": "originals/a.mp4", "label": "real"},
        {"path": "originals/b.mp4", "label": "real"},
        {"path": "swaps/x.mp4", "label": "fake", column: name},
    ]
    columns = {"path": "", "label": "", "target": "", "source": ""}
    found = find_videos(write_manifest(tmp_path / "list.csv", [columns | row for row in rows]))
    videos = by_name(found.videos)
    assert videos["x"].group == videos["a"].group != videos["b"].group
    if column == "target":
        assert videos["x"].target == videos["a"].target == "a"
    assert not found.notes


def test_manifest_links_a_fake_to_the_group_of_its_original(tmp_path: Path) -> None:
    """A group that only one of the two states holds for both; of two files of one name, that of the set."""
    manifest = write_manifest(
        tmp_path / "list.csv",
        [
            {"path": "one/a.mp4", "label": "real", "group": "g", "target": "", "set": "one"},
            {"path": "two/a.mp4", "label": "real", "group": "", "target": "", "set": "two"},
            {"path": "x.mp4", "label": "fake", "group": "", "target": "a", "set": "one"},
            {"path": "y.mp4", "label": "fake", "group": "h", "target": "a", "set": "two"},
            {"path": "z.mp4", "label": "fake", "group": "h", "target": "a", "set": "one"},
        ],
    )
    groups = {video.path.stem: video.group for video in find_videos(manifest).videos if video.fake}
    assert groups["x"] == "g"
    assert groups["y"] == groups["z"] != "g"
    assert {v.group for v in find_videos(manifest).videos if v.path.parent.name == "two"} == {groups["y"]}


def test_a_split_between_a_fake_and_its_original_is_refused(tmp_path: Path) -> None:
    """Without groups the leak was not seen."""
    rows = [
        {"path": "a.mp4", "label": "real", "target": "", "split": "train"},
        {"path": "x.mp4", "label": "fake", "target": "a", "split": "test"},
    ]
    with pytest.raises(LayoutError, match=r"group 'a\.mp4' is in test and in train"):
        find_videos(write_manifest(tmp_path / "list.csv", rows))


def test_a_target_that_no_video_has_is_noted(tmp_path: Path) -> None:
    """It may be misspelt, so that the fake is not kept with its original; a stated group decides."""
    rows = [
        {"path": "a.mp4", "label": "real", "target": "", "group": ""},
        {"path": "x.mp4", "label": "fake", "target": "aa", "group": ""},
        {"path": "y.mp4", "label": "fake", "target": "aa", "group": "g"},
    ]
    (note,) = find_videos(write_manifest(tmp_path / "list.csv", rows)).notes
    assert note.startswith("1 fakes have neither a group nor a target")
    assert "'aa'" in note


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "a.mp4", "fake": "1"}], "no column label"),
        ([{"path": "a.mp4", "label": "maybe"}], "line 2: label 'maybe'"),
        ([{"path": "a.mp4", "label": "real", "split": "tset"}], "line 2: split 'tset'"),
        ([{"path": "", "label": "real"}], "line 2: no path"),
        (
            [{"path": "a.mp4", "label": "real"}, {"path": "b" * 200_000, "label": "real"}],
            "line 3: field larger",
        ),
        (
            [
                {"path": "a.mp4", "label": "real"},
                {"path": "b.mp4", "label": "real"},
                {"path": "x/../a.mp4", "label": "fake"},
            ],
            r"line 4: .*a\.mp4 is already in line 2; list each video once",
        ),
        (
            [
                {"path": "a.mp4", "label": "real", "group": "g", "split": "train"},
                {"path": "b.mp4", "label": "fake", "group": "g", "split": "val"},
            ],
            "group 'g' is in train and in val",
        ),
    ],
)
def test_manifest_errors_state_the_line(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    """A wrong header, label or split, or a leak, is an error of one line."""
    manifest = write_manifest(tmp_path / "list.csv", rows)
    with pytest.raises(LayoutError, match=message) as caught:
        find_videos(manifest)
    assert "\n" not in str(caught.value)


def test_a_short_line_of_a_manifest_is_refused(tmp_path: Path) -> None:
    """The columns may be in any order, so that the path of a short line may be missing."""
    path = tmp_path / "list.csv"
    path.write_text("label,path\nreal,a.mp4\nreal\n")
    with pytest.raises(LayoutError, match="line 3: no path"):
        find_videos(path)


def test_a_binary_manifest_is_refused(tmp_path: Path) -> None:
    """The error says that the file is not UTF-8."""
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(LayoutError, match="UTF-8"):
        find_videos(path)


@pytest.fixture
def ffpp(tmp_path: Path) -> Path:
    """Return a FaceForensics++ folder of five pairs, with DeepFakeDetection."""
    root = tmp_path / "FaceForensics++"
    for a, b in (("000", "003"), ("001", "870"), ("002", "006"), ("035", "036"), ("044", "945")):
        for compression in ("c23", "c40"):
            touch(root, *(f"original_sequences/youtube/{compression}/videos/{x}.mp4" for x in (a, b)))
            for method in ("Deepfakes", "Face2Face"):
                for x, y in ((a, b), (b, a)):
                    touch(root, f"manipulated_sequences/{method}/{compression}/videos/{x}_{y}.mp4")
    touch(root, "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4")
    touch(root, "original_sequences/actors/c23/videos/01__walking.mp4")
    touch(root, "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking__ABCDEFGH.mp4")
    return root


def write_splits(folder: Path) -> None:
    """Write the official split JSONs without the pair 044, 945."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.json").write_text(json.dumps([["000", "003"], ["870", "001"]]))
    (folder / "val.json").write_text(json.dumps([["002", "006"]]))
    (folder / "test.json").write_text(json.dumps([["036", "035"]]))


@pytest.mark.parametrize("place", ["splits", "dataset/splits", "."])
def test_ffpp_split_jsons_are_used(ffpp: Path, place: str) -> None:
    """Official pairs define group and split, unlisted videos are excluded, and one compression is read."""
    write_splits(ffpp / place)
    found = find_videos(ffpp)
    videos = by_name(found.videos)
    assert found.layout == "ffpp"
    assert len(videos) == 5 * (2 + 4) + 2
    assert videos["Deepfakes_036_035"].split == videos["original_035"].split == "test"
    assert videos["Face2Face_001_870"].split == "train"
    assert videos["original_006"].split == "val"
    assert videos["original_044"].split == "unused"
    assert videos["Deepfakes_036_035"].group == "035-036"
    assert (videos["Deepfakes_036_035"].target, videos["Deepfakes_036_035"].source) == ("036", "035")
    assert videos["original_01__walking"].split == "test"
    assert videos["DeepFakeDetection_01_02__walking__ABCDEFGH"].group == "actor01-actor02"
    assert all("/c23/" in video.path.as_posix() for video in found.videos)
    assert any("6 videos are in none of the split JSONs" in note for note in found.notes)


def test_ffpp_without_split_jsons_is_split_by_group(ffpp: Path) -> None:
    """Pairs stay together, and a note says that this is not the official split."""
    found = find_videos(ffpp)
    videos = by_name(found.videos)
    assert "not the official split" in found.notes[0]
    assert videos["Deepfakes_000_003"].group == videos["original_003"].group == "000-003"


def test_ffpp_errors(ffpp: Path) -> None:
    """A missing compression, a missing JSON and a broken JSON are reported."""
    with pytest.raises(LayoutError, match=r"no videos of compression raw; found here: c23, c40"):
        find_videos(ffpp, compression="raw")
    write_splits(ffpp / "splits")
    (ffpp / "splits" / "val.json").unlink()
    with pytest.raises(LayoutError, match=r"val\.json: is missing, but the other splits are there"):
        find_videos(ffpp)
    (ffpp / "splits" / "val.json").write_text("[[")
    with pytest.raises(LayoutError, match="cannot be read as JSON"):
        find_videos(ffpp)
    (ffpp / "splits" / "val.json").write_text('["002"]')
    with pytest.raises(LayoutError, match="not a list of pairs"):
        find_videos(ffpp)


@pytest.fixture
def celeb_df(tmp_path: Path) -> Path:
    """Return a Celeb-DF-v2 folder: two circles of people with swapped faces, and videos from YouTube."""
    root = tmp_path / "Celeb-DF-v2"
    for circle in (("id0", "id1", "id2"), ("id10", "id11")):
        for person in circle:
            touch(root, f"Celeb-real/{person}_0000.mp4", f"Celeb-real/{person}_0001.mp4")
            for other in circle:
                if other != person:
                    touch(root, f"Celeb-synthesis/{person}_{other}_0000.mp4")
    touch(root, *(f"YouTube-real/{i:05}.mp4" for i in range(10)))
    return root


def test_celeb_df_excludes_people_of_the_test_list_from_training(celeb_df: Path) -> None:
    """In the list 1 is real; people in it are in no training video."""
    (celeb_df / "List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00003.mp4\n1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id1_id0_0000.mp4\n"
        "0 Celeb-synthesis/id0_id1_0007.mp4\n"
    )
    found = find_videos(celeb_df)
    videos = by_name(found.videos)
    assert found.layout == "celeb-df"
    tested = {name for name, video in videos.items() if video.split == "test"}
    assert tested == {"YouTube-real_00003", "Celeb-real_id0_0000", "Celeb-synthesis_id1_id0_0000"}
    # id2 is linked to id0 by a fake, so it is excluded too.
    assert videos["Celeb-real_id2_0001"].split == "unused"
    assert videos["Celeb-real_id10_0000"].split in ("train", "val")
    swap = videos["Celeb-synthesis_id1_id0_0000"]
    assert (swap.fake, swap.target, swap.source, swap.group) == (True, "id1_0000", "id0", "id0+2")
    assert any("1 videos of the official test list are missing" in note for note in found.notes)
    assert any("excluded" in note for note in found.notes)


def test_celeb_df_can_be_split_by_people_instead(celeb_df: Path) -> None:
    """`split="group"` ignores the test list and divides by people."""
    (celeb_df / "List_of_testing_videos.txt").write_text("1 Celeb-real/id0_0000.mp4\n")
    videos = find_videos(celeb_df, split="group").videos
    by_name(videos)
    assert all(video.split != "unused" for video in videos)


def test_celeb_df_errors(celeb_df: Path) -> None:
    """A list with inverted labels or broken lines is refused."""
    path = celeb_df / "List_of_testing_videos.txt"
    path.write_text("0 Celeb-real/id0_0000.mp4\n")
    with pytest.raises(LayoutError, match="wrong label"):
        find_videos(celeb_df)
    path.write_text("Celeb-real/id0_0000.mp4\n")
    with pytest.raises(LayoutError, match="line 1"):
        find_videos(celeb_df)


def test_dfdc_groups_fakes_with_their_original_across_parts(tmp_path: Path) -> None:
    """A fake in one part and its original in another form one group."""
    for part in range(20):
        folder = tmp_path / f"dfdc_train_part_{part}"
        touch(folder, f"real{part}.mp4", f"fake{part}.mp4")
        metadata = {
            f"real{part}.mp4": {"label": "REAL", "split": "train"},
            f"fake{part}.mp4": {"label": "FAKE", "split": "train", "original": f"real{(part + 1) % 20}.mp4"},
        }
        (folder / "metadata.json").write_text(json.dumps(metadata))
    found = find_videos(tmp_path)
    videos = by_name(found.videos)
    assert found.layout == "dfdc"
    assert videos["DFDC_fake3"].group == videos["DFDC_real4"].group == "real4"
    assert videos["DFDC_fake3"].target == "real4"
    assert Counter(video.split for video in found.videos) == {"train": 36, "val": 4}
    assert any("actors of DFDC recur" in note for note in found.notes)
    assert len(find_videos(tmp_path / "dfdc_train_part_0").videos) == 2


def test_dfdc_metadata_without_a_label_is_refused(tmp_path: Path) -> None:
    """A label must be REAL or FAKE."""
    (tmp_path / "metadata.json").write_text('{"a.mp4": {"split": "test"}}')
    with pytest.raises(LayoutError, match="no label REAL or FAKE"):
        find_videos(tmp_path)


def test_unknown_layouts_are_refused(tmp_path: Path) -> None:
    """A missing path, an empty folder, an empty data set and a wrong layout have errors of their own."""
    with pytest.raises(LayoutError, match="no such file"):
        find_videos(tmp_path / "nowhere")
    with pytest.raises(LayoutError, match="no known layout; give a folder with real/ and fake/"):
        find_videos(tmp_path)
    with pytest.raises(LayoutError, match="cannot be read as manifest"):
        find_videos(tmp_path, layout="manifest")
    touch(tmp_path, "real/readme.txt")
    with pytest.raises(LayoutError, match="no video found"):
        find_videos(tmp_path)
