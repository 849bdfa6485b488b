"""Dashboard in a real browser: frames with boxes, the wall of streams, events, alerts, accessibility."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from http import HTTPStatus
from typing import Any, get_args

import av
import numpy as np
import pytest

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.messages import (
    BroadcastMessage,
    DroppedBy,
    HeartbeatMessage,
    StreamHealth,
    StreamMessage,
    UncertainReason,
)
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.http.exchange import HttpRequest, HttpResponse, Route
from runtime.serving.previews.jpeg import JpegEncoder
from runtime.serving.previews.publisher import PreviewPublisher
from runtime.serving.server import Server
from runtime.serving.whip.endpoint import WhipEndpoint
from streams.input.frame import Frame
from streams.input.source import Source, parse_source
from tests.support.axe import serious_faults
from tests.support.browser import TIMEOUT_S, Browser, Page
from tests.support.videos import write_video
from tests.support.wire import make_broadcaster, verdict

NAMES = "[...document.querySelectorAll('.stream')].filter(card => !card.hidden).map(card => card.ariaLabel)"
EVENTS = "[...document.querySelectorAll('#event-list li')].map(item => item.innerText).join('\\n')"


class Wall:
    """Server of several streams, and what they send."""

    def __init__(self, server: Server, broadcaster: Broadcaster, previews: PreviewPublisher) -> None:
        self.server = server
        self.broadcaster = broadcaster
        self.previews = previews
        self.pts_s = 0.0

    def send(self, *messages: BroadcastMessage) -> None:
        """Publish messages."""
        for message in messages:
            self.broadcaster.publish(message)

    def send_frame(self, stream: str, *, red: bool = False, **changes: Any) -> None:
        """Publish a verdict and the frame that it is about: blue, or red."""
        self.pts_s += 0.25
        pixels = np.full((180, 320, 3), (220, 10, 10) if red else (10, 10, 220), np.uint8)
        image = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        self.send(verdict(stream=stream, pts_s=self.pts_s, **changes))
        self.previews.offer(
            stream,
            Frame(
                image=image,
                pts=round(1000 * self.pts_s),
                time_base=Fraction(1, 1000),
                captured=None,
                decode_ms=1.0,
                connection=1,
                segment=1,
            ),
        )

    def send_until(self, page: Page, condition: str, *messages: BroadcastMessage, frames: Any = None) -> None:
        """Send repeatedly, as live streams do, until a condition holds in the page."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            self.send(*messages, HeartbeatMessage(uptime_s=1))
            if frames is not None:
                frames()
            if page.evaluate(f"Boolean({condition})"):
                return
            time.sleep(0.01)
        page.wait_for(condition, timeout_s=0)


@pytest.fixture
def wall() -> Iterator[Wall]:
    """Server without a stream."""
    broadcaster = make_broadcaster()
    with PreviewPublisher() as previews, serve_in_thread(broadcaster, port=0, previews=previews) as server:
        yield Wall(server, broadcaster, previews)


@pytest.fixture
def pages() -> Iterator[ExitStack]:
    """Close the pages of a test, and fail if their consoles have errors."""
    with ExitStack() as stack:
        yield stack


def show(pages: ExitStack, browser: Browser, wall: Wall, **options: Any) -> Page:
    """Open the dashboard, and wait until it is connected."""
    page = browser.open(wall.server.urls.dashboard, **options)

    def close() -> None:
        found = page.console_errors
        page.close()
        assert found == []

    pages.callback(close)
    page.wait_for("document.querySelector('#connection').textContent === 'Connected'")
    return page


