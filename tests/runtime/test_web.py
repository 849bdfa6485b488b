"""Dashboard and overlay in a real browser: verdicts appear, and disappear when they are no longer valid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.message_delay import MessageDelay
from runtime.messages import DroppedBy, HeartbeatMessage, StreamHealth, StreamMessage
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.server import Server
from tests.support.browser import Browser, Page
from tests.support.delays import SCENARIOS, Scenario
from tests.support.wire import make_broadcaster, verdict

# Badges in the shadow tree of the overlay, as lines of text.
BADGES = """[...document.querySelector('unmask-verdict').shadowRoot.querySelectorAll('li')].map(
    item => [item.dataset.state, ...['.label', '.detail', '.score'].map(
        part => item.querySelector(part).textContent)].join('|'))"""
STATES = "[...document.querySelectorAll('.face')].map(face => face.dataset.state)"


@pytest.fixture
def broadcaster() -> Broadcaster:
    """Broadcaster with one live stream."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    return broadcaster


@pytest.fixture
def server(broadcaster: Broadcaster) -> Iterator[Server]:
    """Server of the broadcaster."""
    with serve_in_thread(broadcaster, port=0) as running:
        yield running


@pytest.fixture
def pages() -> Iterator[ExitStack]:
    """Close the pages of a test, and fail if their consoles have errors."""
    with ExitStack() as stack:
        yield stack


def show(
    pages: ExitStack, browser: Browser, url: str, *, allow_errors: bool = False, dark: bool = False
) -> Page:
    """Open a page; at the end of the test it is closed, and console errors fail the test."""
    page = browser.open(url, dark=dark)

    def close() -> None:
        found = page.console_errors
        page.close()
        assert allow_errors or found == []

    pages.callback(close)
    return page


def badges_become(page: Page, *badges: str) -> None:
    """Wait until the overlay shows exactly these badges."""
    page.wait_for(f"JSON.stringify({BADGES}) === JSON.stringify({list(badges)!r})")


def publish_until(page: Page, broadcaster: Broadcaster, condition: str, *messages: object) -> None:
    """Publish messages repeatedly, as a live stream does, until a condition holds in the page."""
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
    """State, score, window and latency appear with a verdict, the counters with the heartbeat."""
    page = show(pages, browser, server.urls.dashboard, dark=dark)
    page.wait_for("document.querySelector('#connection').textContent === 'Connected'")
    causes = DroppedBy(queue=2)
    health = StreamHealth(stream="cam", state="live", analysed=48, dropped=2, dropped_by=causes, reconnects=1)
    publish_until(
        page,
        broadcaster,
        "document.querySelector('.reconnects')",
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
        "85 ms, p99 85 ms",
        "backbone 31.3",
        "fake from 60 %",
        "real up to 40 %",
        "01:02:03",
        "small",
    ):
        assert expected in text
    figures = page.evaluate("[...document.querySelectorAll('.health div')].map(row => row.innerText)")
    figures = [" ".join(figure.split()) for figure in figures]
    assert figures[1:] == [
        "Analysed 48 frames",
        "Dropped 2 (4.0 %)",
        "replaced while the analysis was busy 2",
        "Reconnects 1",
    ]
    assert page.evaluate("document.querySelector('#lost').textContent") == "0"
    assert page.evaluate("[...document.querySelectorAll('progress')].map(bar => bar.value)") == [1, 0.25]
    assert page.evaluate("document.querySelector('.curve').getAttribute('d')").startswith("M")
    assert page.evaluate("document.title") == "⚠ 1 fake · unmask"
    image = cv2.imread(str(page.screenshot(tmp_path / "dashboard.png")))
    assert image is not None
    assert image.shape == (800, 1280, 3)
    assert (np.mean(image) < 100) == dark


