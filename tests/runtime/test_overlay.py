"""Overlay in a real browser: badges at the faces, options in the address, delay, events, setup page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import pytest

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.messages import BroadcastMessage, StreamMessage
from runtime.serving.access.tokens import TokenSet, parse_tokens
from runtime.serving.broadcaster import Broadcaster
from runtime.serving.server import Security, Server
from tests.support.axe import serious_faults
from tests.support.browser import Browser, Page
from tests.support.wire import make_broadcaster, verdict

ELEMENT = "document.querySelector('unmask-verdict')"
ROOT = f"{ELEMENT}.shadowRoot"
STATES = f"[...{ROOT}.querySelectorAll('li')].map(item => item.dataset.state).join()"
TOKEN = "a-token-of-the-tests"
RECT = "(({ left, top, right, bottom }) => [left, top, right, bottom])"


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Broadcaster, Server]]:
    """Server that all tests share; each uses a stream of its own."""
    broadcaster = make_broadcaster()
    with serve_in_thread(broadcaster, port=0, allow_origin=["null"]) as server:
        yield broadcaster, server


@pytest.fixture
def broadcaster(shared: tuple[Broadcaster, Server]) -> Broadcaster:
    """Broadcaster of the shared server, with one live stream."""
    shared[0].publish(StreamMessage(stream="cam", state="live"))
    return shared[0]


@pytest.fixture
def server(shared: tuple[Broadcaster, Server]) -> Server:
    """Shared server."""
    return shared[1]


@pytest.fixture
def pages() -> Iterator[ExitStack]:
    """Close the pages of a test, and fail if their consoles have errors."""
    with ExitStack() as stack:
        yield stack


def show(pages: ExitStack, browser: Browser, url: str, **options: Any) -> Page:
    """Open a page; at the end of the test it is closed, and console errors fail the test."""
    page = browser.open(url, **options)

    def close() -> None:
        found = page.console_errors
        page.close()
        assert found == []

    pages.callback(close)
    return page


def publish_until(page: Page, broadcaster: Broadcaster, condition: str, *messages: BroadcastMessage) -> None:
    """Publish messages repeatedly, as a live stream does, until a condition holds in the page."""
    for _ in range(1000):
        for message in messages:
            broadcaster.publish(message)
        if page.evaluate(f"Boolean({condition})"):
            return
    page.wait_for(condition, timeout_s=0)


@pytest.mark.parametrize("box", [(0.4, 0.3, 0.2, 0.4), (0.0, 0.0, 0.1, 0.2), (0.9, 0.8, 0.1, 0.2)])
def test_badges_follow_the_faces(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server, box: tuple[float, ...]
) -> None:
    """The outline is the face's box, and the badge touches it and stays on the page, also at its edges."""
    page = show(pages, browser, f"{server.urls.overlay}?stream=cam&follow=1&scale=0.8")
    publish_until(page, broadcaster, f"{ROOT}.querySelector('.outline')", verdict(box=box))
    page.evaluate(f"{ROOT}.querySelectorAll('*').forEach(node => node.style.transition = 'none')")
    left, top, right, bottom = page.evaluate(
        f"{RECT}({ROOT}.querySelector('.outline').getBoundingClientRect())"
    )
    x, y, w, h = box
    assert [left, top, right, bottom] == pytest.approx(
        [1280 * x, 800 * y, 1280 * (x + w), 800 * (y + h)], abs=1
    )
    badge = page.evaluate(f"{RECT}({ROOT}.querySelector('.boxes li').getBoundingClientRect())")
    assert badge[0] >= -1
    assert badge[1] >= -1
    assert badge[2] <= 1281
    assert badge[3] <= 801
    assert badge[0] < right
    assert badge[2] > left
    assert min(abs(badge[3] - top), abs(badge[1] - bottom)) < 12


