"""List and files of the evidence over HTTP: rights, ranges, and paths that lead nowhere."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.outputs.evidence import routes
from runtime.outputs.evidence.manifest import Manifest
from runtime.outputs.evidence.routes import ByteRange, event_routes, parse_range
from runtime.outputs.evidence.store import EvidenceStore
from runtime.serving.access.tokens import TokenSet, parse_tokens
from runtime.serving.server import Security, Server
from tests.support.evidence import START, keep_event
from tests.support.wire import make_broadcaster

TIMEOUT_S = 30.0
ALL, DOOR, SENDER = "all-token-0123456789", "door-token-0123456789", "send-token-0123456789"
TOKENS = TokenSet(parse_tokens(f"{ALL} read\n{DOOR} read:door\n{SENDER} send", Path("tokens")))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EvidenceStore:
    """Three events: of the yard, then two of the door."""
    store = EvidenceStore(tmp_path_factory.mktemp("evidence"), wall=lambda: START)
    for number, stream in enumerate(("yard", "door", "door")):
        keep_event(store, time=START + number, stream=stream)
    return store


@pytest.fixture(scope="module")
def server(store: EvidenceStore) -> Iterator[Server]:
    """Server with the events, which requires a token."""
    security = Security(tokens=TOKENS)
    with serve_in_thread(
        make_broadcaster(), port=0, security=security, routes=event_routes(store)
    ) as running:
        yield running


def get(
    server: Server, path: str, token: str | None = ALL, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request and return status, headers and body of the response."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def listed(server: Server, query: str = "", token: str = ALL) -> dict[str, Any]:
    status, headers, body = get(server, f"/events{query}", token)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    page: dict[str, Any] = json.loads(body)
    return page


def test_the_list_is_newest_first_and_paged(server: Server, store: EvidenceStore) -> None:
    """`next` continues it; the filter is by stream."""
    newest, middle, oldest = store.events()
    assert [event["id"] for event in listed(server)["events"]] == [newest.id, middle.id, oldest.id]
    page = listed(server, "?limit=2")
    assert page["next"] == middle.id
    rest = listed(server, f"?limit=2&before={page['next']}")
    assert ([event["id"] for event in rest["events"]], rest["next"]) == ([oldest.id], None)
    assert [event["id"] for event in listed(server, "?stream=yard")["events"]] == [oldest.id]
    assert listed(server, "?before=gone")["events"] == []
    event = page["events"][0]
    assert (event["kind"], event["stream"], event["state"], event["face"]) == ("fake", "door", "fake", 1)
    assert event["clip"]["missing"]


@pytest.mark.parametrize(
    "limit", ["0", "-1", "x", "1001", "9999999999999999999999", f"000001{'0' * 5000}", "0000011001", "²", ""]
)
def test_a_wrong_limit_is_refused(server: Server, limit: str) -> None:
    """With the allowed range."""
    assert get(server, f"/events?limit={limit.encode().hex() if limit == '²' else limit}")[0] == 400


def test_files_are_served_with_their_types(server: Server, store: EvidenceStore) -> None:
    """Everything in the list can be fetched; HEAD has no body."""
    event = listed(server)["events"][0]
    folder = store.folder / event["id"]
    types = {"frame": "image/jpeg", "trail": "application/json", "manifest": "application/json"}
    for name, content_type in types.items():
        status, headers, body = get(server, f"/events/{event['id']}/{event[name]}")
        assert (status, headers["Content-Type"]) == (200, content_type)
        assert body == (folder / event[name]).read_bytes()
        assert "sandbox" in headers["Content-Security-Policy"]
    crop = f"/events/{event['id']}/{event['crops'][0]}"
    assert get(server, crop)[1]["Content-Type"] == "image/png"
    assert get(server, crop.replace("crops/", "crops%2F"))[0] == 200
    assert get(server, crop, method="HEAD")[2] == b""


def test_each_event_needs_the_right_to_its_stream(server: Server, store: EvidenceStore) -> None:
    """The list leaves out the others."""
    newest, _, of_yard = store.events()
    assert {event["stream"] for event in listed(server, token=DOOR)["events"]} == {"door"}
    assert get(server, f"/events/{newest.id}/frame.jpg", DOOR)[0] == 200
    assert get(server, f"/events/{of_yard.id}/frame.jpg", DOOR)[0] == 403
    for path in ("/events", f"/events/{newest.id}/frame.jpg"):
        assert get(server, path, SENDER)[0] == 403
        assert get(server, path, None)[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/..",
        "/../../etc/passwd",
        "/ID/",
        "/ID/../x",
        "/ID/%2e%2e%2fsecret",
        "/ID/secret",
        "/ID/crops",
        "/ID/frame.jpg/",
        "/ID/frame.jpg%00",
        "/%2e%2e/manifest.json",
        "/ID//frame.jpg",
    ],
)
def test_nothing_else_is_served(server: Server, store: EvidenceStore, path: str) -> None:
    """Only names in a manifest; there is no way out of the folder."""
    (store.folder / "secret").write_text("hidden")
    (store.folder / store.events()[0].id / "secret").write_text("hidden")
    status, _, body = get(server, f"/events/{path.lstrip('/')}".replace("ID", store.events()[0].id))
    assert (status, b"hidden" in body) == (404, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-30", (70, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=5-2", (5, 3)),
        ("bytes=100-", (100, 100)),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=1-2", None),
        ("bytes=a-b", None),
        (f"bytes={'9' * 30}-", None),
    ],
)
def test_ranges(text: str | None, expected: tuple[int, int] | None) -> None:
    """One range of bytes counts, anything else means the whole file."""
    parsed = parse_range(text)
    assert (None if parsed is None else parsed.within(100)) == expected


def test_a_long_range_is_answered_in_part(
    server: Server, store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Players then ask for the rest, and memory stays bounded."""
    monkeypatch.setattr(routes, "MAX_RANGE_BYTES", 10)
    event = store.events()[0]
    content = (store.folder / event.id / "trail.json").read_bytes()
    path = f"/events/{event.id}/trail.json"
    status, headers, body = get(server, path, Range="bytes=5-")
    assert (status, body) == (206, content[5:15])
    assert headers["Content-Range"] == f"bytes 5-14/{len(content)}"
    status, headers, _ = get(server, path, Range="bytes=1000000-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(content)}")
    assert ByteRange(0, None).within(4) == (0, 4)


def test_an_event_that_is_deleted_meanwhile(server: Server, store: EvidenceStore) -> None:
    """404, no traceback."""
    event: Manifest = store.events()[0]
    shutil.rmtree(store.folder / event.id)
    assert get(server, f"/events/{event.id}/frame.jpg")[0] == 404


def test_without_evidence_the_list_says_so() -> None:
    """The dashboard then shows no list, without an error in its console."""
    with serve_in_thread(make_broadcaster(), port=0, routes=event_routes(None)) as server:
        status, _, body = get(server, "/events", None)
        assert (status, json.loads(body)) == (200, {"enabled": False, "events": [], "next": None})
        assert get(server, "/events/x/frame.jpg", None)[0] == 404