def test_the_dashboard_follows_the_verdicts(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """State and score change with each message; a stale face disappears and the card shows the reason."""
    page = show(pages, browser, server.urls.dashboard)
    for state, p_fake in (("real", 0.04), ("uncertain", 0.5), ("fake", 0.97)):
        message = verdict(state=state, p_fake=p_fake)
        publish_until(page, broadcaster, f"JSON.stringify({STATES}) === '[\"{state}\"]'", message)
        assert page.evaluate("document.querySelector('.score').textContent") == f"{p_fake:.0%} fake".replace(
            "%", " %"
        )
    broadcaster.publish(verdict(state="stale", latency_ms=None))
    page.wait_for("!document.querySelector('.idle').hidden")
    assert page.evaluate(STATES) == []
    assert "No verdict" in page.evaluate("document.querySelector('.idle').innerText")
    broadcaster.publish(StreamMessage(stream="cam", state="offline", reason="the camera hung up"))
    page.wait_for("document.querySelector('.stream').dataset.stream === 'offline'")
    assert "the camera hung up" in page.evaluate("document.querySelector('.idle').innerText")
    assert "source offline" in page.evaluate("document.querySelector('#announcement').textContent")


def test_stream_names_are_shown_as_text(
    pages: ExitStack, browser: Browser, server: Server, broadcaster: Broadcaster
) -> None:
    """A stream name that is HTML changes no page and runs no script."""
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
    """A page that was too slow shows how many messages it missed."""
    broadcaster = make_broadcaster(capacity=2)
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0) as server:
        page = show(pages, browser, server.urls.dashboard, allow_errors=True)
        page.wait_for("document.querySelector('#connection').dataset.connection === 'open'")
        # More messages than the event loop distributes one by one.
        while broadcaster.lost == 0:
            for _ in range(200):
                broadcaster.publish(verdict())
        page.wait_for("Number(document.querySelector('#lost').textContent) > 0")


