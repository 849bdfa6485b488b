"""Sources of a configuration: secrets, names and settings of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.config.model import MonitorConfig, SourceConfig, ThresholdsConfig
from runtime.config.sources import make_source, make_sources, unique_names
from streams.errors import SourceInvalid
from streams.input.address import Address
from streams.input.source import Source

CAMERA = "rtsp://10.0.0.7/cam"


def test_the_password_comes_from_a_file_or_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Special characters need no encoding, a line break at the end is removed, and nothing is shown."""
    path = tmp_path / "password"
    path.write_text("p@ss/w:rd?\n")
    monkeypatch.setenv("CAMERA_PASSWORD", "p@ss/w:rd?")
    for source in (
        make_source(SourceConfig(address=CAMERA, user="a@b", password_file=path)),
        make_source(SourceConfig(address=CAMERA, user="a@b", password_env="CAMERA_PASSWORD")),
    ):
        assert source.address.reveal() == "rtsp://a%40b:p%40ss%2Fw%3Ard%3F@10.0.0.7/cam"
        assert str(source.address) == "rtsp://10.0.0.7"
        assert "w:rd" not in repr(source)


def test_the_whole_address_may_be_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of an RTMP address is a key."""
    path = tmp_path / "address"
    path.write_text("rtmp://10.0.0.8/live/k3y\n")
    monkeypatch.setenv("ADDRESS", "rtmp://10.0.0.8/live/k3y")
    for config in (SourceConfig(address_file=path), SourceConfig(address_env="ADDRESS")):
        assert make_source(config).address.reveal() == "rtmp://10.0.0.8/live/k3y"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\xff\xfe", "not text"),
        (b"x" * 9000, "longer"),
    ],
)
def test_an_unusable_secret_is_an_error(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """The message names the file, not its content."""
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as raised:
        make_source(SourceConfig(address=CAMERA, user="ada", password_file=path))
    assert str(path) in str(raised.value)


def test_a_variable_that_is_not_set_is_an_error() -> None:
    """A stream without its password would only fail later."""
    with pytest.raises(ValueError, match="the environment variable NO_SUCH_VARIABLE is not set"):
        make_source(SourceConfig(address=CAMERA, user="ada", password_env="NO_SUCH_VARIABLE"))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("demo", "only a network address has a user"),
        ("rtsp://x:y@10.0.0.7/", "it contains a user already"),
        ("rtsp://[x/", "it is malformed"),
    ],
)
def test_a_user_needs_a_network_address_without_one(address: str, reason: str) -> None:
    """The message shows no part that may be a password."""
    with pytest.raises(SourceInvalid, match=reason) as raised:
        make_source(SourceConfig(address=address, user="ada"))
    assert "x:y" not in str(raised.value)


def test_sources_have_settings_of_their_own_or_the_common_ones() -> None:
    """An unusable source is reported with its index; names are made unique."""
    config = MonitorConfig(
        rate=4,
        thresholds=ThresholdsConfig(real=0.3, fake=0.7),
        sources=(
            SourceConfig(address=CAMERA),
            SourceConfig(address="no such file"),
            SourceConfig(address=CAMERA, rate=2, thresholds=ThresholdsConfig(fake=0.9)),
            SourceConfig(address="demo", thresholds=ThresholdsConfig(fake=0.1)),
        ),
    )
    sources, problems = make_sources(config)
    assert [item.source.name for item in sources] == ["10.0.0.7", "10.0.0.7-2"]
    assert [item.rate_hz for item in sources] == [4, 2]
    assert [item.thresholds.fake for item in sources] == [0.7, 0.9]
    assert [item.thresholds.real for item in sources] == [0.3, 0.3]
    assert [problem.index for problem in problems] == [1, 3]
    assert "no such file" in problems[0].reason
    assert "is above" in problems[1].reason


def test_unique_names() -> None:
    """A name that looks like a numbered one is taken into account."""
    names = ["cam", "cam", "cam-2", "cam"]
    sources = [Source(address=Address("", shown="", name=name), live=True, kind="demo") for name in names]
    assert unique_names(sources) == ["cam", "cam-3", "cam-2", "cam-4"]


def test_long_names_differ_when_they_are_cut(tmp_path: Path) -> None:
    """The number counts towards the longest name."""
    files = [tmp_path / folder / f"{'x' * 100}.mp4" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    sources, _ = make_sources(MonitorConfig(sources=tuple(SourceConfig(address=str(file)) for file in files)))
    assert [item.source.name for item in sources] == ["x" * 63 + "…", "x" * 62 + "-2"]


@pytest.mark.parametrize(
    "named", [SourceConfig(address="demo", name="10.0.0.7"), SourceConfig(address="10.0.0.7=demo")]
)
def test_a_given_name_is_not_taken_by_an_address(named: SourceConfig) -> None:
    """A token that is restricted to a stream shows the source that the user has called so."""
    config = MonitorConfig(sources=(SourceConfig(address=CAMERA), named, SourceConfig(address=CAMERA)))
    sources, _ = make_sources(config)
    assert [(item.source.name, item.source.kind) for item in sources] == [
        ("10.0.0.7-2", "rtsp"),
        ("10.0.0.7", "demo"),
        ("10.0.0.7-3", "rtsp"),
    ]


def test_sources_with_one_reader_are_given_once() -> None:
    """Two streams would take each other's frames of standard input, or of one sender."""
    addresses = ["-", "a=-", "browser", "whip:s3cr3t-key", "b=whip:s3cr3t-key", "whip:other", "demo", "demo"]
    config = MonitorConfig(sources=tuple(SourceConfig(address=address) for address in addresses))
    sources, problems = make_sources(config)
    assert [item.source.kind for item in sources] == ["pipe", "push", "push", "push", "demo", "demo"]
    assert [problem.index for problem in problems] == [1, 4]
    assert problems[0].reason == "a (standard input): was given twice; give it once"
    assert "s3cr3t" not in problems[1].reason
