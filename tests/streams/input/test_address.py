"""Tests of the shown form of an address: without user name, password, path and query."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from streams.errors import SourceError
from streams.input.address import file_address, network_address
from streams.input.source import parse_source

ROOT = Path(__file__).parents[3]
SECRETS = ("s3cr3t", "s3", "cr3t", "ada", "K3Y")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://ada:s3cr3t@10.0.0.7:554/live/K3Y", "rtsp://10.0.0.7:554"),
        ("rtsp://ada@host/K3Y", "rtsp://host"),
        ("rtsp://ada:s3:cr3t@cr@host/cam", "rtsp://host"),
        ("rtsp://10.0.0.7/user=ada&password=s3cr3t&channel=1&stream=0.sdp", "rtsp://10.0.0.7"),
        ("rtsp://10.0.0.7:7447/K3Y", "rtsp://10.0.0.7:7447"),
        ("rtsps://10.0.0.7:7441/K3Y?enableSrtp", "rtsps://10.0.0.7:7441"),
        ("rtmp://live.example/app/K3Y", "rtmp://live.example"),
        ("rtmps://a.example:443/app/x?key=K3Y", "rtmps://a.example:443"),
        ("srt://10.0.0.7:9000?passphrase=s3cr3t&streamid=K3Y", "srt://10.0.0.7:9000"),
        ("http://10.0.0.7/cgi-bin/snapshot.cgi?loginuse=ada&loginpas=s3cr3t", "http://10.0.0.7"),
        ("https://cdn.example/K3Y/master.m3u8;jwt=s3cr3t#K3Y", "https://cdn.example"),
        ("rtsp://[fe80::1]:554/K3Y", "rtsp://[fe80::1]:554"),
        ("RTSP://ada:s3cr3t@HOST/K3Y", "rtsp://host"),
        ("udp://@239.0.0.1:1234?localaddr=K3Y", "udp://239.0.0.1:1234"),
        ("tcp://0.0.0.0:9000?listen&k=K3Y", "tcp://0.0.0.0:9000"),
        ("ftp://ada:s3cr3t@host/K3Y.mp4", "ftp://host"),
        # The host could be a part of a password with an unescaped slash.
        ("rtsp://s3/cr3t@host/cam", "rtsp://…"),
        ("rtsp://live.example:554/K3Y@cr3t", "rtsp://…"),
        ("http://localhost:8080/K3Y?a=s3@cr3t", "http://…"),
        ("rtsp://ada:s3cr3t@10.0.0.7/me@home", "rtsp://10.0.0.7"),
    ],
)
def test_network_addresses(text: str, shown: str) -> None:
    """Scheme, host and port are shown in every text that can be made of the address or its source."""
    address = network_address(text)
    assert address.reveal() == text
    source = parse_source(text)
    forms = (str(address), repr(address), f"{address}", repr(source), str(source), source.spec, source.name)
    assert forms[0] == shown
    for form in forms:
        assert not any(secret in form.lower() for secret in (*SECRETS, "k3y"))
    for again in (copy.deepcopy(address), pickle.loads(pickle.dumps(address))):
        assert (again, hash(again), str(again)) == (address, hash(address), shown)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("open rtsp://ada:s3cr3t@host:554/live/K3Y?t=1 failed", "open rtsp://host:554 failed"),
        ("ada:s3cr3t was refused", "… was refused"),
        ("password s3cr3t", "password …"),
        ("GET /live/K3Y?t=1", "GET …"),
        ("stream live/K3Y", "stream …"),
        ("another text", "another text"),
    ],
)
def test_addresses_are_removed_from_other_texts(text: str, hidden: str) -> None:
    """A traceback may quote the address, or a part of it."""
    assert network_address("rtsp://ada:s3cr3t@host:554/live/K3Y?t=1").hide_in(text) == hidden
    assert file_address(Path("/live/K3Y")).hide_in(text) == text


def test_only_what_opens_a_source_asks_for_the_whole_address() -> None:
    """`reveal` is called where FFmpeg opens a source, and by benchmarks, which open files of their own."""
    callers = {
        str(path.relative_to(ROOT))
        for package in ("streams", "runtime", "train", "export", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        if ".reveal()" in path.read_text(encoding="utf-8")
    }
    assert {caller for caller in callers if not caller.startswith("benchmarks/")} == {
        "streams/input/capture/ffmpeg.py",
        "streams/input/source.py",
    }


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://ada:s3cr3t/x@host/cam",
        "rtsp://ada:12/cr3t@host/cam",
        "rtsp://ada:12/cr3t@10.0.0.7:554/cam",
        "http://ada:80?cr3t@host/cam",
        "rtsp://ada:80#cr3t@host/cam",
        "rtsp://ada:/cr3t@host/cam",
        "rtsp://ada:s3@ss/cr3t@host/cam",
        "rtsp://ada:s3#cr3t@host/cam",
        "rtsp://user=ada&password=s3cr3t/",
        "rtsp://[ada:s3cr3t@host/K3Y",
        "rtsp:/ada:s3cr3t@host/cam",
        "rtsp//ada:s3cr3t@host/cam",
        "rtsp//host/K3Y",
        "ada:s3cr3t@host",
        "//host/K3Y",
        "10.0.0.7:7447/K3Y",
        "rtsp:K3Y",
        "gopher://ada:s3cr3t@host/K3Y",
        "rtsp://ada:s3cr3t@host:99999/K3Y",
        "rtsp:///K3Y",
        "rtsp://ada:s3cr3t@host/\x1b[31mK3Y",
        "user=ada&password=s3cr3t&channel=1",
        "live/user=ada&password=s3cr3t&channel=1",
        "K3Y?token=s3cr3t",
    ],
)
def test_a_mistyped_address_is_not_repeated_in_the_error(text: str) -> None:
    """The error of a mistyped address contains no part of it that can be a secret."""
    with pytest.raises(SourceError) as caught:
        parse_source(text)
    message = str(caught.value) + repr(caught.value)
    assert not any(secret in message for secret in ("s3cr3t", "cr3t", "ada", "K3Y"))
    assert message.isprintable()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