def test_the_overlay_shows_badges(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server, tmp_path: Path
) -> None:
    """Every face has a badge; the rest of the page is transparent."""
    page = show(pages, browser, server.urls.overlay)
    badges_become(page, "none|No verdict|waiting for a face|")
    publish_until(
        page,
        broadcaster,
        f"JSON.stringify({BADGES}) === JSON.stringify("
        "['fake|Fake|face 1|93 %fake', 'real|Real|face 2|8 %fake', 'warming|Warming up|face 3|50 %ready'])",
        verdict(),
        verdict(face=2, state="real", p_fake=0.08),
        verdict(face=3, state="warming", window_fill=0.5),
    )
    image = cv2.imread(str(page.screenshot(tmp_path / "overlay.png", transparent=True)), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.shape == (800, 1280, 4)
    opacity = image[..., 3]
    # By default the badges are at the lower right.
    assert not opacity[:400].any()
    assert not opacity[:, :640].any()
    assert opacity[700:780, 1000:1250].max() > 200


def test_the_query_configures_the_overlay(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """Stream, face, position and scale are query parameters."""
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
    publish_until(
        face,
        broadcaster,
        f"JSON.stringify({BADGES}) === JSON.stringify(['fake|Fake|face 7|93 %fake'])",
        verdict(face=6),
        verdict(face=7),
    )


def test_a_verdict_without_a_newer_one_disappears(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """The overlay does not keep showing the last verdict."""
    page = show(pages, browser, server.urls.overlay)
    publish_until(page, broadcaster, f"{BADGES}.join().startsWith('fake')", verdict())
    page.wait_for(f"{BADGES}.join() === 'none|No verdict|waiting for a face|'")


def test_without_a_connection_there_is_no_verdict(pages: ExitStack, browser: Browser) -> None:
    """Both pages show a lost connection at once and reconnect by themselves."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0) as server:
        overlay = show(pages, browser, server.urls.overlay, allow_errors=True)
        dashboard = show(pages, browser, server.urls.dashboard, allow_errors=True)
        publish_until(overlay, broadcaster, f"{BADGES}.join().startsWith('fake')", verdict())
        publish_until(dashboard, broadcaster, f"{STATES}.length", verdict())
    badges_become(overlay, "none|No verdict|not connected to unmask|")
    dashboard.wait_for("document.querySelector('#connection').dataset.connection === 'closed'")
    assert dashboard.evaluate(STATES) == []
    assert "there is no valid verdict" in dashboard.evaluate("document.querySelector('#empty').innerText")
    with serve_in_thread(broadcaster, port=server.port):
        publish_until(
            overlay, broadcaster, f"{BADGES}.join().startsWith('real')", verdict(state="real", p_fake=0.1)
        )
        publish_until(dashboard, broadcaster, f"{STATES}.length", verdict())


def test_another_page_can_embed_the_element(pages: ExitStack, browser: Browser, tmp_path: Path) -> None:
    """A page opened from a file, allowed with `null`, shows badges and receives verdict events."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0, allow_origin=["null"]) as server:
        document = tmp_path / "page.html"
        document.write_text(f"""<!doctype html>
            <script type="module" src="http://127.0.0.1:{server.port}/overlay.js"></script>
            <script>
              const streams = [];
              addEventListener("verdict", (event) => streams.push(event.detail.stream));
            </script>
            <unmask-verdict src="{server.urls.websocket}" stream="cam"></unmask-verdict>""")
        page = show(pages, browser, document.as_uri())
        page.wait_for("customElements.get('unmask-verdict')")
        publish_until(
            page, broadcaster, f"{BADGES}.join().startsWith('fake')", verdict(), verdict(stream="door")
        )
        assert set(page.evaluate("streams")) == {"cam"}
        # Without `src` the element connects to the server of its script.
        page.evaluate("document.querySelector('unmask-verdict').removeAttribute('src')")
        publish_until(
            page, broadcaster, f"{BADGES}.join().startsWith('real')", verdict(state="real", p_fake=0.1)
        )


def test_a_page_that_is_not_allowed_gets_no_verdict(
    pages: ExitStack, browser: Browser, tmp_path: Path
) -> None:
    """The browser reports HTTP 403 and the element shows why it is not connected."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0) as server:
        document = tmp_path / "page.html"
        document.write_text(f"""<!doctype html>
            <script type="module" src="http://127.0.0.1:{server.port}/overlay.js"></script>
            <unmask-verdict src="{server.urls.websocket}"></unmask-verdict>""")
        page = show(pages, browser, document.as_uri(), allow_errors=True)
        page.wait_for("customElements.get('unmask-verdict')")
        broadcaster.publish(verdict())
        reason = (
            f"Pages of origin 'null' may not connect to '127.0.0.1:{server.port}'; start unmask with "
            "--allow-origin null, or configure the proxy in between to forward the Host header."
        )
        badge = json.dumps([f"none|No verdict|{reason}|"])
        page.wait_for(f"JSON.stringify({BADGES}) === JSON.stringify({badge})")
        page.wait_for("performance.now() > 1000")
        page.wait_for(f"JSON.stringify({BADGES}) === JSON.stringify({badge})")
        assert any("403" in error for error in page.console_errors)
        assert broadcaster.clients == 0


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_pages_measure_delays_as_the_client_does(script: Page, scenario: Scenario) -> None:
    """`MessageDelay` in message-delay.js returns the same delays as that in `runtime.message_delay`."""
    delay, messages = MessageDelay(), list(scenario.messages())
    expected = [delay.measure(*message) for message in messages]
    measured = script.evaluate(f"""import("/shared/message-delay.js").then(({{ MessageDelay }}) => {{
        const delay = new MessageDelay();
        return {json.dumps(messages)}.map(([sent, received]) => delay.measure(sent, received));
    }})""")
    assert measured == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def script(browser: Browser) -> Iterator[Page]:
    """Page from which message-delay.js can be imported."""
    with serve_in_thread(make_broadcaster(), port=0) as running:
        page = browser.open(running.urls.dashboard)
        yield page
        page.close()


@pytest.mark.parametrize(
    ("streams", "position"), [(3, "bottom-right"), (14, "bottom-right"), (40, "top-left")]
)
def test_a_fake_is_seen_and_announced_first(
    pages: ExitStack, browser: Browser, server: Server, broadcaster: Broadcaster, streams: int, position: str
) -> None:
    """With more streams than fit, the only fake is on the screen, and no announcement begins with another."""
    messages = [verdict(stream=f"cam{index}", state="real", p_fake=0.1) for index in range(streams)]
    messages[-2] = verdict(stream="the fake one")
    for message in messages:
        broadcaster.publish(StreamMessage(stream=message.stream, state="live"))
    overlay = show(pages, browser, f"{server.urls.overlay}?position={position}")
    dashboard = show(pages, browser, server.urls.dashboard)
    publish_until(overlay, broadcaster, f"{BADGES}.length > {streams}", *messages)
    publish_until(
        dashboard, broadcaster, f"document.querySelectorAll('.face').length >= {streams}", *messages
    )
    publish_until(overlay, broadcaster, f"{BADGES}[0].startsWith('fake|Fake|the fake one')", *messages)
    seen = overlay.evaluate("""[...document.querySelector('unmask-verdict').shadowRoot.querySelectorAll('li')]
        .filter(item => !item.hidden).map(item => item.getBoundingClientRect())
        .map(({ top, bottom }) => [top, bottom])""")
    assert 1 <= len(seen) <= streams + 1
    assert all(0 <= top < bottom <= 800 for top, bottom in seen)
    rest = overlay.evaluate(
        "document.querySelector('unmask-verdict').shadowRoot.querySelector('.more').textContent"
    )
    assert rest == (f"{streams + 1 - len(seen)} more" if len(seen) < streams + 1 else "")
    overlay_says = (
        "document.querySelector('unmask-verdict').shadowRoot.querySelector('[role=status]').textContent"
    )
    assert overlay.evaluate(overlay_says).startswith("Fake: the fake one · face 1. Real: ")
    publish_until(
        dashboard,
        broadcaster,
        "document.querySelector('#announcement').textContent.startsWith('Fake: the fake one, face 1. Real')",
        *messages,
    )