def test_several_faces_are_followed_and_the_rest_stays_in_the_corner(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """Each face has a badge and an outline; a face that is gone loses both; a lost stream is shown."""
    page = show(pages, browser, f"{server.urls.overlay}?stream=several&follow=1&position=top-left")
    broadcaster.publish(StreamMessage(stream="several", state="live"))
    faces = [
        verdict(stream="several", face=1, box=(0.1, 0.3, 0.2, 0.4)),
        verdict(stream="several", face=2, state="real", p_fake=0.1, box=(0.6, 0.3, 0.2, 0.4)),
    ]
    outlines = f"{ROOT}.querySelectorAll('.outline').length"
    publish_until(page, broadcaster, f"{outlines} === 2", *faces)
    assert page.evaluate(STATES) == "fake,real"
    broadcaster.publish(verdict(stream="several", face=1, state="stale", latency_ms=None))
    publish_until(page, broadcaster, f"{outlines} === 1", faces[1])
    broadcaster.publish(
        StreamMessage(stream="several", state="stalled", reason="no frame for more than 0.62 s")
    )
    page.wait_for(f"{outlines} === 0 && {STATES} === 'none'")
    corner = page.evaluate(f"{RECT}({ROOT}.querySelector('.corner li').getBoundingClientRect())")
    assert corner[:2] == [24, 24]


def test_faces_of_several_streams_stay_in_the_corner(pages: ExitStack, browser: Browser) -> None:
    """Without a chosen stream nothing is drawn at faces of another video; badges name theirs and fit."""
    broadcaster = make_broadcaster()
    with serve_in_thread(broadcaster, port=0) as server:
        page = show(pages, browser, f"{server.urls.overlay}?follow=1", width=640, height=360)
        broadcaster.publish(StreamMessage(stream="hall", state="live"))
        publish_until(page, broadcaster, f"{ROOT}.querySelector('.outline')", verdict(stream="hall"))
        for name in ("desk", *"abcdef"):
            broadcaster.publish(StreamMessage(stream=name, state="live"))
        publish_until(page, broadcaster, f"!{ROOT}.querySelector('.outline')", verdict(stream="hall"))
        details = f"[...{ROOT}.querySelectorAll('.corner .detail')].map(part => part.textContent)"
        assert "hall · face 1" in page.evaluate(details)
        assert "more" in page.evaluate(f"{ROOT}.querySelector('.more').textContent")
        corner = page.evaluate(f"{RECT}({ROOT}.querySelector('.corner').getBoundingClientRect())")
        assert min(corner[:2]) >= 23
        chosen = show(pages, browser, f"{server.urls.overlay}?follow=1&stream=hall")
        publish_until(chosen, broadcaster, f"{ROOT}.querySelector('.outline')", verdict(stream="hall"))


def test_the_setup_page_chooses_a_stream_to_follow(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """With "At the faces" all streams cannot be chosen."""
    page = show(pages, browser, f"{server.urls.dashboard}overlay-setup")
    page.evaluate("document.forms[0].elements.follow.click()")
    all_streams = "document.forms[0].elements.stream.options[0]"
    publish_until(page, broadcaster, f"{all_streams}.disabled", verdict())
    page.wait_for("new URL(document.querySelector('#address').value).searchParams.get('stream')")
    page.evaluate("document.forms[0].elements.follow.click()")
    assert not page.evaluate(f"{all_streams}.disabled")


def test_the_most_severe_badge_covers_the_others(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """Where badges of neighbouring faces overlap, the fake is legible, whichever face was first."""
    page = show(pages, browser, f"{server.urls.overlay}?stream=crowd&follow=1")
    broadcaster.publish(StreamMessage(stream="crowd", state="live"))
    states = {"real": 0.1, "fake": 0.9, "uncertain": 0.5}
    faces = [
        verdict(stream="crowd", face=n, state=state, p_fake=p_fake, box=(0.3 + 0.02 * n, 0.3, 0.1, 0.3))
        for n, (state, p_fake) in enumerate(states.items(), 1)
    ]
    publish_until(page, broadcaster, f"{STATES} === 'fake,uncertain,real'", *faces)
    shown = page.evaluate(f"""[...{ROOT}.querySelectorAll('.boxes li')].map(item => {{
        const {{ left, top, width, height }} = item.getBoundingClientRect();
        const topmost = {ROOT}.elementFromPoint(left + width / 2, top + height / 2);
        return topmost.closest('li')?.dataset.state;
    }})""")
    assert shown[0] == "fake"
    assert "real" not in shown
    levels = (
        f"[...{ROOT}.querySelectorAll('.boxes li, .outline')].map(n => [n.dataset.state, n.style.zIndex])"
    )
    assert len({tuple(level) for level in page.evaluate(levels)}) == 3  # an outline has that of its badge


def test_no_verdict_differs_from_a_verdict_without_colour(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server, tmp_path: Path
) -> None:
    """It has its own text, icon and line: no other state has a dashed line on every side."""
    page = show(pages, browser, f"{server.urls.overlay}?stream=shapes")
    broadcaster.publish(StreamMessage(stream="shapes", state="live"))
    faces = [
        verdict(stream="shapes", face=1),
        verdict(stream="shapes", face=2, state="uncertain", p_fake=0.5),
        verdict(stream="shapes", face=3, state="real", p_fake=0.1),
        verdict(stream="shapes", face=4, state="warming"),
    ]
    appearance = f"""[...{ROOT}.querySelectorAll('li')].map(item => {{
        const style = getComputedStyle(item);
        const line = ['borderTopStyle', 'borderLeftStyle', 'borderTopWidth'].map(name => style[name]).join();
        return [line, ...['path', '.label'].map(part => item.querySelector(part))
            .map(part => part.getAttribute('d') ?? part.textContent)];
    }})"""
    publish_until(page, broadcaster, f"{STATES} === 'fake,uncertain,real,warming'", *faces)
    styles = page.evaluate(appearance)
    broadcaster.publish(StreamMessage(stream="shapes", state="stalled"))
    page.wait_for(f"{STATES} === 'none'")
    styles += page.evaluate(appearance)
    assert len({line for line, _, _ in styles}) == 5
    assert len({icon for _, icon, _ in styles}) == 5
    assert [label for _, _, label in styles] == ["Fake", "Uncertain", "Real", "Warming up", "No verdict"]
    assert "no new frames" in page.evaluate(f"{ROOT}.querySelector('.detail').textContent")
    image = cv2.imread(str(page.screenshot(tmp_path / "stale.png", transparent=True)), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image[..., 3].max() > 200


def test_states_are_hidden_on_request(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """`hide=real` leaves a transparent page while everybody is real, and shows the rest."""
    page = show(pages, browser, f"{server.urls.overlay}?stream=hide&hide=real,warming")
    broadcaster.publish(StreamMessage(stream="hide", state="live"))
    page.wait_for(f"{STATES} === 'none'")
    publish_until(page, broadcaster, f"{STATES} === ''", verdict(stream="hide", state="real", p_fake=0.1))
    assert page.evaluate(f"{ROOT}.querySelector('[role=status]').textContent") == ""
    publish_until(page, broadcaster, f"{STATES} === 'fake'", verdict(stream="hide"))
    publish_until(page, broadcaster, f"{STATES} === ''", verdict(stream="hide", state="warming"))


def test_theme_font_and_variables_come_from_the_address(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """They change the style of the badges; values that make no sense change nothing."""
    plain = show(pages, browser, f"{server.urls.overlay}?stream=cam")
    query = "theme=light&font=DejaVu%20Serif&--unmask-fake=%23ff00ff&--unmask-radius=0"
    wrong = "scale=99&position=x&delay_ms=x&more=x"
    styled = show(pages, browser, f"{server.urls.overlay}?stream=cam&{query}&{wrong}")
    names = ["borderLeftColor", "borderRadius", "fontSize", "fontFamily", "backgroundColor"]
    style = f"(style => {names}.map(name => style[name]))(getComputedStyle({ROOT}.querySelector('li')))"
    styles = []
    for page in (plain, styled):
        publish_until(page, broadcaster, f"{STATES} === 'fake'", verdict())
        styles.append(page.evaluate(style))
    assert styles[1][:3] == ["rgb(255, 0, 255)", "0px", "28px"]
    assert styles[1][3].startswith('"DejaVu Serif"')
    assert styles[0][4] != styles[1][4]


def test_the_overlay_waits_for_a_late_video(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """With `delay_ms` each change is shown that much later, and in its order."""
    page = show(pages, browser, f"{server.urls.overlay}?stream=late&delay_ms=700")
    broadcaster.publish(StreamMessage(stream="late", state="live"))
    page.wait_for(f"{STATES} === 'none'")
    page.evaluate(f"""
        globalThis.seen = [];
        {ELEMENT}.addEventListener(
            'statechange', ({{ detail }}) => seen.push([detail.state, performance.now()]));
        globalThis.arrived = null;
        const socket = new WebSocket({json.dumps(server.urls.websocket)});
        socket.onmessage = ({{ data }}) => {{
            const message = JSON.parse(data);
            if (message.type === 'verdict' && message.stream === 'late') arrived ??= performance.now();
        }};
        new Promise((resolve) => (socket.onopen = resolve))
    """)
    broadcaster.publish(verdict(stream="late", state="warming"))
    broadcaster.publish(verdict(stream="late"))
    page.wait_for("seen.length >= 1 && seen.at(-1)[0] === 'fake'")
    waited = page.evaluate("seen[0][1] - arrived")
    assert 600 < waited < 3600
    # A delayed verdict expires as late as it was shown.
    page.wait_for("seen.at(-1)[0] === 'none'")
    assert 2900 < page.evaluate("seen.at(-1)[1] - seen[0][1]") < 8000


def test_the_element_reports_changes(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server, tmp_path: Path
) -> None:
    """A page that embeds it learns of every new state of a face, and of the connection."""
    document = tmp_path / "page.html"
    document.write_text(f"""<!doctype html><title>page</title>
        <script>
          const seen = [];
          addEventListener("statechange", ({{ detail: {{ stream, face, previous, state }} }}) =>
            seen.push(`${{stream}} ${{face}}: ${{previous}} -> ${{state}}`));
          addEventListener("connection", ({{ detail }}) => seen.push(`connected: ${{detail.connected}}`));
        </script>
        <script type="module" src="http://127.0.0.1:{server.port}/overlay.js"></script>
        <unmask-verdict src="{server.urls.websocket}" stream="events"></unmask-verdict>""")
    broadcaster.publish(StreamMessage(stream="events", state="live"))
    page = show(pages, browser, document.as_uri())
    page.wait_for("seen.includes('connected: true')")
    publish_until(page, broadcaster, "seen.length === 3", verdict(stream="events", state="real", p_fake=0.1))
    publish_until(page, broadcaster, "seen.length === 4", verdict(stream="events"))
    broadcaster.publish(StreamMessage(stream="events", state="offline"))
    page.wait_for("seen.length === 5")
    assert page.evaluate("seen") == [
        "connected: false",
        "connected: true",
        "events 1: none -> real",
        "events 1: real -> fake",
        "events 1: fake -> none",
    ]


def test_the_setup_page_builds_the_address(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """The address that it shows opens an overlay that styles like the preview."""
    page = show(pages, browser, f"{server.urls.dashboard}overlay-setup")
    field = "document.querySelector('#address').value"
    assert page.evaluate(field) == server.urls.overlay
    assert page.evaluate(STATES) == "fake,uncertain,real,none"
    publish_until(
        page,
        broadcaster,
        "[...document.forms[0].elements.stream.options].some(({ value }) => value === 'cam')",
        verdict(),
    )
    page.evaluate("""(() => {
        const form = document.forms[0];
        form.elements.stream.value = 'cam';
        form.elements.position.value = 'top-left';
        form.elements.theme.value = 'light';
        form.elements.delay_ms.value = '250';
        form.elements.font.value = 'DejaVu Sans';
        form.elements.scale.value = '1.5';
        form.querySelector('[name=hide][value=real]').checked = true;
        form.querySelector('[name=follow]').checked = true;
        form.dispatchEvent(new Event('input', { bubbles: true }));
    })()""")
    address = page.evaluate(field)
    assert address == (
        f"{server.urls.overlay}?stream=cam&position=top-left&scale=1.5&theme=light&font=DejaVu+Sans"
        "&follow=1&delay_ms=250&hide=real"
    )
    snippet = page.evaluate("document.querySelector('#snippet').value")
    assert 'delay-ms="250"' in snippet
    assert f'src="{server.urls.websocket}"' in snippet
    overlay = show(pages, browser, address)
    attributes = f"Object.fromEntries([...{ELEMENT}.attributes].map(({{ name, value }}) => [name, value]))"
    shown = overlay.evaluate(attributes)
    previewed = page.evaluate(attributes)
    for attribute in (shown, previewed):
        attribute.pop("style")
    assert previewed.pop("sample") == ""
    assert shown == previewed
    page.evaluate("document.querySelector('#sample').click()")
    publish_until(page, broadcaster, f"{STATES} === 'fake'", verdict())


def test_the_setup_page_puts_the_token_after_the_mark(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server
) -> None:
    """Browsers send the fragment of an address to no server, so the token gets into no log."""
    page = show(pages, browser, f"{server.urls.dashboard}overlay-setup")
    page.evaluate(f"""(() => {{
        document.forms[0].elements.token.value = {TOKEN!r};
        document.forms[0].dispatchEvent(new Event('input', {{ bubbles: true }}));
    }})()""")
    assert page.evaluate("document.querySelector('#address').value") == f"{server.urls.overlay}#token={TOKEN}"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_setup_page_is_accessible(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server, width: int, dark: bool
) -> None:
    """axe-core finds no serious fault, and nothing is wider than the page."""
    page = show(pages, browser, f"{server.urls.dashboard}overlay-setup", width=width, dark=dark)
    page.wait_for(f"{STATES} === 'fake,uncertain,real,none'")
    assert serious_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


# Not `theme=text`, whose background is the video.
@pytest.mark.parametrize("options", ["", "follow=1", "theme=light", "theme=contrast"])
def test_the_overlay_is_accessible(
    pages: ExitStack, browser: Browser, broadcaster: Broadcaster, server: Server, options: str
) -> None:
    """axe-core finds no serious fault with a face in every state, and more than fit."""
    faces = [
        verdict(stream="axe", face=1),
        verdict(stream="axe", face=2, state="uncertain", p_fake=0.5),
        verdict(stream="axe", face=3, state="real", p_fake=0.1),
        verdict(stream="axe", face=4, state="warming"),
    ]
    broadcaster.publish(StreamMessage(stream="axe", state="live"))
    url = f"{server.urls.overlay}?stream=axe&scale=2&{options}"
    page = show(pages, browser, url, width=700, height=390)
    publish_until(page, broadcaster, f"{STATES} === 'fake,uncertain,real,warming'", *faces)
    assert serious_faults(page) == []


def test_the_overlay_presents_a_token(pages: ExitStack, browser: Browser) -> None:
    """Without a valid one it shows the reason; OBS has it in the address, after the mark for fragments."""
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    tokens = TokenSet(parse_tokens(f"{TOKEN} read", Path("tokens")))
    detail = f"{ROOT}.querySelector('.detail').textContent"
    with serve_in_thread(broadcaster, port=0, security=Security(tokens=tokens)) as server:
        refused = show(pages, browser, server.urls.overlay)
        refused.wait_for(f"{detail}.includes('token')")
        address = f"{server.urls.overlay}#token={TOKEN}"
        accepted = show(pages, browser, address)
        accepted.wait_for(f"{detail} === 'waiting for a face'")
        wrong = show(pages, browser, f"{server.urls.overlay}#token=x{TOKEN}")
        wrong.wait_for(f"{detail}.includes('token')")
