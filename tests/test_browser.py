"""The browser of the tests, where a page changes its address."""

from __future__ import annotations

from benchmarks.helpers.server_thread import serve_in_thread
from tests.support.browser import Browser
from tests.support.wire import make_broadcaster


def test_a_wait_outlasts_a_change_of_address(browser: Browser) -> None:
    """A page that leaves for another site drops what it was asked; the wait goes on there."""
    with serve_in_thread(make_broadcaster(), port=0) as server:
        page = browser.open(server.urls.dashboard)
        elsewhere = f"http://localhost:{server.port}/overlay"
        # The loop keeps the page from answering before it has left.
        busy = "(() => { const end = Date.now() + 500; while (Date.now() < end); })()"
        page.wait_for(f"location.pathname === '/overlay' || (location.assign('{elsewhere}'), {busy})")
        assert page.evaluate("location.hostname") == "localhost"
        page.command("Page.navigate", url=server.urls.dashboard)
        page.close()
