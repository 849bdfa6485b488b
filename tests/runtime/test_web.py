"""A real browser opens the real pages and sees verdicts, and never one that does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.messages import HeartbeatMessage, StreamHealth, StreamMessage
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.server import Server
from tests.support.browser import Browser, Page
from tests.support.wire import make_broadcaster, verdict

# What the overlay shows, as lines of text: the badges in its shadow tree.
BADGES = """[...document.querySelector('unmask-verdict').shadowRoot.querySelectorAll('li')].map(
    item => [item.dataset.state, ...['.label', '.detail', '.score'].map(
        part => item.querySelector(part).textContent)].join('|'))"""
STATES = "[...document.querySelectorAll('.face')].map(face => face.dataset.state)"


@pytest.fixture
def broadcaster() -> Broadcaster:
    """A hub with one live stream."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    return broadcaster


@pytest.fixture
def server(broadcaster: Broadcaster) -> Iterator[Server]:
    """A server for the hub."""
    with serve_in_thread(broadcaster, port=0) as running:
        yield running


@pytest.fixture
def pages() -> Iterator[ExitStack]:
    """Closes the pages that a test opened, and lets none pass that complained."""
    with ExitStack() as stack:
        yield stack


def show(
    pages: ExitStack, browser: Browser, url: str, *, complaints: bool = False, dark: bool = False
) -> Page:
    """Open a page that is closed, and asked for complaints, at the end of the test."""
    page = browser.open(url, dark=dark)

    def close() -> None:
        found = page.complaints
        page.close()
        assert complaints or found == []

    pages.callback(close)
    return page


def badges_become(page: Page, *badges: str) -> None:
    """Wait until the overlay shows exactly these badges."""
    page.wait_for(f"JSON.stringify({BADGES}) === JSON.stringify({list(badges)!r})")


def keep_saying(page: Page, broadcaster: Broadcaster, condition: str, *messages: object) -> None:
    """Publish the same over and over, as a live stream does, until the page shows it."""
    for _ in range(2000):
        for message in messages:
            broadcaster.publish(message)  # type: ignore[arg-type]
        if page.evaluate(f"Boolean({condition})"):
            return
    page.wait_for(condition, timeout_s=0)


@pytest.mark.parametrize("dark", [False, True])
def test_the_dashboard_shows_verdicts(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server, tmp_path: Path, dark: bool
) -> None:
    """A verdict appears with its state, score, window and latency; the counts come with the heartbeat."""
    page = show(pages, browser, server.urls.dashboard, dark=dark)
    page.wait_for("document.querySelector('#connection').textContent === 'Connected'")
    health = StreamHealth(stream="cam", state="live", analysed=48, dropped=2, reconnects=1)
    keep_saying(
        page,
        broadcaster,
        "document.querySelector('.counts')?.textContent",
        verdict(),
        verdict(face=2, state="warming", window_fill=0.25, box=(0.7, 0.1, 0.1, 0.2)),
        HeartbeatMessage(uptime_s=3723, streams=(health,)),
    )
    text = page.evaluate("document.body.innerText")
    for expected in (
        "cam",
        "Fake",
        "93 % fake",
        "Warming up",
        "latency 85 ms",
        "backbone 31.3",
        "01:02:03",
        "small",
    ):
        assert expected in text
    assert "frames analysed: 48 · dropped: 2 · reconnects: 1" in text
    assert page.evaluate("document.querySelector('#lost').textContent") == "0"
    assert page.evaluate("[...document.querySelectorAll('progress')].map(bar => bar.value)") == [1, 0.25]
    assert page.evaluate("document.querySelector('.history path').getAttribute('d')").startswith("M")
    assert page.evaluate("document.title") == "⚠ 1 fake · unmask"
    picture = cv2.imread(str(page.screenshot(tmp_path / "dashboard.png")))
    assert picture is not None
    assert picture.shape == (800, 1280, 3)
    assert (np.mean(picture) < 100) == dark