def press(page: Page, key: str) -> None:
    """Press a key in the page."""
    # Without the code, the browser's own actions, such as closing a dialog, do not happen.
    code = {"Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}.get(key, ord(key[0]))
    text = {"text": key} if len(key) == 1 else {}
    for kind in ("keyDown", "keyUp"):
        page.command("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)
        text = {}


def colour(page: Page, x: float, y: float) -> list[int]:
    """Return the RGB of the live frame at a place in shares of the frame."""
    pixel: list[int] = page.evaluate(f"""(() => {{
        const canvas = document.querySelector('canvas');
        const at = [Math.round({x} * canvas.width), Math.round({y} * canvas.height)];
        return [...canvas.getContext('2d').getImageData(...at, 1, 1).data].slice(0, 3);
    }})()""")
    return pixel


def test_boxes_are_drawn_on_the_frame_that_they_are_about(
    pages: ExitStack, browser: Browser, wall: Wall
) -> None:
    """A verdict without its frame changes nothing on the shown frame; the box of the shown frame stays."""
    wall.send(StreamMessage(stream="cam", state="live"))
    page = show(pages, browser, wall)
    shown = "document.querySelector('canvas')?.dataset"
    # No frame was requested before there was a stream; now it is.
    wall.send_until(
        page, f"{shown}?.boxes === '1'", frames=lambda: wall.send_frame("cam", box=(0.4, 0.4, 0.2, 0.3))
    )
    last = wall.pts_s
    page.wait_for(f"Number({shown}.ptsS) === {last} || Number({shown}.ptsS) > {last} - 1")
    red, _, blue = colour(page, 0.1, 0.9)
    assert blue > 180
    assert red < 60
    # A line of the box, and not the frame, is at the edge of the face.
    edge = [sum(colour(page, x / 200, 0.55)[:2]) for x in range(76, 85)]
    assert max(edge) > 200
    assert sum(colour(page, 0.5, 0.55)[:2]) < 80
    # A verdict whose frame does not come is shown in the list, but on no other frame.
    wall.send_until(
        page,
        "document.querySelectorAll('.face').length === 2",
        verdict(face=2, state="real", p_fake=0.1, pts_s=99.0, box=(0.0, 0.0, 0.2, 0.2)),
        frames=lambda: wall.send_frame("cam", box=(0.4, 0.4, 0.2, 0.3)),
    )
    wall.send_until(
        page,
        f"Number({shown}.ptsS) > {wall.pts_s}",
        frames=lambda: wall.send_frame("cam", box=(0.4, 0.4, 0.2, 0.3)),
    )
    assert page.evaluate(f"{shown}.boxes") == "1"
    assert max(sum(colour(page, x / 200, 0.55)[:2]) for x in range(76, 85)) > 200
    assert sum(colour(page, 0.2, 0.1)[:2]) < 80


def test_a_stream_that_is_not_live_shows_no_frame(pages: ExitStack, browser: Browser, wall: Wall) -> None:
    """The frame disappears with the verdicts, and the reason is shown instead."""
    wall.send(StreamMessage(stream="cam", state="live"))
    page = show(pages, browser, wall)
    wall.send_until(
        page, "document.querySelector('canvas')?.dataset.ptsS", frames=lambda: wall.send_frame("cam")
    )
    wall.send(StreamMessage(stream="cam", state="offline", reason="the camera hung up"))
    page.wait_for("!document.querySelector('canvas').dataset.ptsS")
    assert "the camera hung up" in page.evaluate("document.querySelector('.idle').innerText")
    page.wait_for(f"{EVENTS}.includes('source offline')")
    assert "the camera hung up" in page.evaluate(EVENTS)


def test_frames_are_requested_as_they_are_shown(pages: ExitStack, browser: Browser, wall: Wall) -> None:
    """Smaller and fewer for many streams and on a slow connection, none for a hidden page."""
    page = show(pages, browser, wall)

    def decide(**options: Any) -> list[list[int]]:
        given = {"count": 1, "large": None, "pixels": 1280, "hidden": False, "delay": 0, "now": 0, **options}
        decided: list[list[int]] = page.evaluate(f"""import('/dashboard/frame-requests.js').then(module => {{
            globalThis.requests ??= new module.FrameRequests(null);
            const {{ all, large }} = requests.decide({json.dumps(given)});
            return [[all.width, all.rate], [large.width, large.rate]];
        }})""")
        return decided

    nothing = [0, 0]
    assert decide() == [[960, 8], nothing]
    assert decide(pixels=390) == [[640, 8], nothing]
    assert decide(count=4) == [[640, 6], nothing]
    assert decide(count=30) == [[320, 2], nothing]
    assert decide(count=30, large="cam") == [nothing, [960, 8]]
    assert decide(hidden=True) == [nothing, nothing]
    assert decide(count=30, delay=0.8) == [[160, 1], nothing]
    assert decide(now=14000) == [[320, 2], nothing]
    assert decide(now=16000) == [[960, 8], nothing]


def test_frames_follow_the_enlarged_stream(pages: ExitStack, browser: Browser, wall: Wall) -> None:
    """Only the large stream has frames; back on the wall, each has them again."""
    names = ("cam", "door")
    wall.send(*(StreamMessage(stream=name, state="live") for name in names))
    page = show(pages, browser, wall)
    canvases = "[...document.querySelectorAll('canvas')]"

    def send() -> None:
        for name in names:
            wall.send_frame(name)

    def fresh(*indices: int) -> str:
        return " && ".join(f"Number({canvases}[{index}].dataset.ptsS) > {wall.pts_s}" for index in indices)

    wall.send_until(page, f"{canvases}.length === 2 && {fresh(0, 1)}", frames=send)
    press(page, "2")
    wall.send_until(page, f"{canvases}[0].parentNode.clientWidth === 0 && {fresh(1)}", frames=send)
    press(page, "Escape")
    wall.send_until(page, fresh(0, 1), frames=send)


def test_a_stream_that_loses_samples_is_marked(pages: ExitStack, browser: Browser, wall: Wall) -> None:
    """Samples dropped in the last minute are shown beside the name, earlier ones are not."""
    wall.send(StreamMessage(stream="cam", state="live"))
    page = show(pages, browser, wall)
    state = "document.querySelector('.state').textContent"

    def health(analysed: int, dropped: int) -> HeartbeatMessage:
        counted = StreamHealth(
            stream="cam",
            state="live",
            analysed=analysed,
            dropped=dropped,
            dropped_by=DroppedBy(queue=dropped),
        )
        return HeartbeatMessage(uptime_s=1, streams=(counted,))

    wall.send(health(100, 900))
    wall.send_until(page, f"{state} === 'live'", verdict())
    wall.send(health(170, 930))
    wall.send_until(page, f"{state} === '⚠ 30 % dropped'", verdict())


def test_a_hidden_page_requests_no_frames(pages: ExitStack, browser: Browser, wall: Wall) -> None:
    """A dashboard in a tab behind another one costs no encoding."""
    wall.send(StreamMessage(stream="cam", state="live"))
    page = show(pages, browser, wall)
    wall.send_until(
        page, "document.querySelector('canvas')?.dataset.ptsS", frames=lambda: wall.send_frame("cam")
    )
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    encoded = -1
    for _ in range(500):
        if encoded == wall.previews.encoded:
            break
        encoded = wall.previews.encoded
        for _ in range(10):
            wall.send_frame("cam")
        # A round trip through the page, which the server handles after the end of the request.
        page.evaluate("new Promise(resolve => setTimeout(resolve, 20))")
    assert encoded == wall.previews.encoded


def test_thirty_streams_are_filtered_sorted_and_enlarged(
    pages: ExitStack, browser: Browser, wall: Wall
) -> None:
    """By name, by state and by severity; one stream becomes large by click and by key."""
    names = [f"cam {number}" for number in range(1, 31)]
    wall.send(*(StreamMessage(stream=name, state="live") for name in names))
    messages = [verdict(stream=name, state="real", p_fake=0.1) for name in names]
    messages[16] = verdict(stream="cam 17")
    messages[3] = StreamMessage(stream="cam 4", state="offline", reason="unplugged")  # type: ignore[call-overload]
    page = show(pages, browser, wall)
    wall.send_until(page, "document.querySelectorAll('.face').length >= 29", *messages)
    assert page.evaluate(NAMES) == names
    assert "1 fake" in page.evaluate("document.querySelector('#totals').innerText").replace("\n", " ")

    def choose(control: str, value: str) -> None:
        page.evaluate(f"""(() => {{
            const control = document.querySelector('#{control}');
            control.value = {json.dumps(value)};
            control.dispatchEvent(new Event(control.tagName === 'INPUT' ? 'input' : 'change'));
        }})()""")

    choose("show", "fake")
    wall.send_until(page, f"JSON.stringify({NAMES}) === '[\"cam 17\"]'", *messages)
    assert page.evaluate("document.querySelector('#shown').textContent") == "1 of 30 streams"
    choose("show", "attention")
    wall.send_until(page, f'JSON.stringify({NAMES}) === \'["cam 4","cam 17"]\'', *messages)
    choose("show", "all")
    choose("sort", "severity")
    wall.send_until(page, f"{NAMES}[0] === 'cam 17'", *messages)
    choose("find", "CAM 2")
    wall.send_until(page, f"{NAMES}.length === 11", *messages)
    choose("find", "nothing")
    page.wait_for("document.querySelector('#empty').innerText === 'No stream passes the filter.'")
    choose("find", "")
    page.evaluate(
        "[...document.querySelectorAll('.open')].find(button => button.innerText === 'cam 9').click()"
    )
    wall.send_until(page, f"JSON.stringify({NAMES}) === '[\"cam 9\"]'", *messages)
    assert page.evaluate("document.activeElement.innerText") == "cam 9"
    assert page.evaluate("document.activeElement.ariaExpanded") == "true"
    press(page, "Escape")
    wall.send_until(page, f"{NAMES}.length === 30", *messages)
    press(page, "1")
    wall.send_until(page, f"JSON.stringify({NAMES}) === '[\"cam 17\"]'", *messages)
    press(page, "ArrowRight")
    wall.send_until(page, f"{NAMES}.length === 1 && {NAMES}[0] !== 'cam 17'", *messages)
    press(page, "ArrowLeft")
    wall.send_until(page, f"JSON.stringify({NAMES}) === '[\"cam 17\"]'", *messages)


def test_a_fake_is_an_event_and_an_alert_if_wanted(pages: ExitStack, browser: Browser, wall: Wall) -> None:
    """Sound and notifications are off until the user turns them on; each fake raises one alert."""
    wall.send(*(StreamMessage(stream=name, state="live") for name in ("cam", "door")))
    page = show(pages, browser, wall)
    page.evaluate("""
        globalThis.played = 0; globalThis.notified = [];
        const start = OscillatorNode.prototype.start;
        OscillatorNode.prototype.start = function (at) { played += 1; return start.call(this, at); };
        globalThis.Notification = class {
            static permission = 'granted';
            static requestPermission() { return Promise.resolve('granted'); }
            constructor(title, { body }) { notified.push(`${title}. ${body}`); }
        };
        0
    """)
    real = verdict(state="real", p_fake=0.1)
    wall.send_until(page, f"{EVENTS}.includes('cam: face 1')", verdict(p_fake=0.95))
    assert "Fake, up to 95 %" in page.evaluate(EVENTS)
    wall.send_until(page, "document.querySelector('.face')?.dataset.state === 'real'", real)
    assert page.evaluate("[played, notified.length]") == [0, 0]
    page.evaluate("document.querySelector('#sound').click(); document.querySelector('#notify').click()")
    page.wait_for("document.querySelector('#notify').ariaPressed === 'true'")
    before = page.evaluate("played")
    assert before == 2, "turning the sound on plays it once"
    fake = verdict(stream="door", p_fake=0.91)
    wall.send_until(page, f"{EVENTS}.includes('door: face 1')", fake, fake, fake)
    assert page.evaluate("notified") == ["Fake: door. Face 1, 91 %"]
    assert page.evaluate("played") == 4
    # The choice is kept, and the event leads to its stream.
    page.evaluate("document.querySelector('#event-list button').click()")
    wall.send_until(page, f"JSON.stringify({NAMES}) === '[\"door\"]'", fake)
    assert page.evaluate("localStorage.getItem('unmask-sound')") == "on"
    page.evaluate("localStorage.clear()")


@pytest.mark.parametrize(
    ("streams", "width", "dark"),
    [
        (1, 1280, False),
        (1, 390, True),
        (3, 1280, True),
        (16, 1280, False),
        (16, 1280, True),
        (16, 390, False),
    ],
)
def test_the_dashboard_is_accessible_and_fits_the_page(
    pages: ExitStack, browser: Browser, wall: Wall, streams: int, width: int, dark: bool
) -> None:
    """axe-core finds no serious fault, and nothing is wider than the page, with faces in every state."""
    names = [f"cam {number}" for number in range(1, streams + 1)]
    faces = [
        verdict(face=1),
        verdict(face=2, state="real", p_fake=0.1),
        verdict(face=3, state="uncertain", p_fake=0.5, reason="no_motion"),
        verdict(face=4, state="warming", window_fill=0.5),
    ]
    wall.send(*(StreamMessage(stream=name, state="live") for name in names))
    messages: list[BroadcastMessage] = []
    for index, name in enumerate(names):
        messages += [verdict(stream=name, **_changes(face)) for face in faces[index % 4 :]]
    if streams > 1:
        messages.append(StreamMessage(stream=names[-1], state="offline", reason="a rather long reason " * 3))
    page = show(pages, browser, wall, width=width, height=800, dark=dark)
    wall.send_until(page, f"document.querySelectorAll('.face').length >= {streams}", *messages)
    assert serious_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_why_a_face_has_no_decision(pages: ExitStack, browser: Browser, wall: Wall) -> None:
    """Every reason is shown in words, not by its name in the messages."""
    page = show(pages, browser, wall)
    reasons = get_args(UncertainReason)
    messages = [
        verdict(face=number, state="uncertain", p_fake=0.5, reason=reason)
        for number, reason in enumerate(reasons)
    ]
    wall.send(StreamMessage(stream="cam", state="live"))
    rows = "[...document.querySelectorAll('.face .reason')].map(row => row.textContent)"
    wall.send_until(page, f"{rows}.length === {len(reasons)}", *messages)
    shown = page.evaluate(rows)
    assert len(set(shown)) == len(reasons)
    assert all(text.startswith(("face ", "no motion")) for text in shown)


def _changes(face: Any) -> dict[str, Any]:
    names = ("face", "state", "p_fake", "reason", "window_fill")
    return {name: getattr(face, name) for name in names}


@pytest.fixture(scope="module")
def event(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
    """Event as `/events` lists it, and its files."""
    clip = write_video(tmp_path_factory.mktemp("event") / "clip.mp4", frames=25)
    jpeg, _, _ = JpegEncoder().encode(
        av.VideoFrame.from_ndarray(np.full((90, 160, 3), 200, np.uint8), format="rgb24"), 160
    )
    listed = {
        "id": "20261125T221110Z-cam-1-8d8d",
        "kind": "fake",
        "stream": "cam",
        "face": 1,
        "time": 0.0,
        "state": "fake",
        "p_fake": 0.81,
        "pts_s": 12.36,
        "bytes": 812345,
        "frame": "frame.jpg",
        "crops": ["crops/00.jpg", "crops/01.jpg"],
        "clip": {"file": "clip.mp4", "codec": "h264", "seconds": 1.0, "event_s": 0.5, "missing": None},
        "trail": "trail.json",
        "manifest": "manifest.json",
    }
    files = {
        "clip.mp4": ("video/mp4", clip.read_bytes()),
        "frame.jpg": ("image/jpeg", jpeg),
        "crops/00.jpg": ("image/jpeg", jpeg),
        "crops/01.jpg": ("image/jpeg", jpeg),
    }
    return listed, files


def test_the_dashboard_links_to_what_the_server_offers(pages: ExitStack, browser: Browser) -> None:
    """The page for cameras is linked only if a source accepts them."""
    source = parse_source("browser")
    sources: list[Source] = []
    routes = WhipEndpoint(lambda: sources).routes
    links = "[...document.querySelectorAll('nav a')].filter(link => !link.hidden).map(link => link.innerText)"
    with serve_in_thread(make_broadcaster(), port=0, routes=routes) as server:
        shown = []
        for accepted in ([], [source]):
            sources[:] = accepted
            page = browser.open(server.urls.dashboard)
            page.wait_for("document.querySelector('#connection').textContent === 'Connected'")
            # The health report comes after the connection.
            page.wait_for(
                "performance.getEntriesByType('resource').some(entry => entry.name.endsWith('healthz'))"
            )
            page.wait_for(f"{links}.length === {4 + len(accepted)}")
            shown.append(page.evaluate(links))
            page.close()
    assert shown[1][0] == "Send a camera or a screen"
    assert shown[0] == shown[1][1:]


def test_events_show_their_evidence(
    pages: ExitStack,
    browser: Browser,
    event: tuple[dict[str, Any], dict[str, tuple[str, bytes]]],
) -> None:
    """A fake seen on the page gets its evidence; older events are listed; a dialog shows frame and crops."""
    listed, files = event
    broadcaster = make_broadcaster()
    events: list[dict[str, Any]] = [{**listed, "id": "old", "time": 1e9, "stream": "door"}]

    async def handle(request: HttpRequest) -> HttpResponse:
        if request.path == "/events":
            body = json.dumps({"enabled": True, "events": events, "next": None}).encode()
            return HttpResponse(HTTPStatus.OK, "application/json", body)
        content_type, data = files[request.path.split("/", 3)[3]]
        return HttpResponse(HTTPStatus.OK, content_type, data)

    routes = [Route(path="/events", handle=handle), Route(path="/events/", handle=handle)]
    with serve_in_thread(broadcaster, port=0, routes=routes) as server, PreviewPublisher() as previews:
        wall = Wall(server, broadcaster, previews)
        wall.send(StreamMessage(stream="cam", state="live"))
        page = show(pages, browser, wall)
        assert page.evaluate("document.querySelector('[href=scan]').hidden")
        wall.send_until(page, f"{EVENTS}.includes('door: face 1')")
        wall.send_until(page, f"{EVENTS}.includes('cam: face 1')", verdict())
        item = "document.querySelector('#event-list li')"
        assert page.evaluate(f"{item}.querySelector('.show')") is None
        wall.send_until(page, f"{EVENTS}.includes('cam: face 1')", verdict(state="real", p_fake=0.1))
        # The time of the first fake, as the server has it.
        events.insert(0, {**listed, "time": page.evaluate(f"Number({item}.dataset.at)") / 1000})
        wall.send_until(page, f"{item}.querySelector('.show')")
        assert page.evaluate("document.querySelectorAll('#event-list li').length") == 2
        page.evaluate(f"{item}.querySelector('.show').click()")
        images = "[...document.querySelectorAll('#evidence img')]"
        wall.send_until(page, f"{images}.length === 3 && {images}.every(image => image.naturalWidth === 160)")
        assert "81 % fake" in page.evaluate("document.querySelector('#evidence').innerText")
        wall.send_until(
            page,
            "document.querySelector('#evidence video').readyState >= 1"
            " || document.querySelector('#evidence .no-clip').textContent",
        )
        assert serious_faults(page) == []
        press(page, "Escape")
        page.wait_for("!document.querySelector('#evidence').open")