def test_the_dashboard_follows_the_verdict(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """State and score change with each message; a face that is stale goes, and its stream says so."""
    page = show(pages, browser, server.urls.dashboard)
    for state, p_fake in (("real", 0.04), ("uncertain", 0.5), ("fake", 0.97)):
        said = verdict(state=state, p_fake=p_fake)
        keep_saying(page, broadcaster, f"JSON.stringify({STATES}) === '[\"{state}\"]'", said)
        assert page.evaluate("document.querySelector('.score').textContent") == f"{p_fake:.0%} fake".replace(
            "%", " %"
        )
    broadcaster.publish(verdict(state="stale", latency_ms=None))
    page.wait_for("!document.querySelector('.idle').hidden")
    assert page.evaluate(STATES) == []
    assert "No verdict" in page.evaluate("document.querySelector('.idle').innerText")
    broadcaster.publish(StreamMessage(stream="cam", state="offline", reason="the camera hung up"))
    page.wait_for("document.querySelector('.stream').dataset.state === 'offline'")
    assert "the camera hung up" in page.evaluate("document.querySelector('.idle').innerText")
    assert "source offline" in page.evaluate("document.querySelector('#announcement').textContent")


def test_names_from_outside_are_text(
    pages: ExitStack, browser: Browser, server: Server, broadcaster: Broadcaster
) -> None:
    """A stream whose name is HTML changes no page and runs nothing."""
    name = "<img src=x onerror=\"document.title='broken into'\"><b>cam</b>"
    broadcaster.publish(StreamMessage(stream=name, state="offline", reason=name))
    for url, shown in (
        (server.urls.dashboard, "document.body.innerText"),
        (server.urls.overlay, f"{BADGES}.join()"),
    ):
        page = show(pages, browser, url)
        page.wait_for(f"{shown}.includes({name!r})")
        assert page.evaluate("document.querySelectorAll('b, img[src=x]').length") == 0
        assert "broken" not in page.evaluate("document.title")


def test_lost_messages_are_counted_on_the_dashboard(pages: ExitStack, browser: Browser) -> None:
    """A page that fell behind shows how much it missed."""
    broadcaster = make_broadcaster(capacity=2)
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0) as server:
        page = show(pages, browser, server.urls.dashboard, complaints=True)
        page.wait_for("document.querySelector('#connection').dataset.connection === 'open'")
        # More at once than the event loop can hand round one by one.
        while broadcaster.lost == 0:
            for _ in range(200):
                broadcaster.publish(verdict())
        page.wait_for("Number(document.querySelector('#lost').textContent) > 0")


def test_the_overlay_shows_badges(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server, tmp_path: Path
) -> None:
    """Every face has a badge; nothing but the badges is painted."""
    page = show(pages, browser, server.urls.overlay)
    badges_become(page, "none|No verdict|waiting for a face|")
    keep_saying(
        page,
        broadcaster,
        f"JSON.stringify({BADGES}) === JSON.stringify("
        "['fake|Fake|face 1|93 %fake', 'real|Real|face 2|8 %fake', 'warming|Warming up|face 3|50 %ready'])",
        verdict(),
        verdict(face=2, state="real", p_fake=0.08),
        verdict(face=3, state="warming", window_fill=0.5),
    )
    picture = cv2.imread(
        str(page.screenshot(tmp_path / "overlay.png", transparent=True)), cv2.IMREAD_UNCHANGED
    )
    assert picture is not None
    assert picture.shape == (800, 1280, 4)
    opacity = picture[..., 3]
    # By default the badges are at the lower right, and the upper left is left to the video.
    assert not opacity[:400].any()
    assert not opacity[:, :640].any()
    assert opacity[700:780, 1000:1250].max() > 200


def test_the_overlay_is_set_up_by_its_address(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """Stream, face, position and scale are chosen in the query."""
    broadcaster.publish(StreamMessage(stream="door", state="no_face"))
    everything = show(pages, browser, server.urls.overlay)
    badges_become(
        everything, "none|No verdict|cam · waiting for a face|", "none|No verdict|door · no face in view|"
    )
    door = show(pages, browser, f"{server.urls.overlay}?stream=door&position=top-left&scale=2")
    badges_become(door, "none|No verdict|no face in view|")
    place = door.evaluate(
        "(({x, y}) => [x, y])(document.querySelector('unmask-verdict').getBoundingClientRect())"
    )
    assert place == [24, 24]
    assert door.evaluate("getComputedStyle(document.querySelector('unmask-verdict')).fontSize") == "56px"
    unknown = show(pages, browser, f"{server.urls.overlay}?stream=nowhere")
    badges_become(unknown, "none|No verdict|no stream named nowhere|")
    face = show(pages, browser, f"{server.urls.overlay}?stream=cam&face=7")
    keep_saying(
        face,
        broadcaster,
        f"JSON.stringify({BADGES}) === JSON.stringify(['fake|Fake|face 7|93 %fake'])",
        verdict(face=6),
        verdict(face=7),
    )


def test_a_verdict_that_is_not_renewed_goes(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """When verdicts stop coming, the overlay does not go on showing the last one."""
    page = show(pages, browser, server.urls.overlay)
    keep_saying(page, broadcaster, f"{BADGES}.join().startsWith('fake')", verdict())
    page.wait_for(f"{BADGES}.join() === 'none|No verdict|waiting for a face|'")


def test_without_a_connection_there_is_no_verdict(pages: ExitStack, browser: Browser) -> None:
    """When the server goes, both pages say so at once, and come back by themselves when it returns."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0) as server:
        overlay = show(pages, browser, server.urls.overlay, complaints=True)
        dashboard = show(pages, browser, server.urls.dashboard, complaints=True)
        keep_saying(overlay, broadcaster, f"{BADGES}.join().startsWith('fake')", verdict())
        keep_saying(dashboard, broadcaster, f"{STATES}.length", verdict())
    badges_become(overlay, "none|No verdict|not connected to unmask|")
    dashboard.wait_for("document.querySelector('#connection').dataset.connection === 'closed'")
    assert dashboard.evaluate(STATES) == []
    assert "there is no valid verdict" in dashboard.evaluate("document.querySelector('#empty').innerText")
    with serve_in_thread(broadcaster, port=server.port):
        keep_saying(
            overlay, broadcaster, f"{BADGES}.join().startsWith('real')", verdict(state="real", p_fake=0.1)
        )
        keep_saying(dashboard, broadcaster, f"{STATES}.length", verdict())


def test_another_page_can_embed_the_component(pages: ExitStack, browser: Browser, tmp_path: Path) -> None:
    """A page opened from a file, let in with `null`, shows badges and hears every verdict as an event."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0, allow_origin=["null"]) as server:
        document = tmp_path / "page.html"
        document.write_text(f"""<!doctype html>
            <script type="module" src="http://127.0.0.1:{server.port}/overlay.js"></script>
            <script>
              const heard = [];
              addEventListener("verdict", (event) => heard.push(event.detail.stream));
            </script>
            <unmask-verdict src="{server.urls.websocket}" stream="cam"></unmask-verdict>""")
        page = show(pages, browser, document.as_uri())
        page.wait_for("customElements.get('unmask-verdict')")
        keep_saying(
            page, broadcaster, f"{BADGES}.join().startsWith('fake')", verdict(), verdict(stream="door")
        )
        assert set(page.evaluate("heard")) == {"cam"}
        # Without a `src` the component asks the server that its script came from.
        page.evaluate("document.querySelector('unmask-verdict').removeAttribute('src')")
        keep_saying(
            page, broadcaster, f"{BADGES}.join().startsWith('real')", verdict(state="real", p_fake=0.1)
        )


def test_a_foreign_page_sees_nothing(pages: ExitStack, browser: Browser, tmp_path: Path) -> None:
    """A page that was not let in stays without a verdict, and without the words of another."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0) as server:
        document = tmp_path / "page.html"
        document.write_text(f"""<!doctype html>
            <script type="module" src="http://127.0.0.1:{server.port}/overlay.js"></script>
            <unmask-verdict src="{server.urls.websocket}"></unmask-verdict>""")
        page = show(pages, browser, document.as_uri(), complaints=True)
        page.wait_for("customElements.get('unmask-verdict')")
        broadcaster.publish(verdict())
        badges_become(page, "none|No verdict|not connected to unmask|")
        page.wait_for("performance.now() > 1000")
        badges_become(page, "none|No verdict|not connected to unmask|")
        assert any("403" in complaint for complaint in page.complaints)
        assert broadcaster.clients == 0
