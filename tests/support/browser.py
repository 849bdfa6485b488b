"""A headless Chromium for tests, driven through its DevTools protocol.

    page = browser.open("http://127.0.0.1:8765/")
    page.wait_for("document.querySelector('.badge')?.textContent === 'Fake'")
    page.screenshot(path)

Source: Chrome DevTools Protocol, https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    # The sandbox of Chromium needs privileges that containers lack; only pages of the project are opened.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--mute-audio",
    "--remote-debugging-port=0",
)
START_TIMEOUT_S = 60.0
TIMEOUT_S = 30.0


class CommandError(AssertionError):
    """Chromium has refused a command, or has dropped it because the page went to another address."""


class ScriptError(AssertionError):
    """An expression evaluated in a page has thrown."""


class Page:
    """One page, opened by `Browser.open`."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    @property
    def console_errors(self) -> list[str]:
        """Exceptions and error messages of the page's console so far."""
        # Waiting for a result receives the events before it.
        self.evaluate("0")
        return self._browser.console_errors(self._session)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a DevTools command to the page and return its result."""
        return self._browser.command(method, session=self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, awaiting a promise, and return the value."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise ScriptError(details.get("exception", details).get("description", details["text"]))
        return answer["result"].get("value")

    def wait_for(self, expression: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Evaluate JavaScript repeatedly until the value is truthy, also while it goes elsewhere."""
        deadline = time.monotonic() + timeout_s
        while not self._is_true(expression):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                raise AssertionError(f"{expression} did not come true; the page reads:\n{text}")
            time.sleep(0.03)

    def screenshot(self, path: Path, *, transparent: bool = False) -> Path:
        """Write a screenshot as PNG, with a transparent background if asked for."""
        if transparent:
            background = {"r": 0, "g": 0, "b": 0, "a": 0}
            self.command("Emulation.setDefaultBackgroundColorOverride", color=background)
        image = self.command("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(image["data"]))
        return path

    def close(self) -> None:
        """Close the page, even one that is changing its address."""
        self._browser.command("Target.closeTarget", targetId=self._target)

    def _is_true(self, expression: str) -> bool:
        try:
            return bool(self.evaluate(f"Boolean({expression})"))
        except CommandError:
            return False


class Browser:
    """Connection to a running Chromium, started by the fixture `browser`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last_id = 0
        self._console_errors: dict[str, list[str]] = {}

    def open(self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> Page:
        """Open a page of the given size, in the light or the dark colour scheme."""
        target = self.command("Target.createTarget", url="about:blank")
        attached = self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, target["targetId"], attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            page.command(f"{domain}.enable")
        page.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.command("Emulation.setEmulatedMedia", features=[scheme])
        navigated = page.command("Page.navigate", url=url)
        if "errorText" in navigated:
            raise AssertionError(f"{url}: {navigated['errorText']}")
        page.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")
        return page

    def command(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a DevTools command and return its result."""
        self._last_id += 1
        request: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            request["sessionId"] = session
        self._connection.send(json.dumps(request))
        while True:
            message = json.loads(self._connection.recv(timeout=TIMEOUT_S))
            if message.get("id") == self._last_id:
                if "error" in message:
                    raise CommandError(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result
            self._collect_error(message)

    def console_errors(self, session: str) -> list[str]:
        """Return the console errors of one page."""
        return self._console_errors.get(session, [])

    def _collect_error(self, event: dict[str, Any]) -> None:
        error = None
        if event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            error = details.get("exception", {}).get("description", details["text"])
        elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            error = event["params"]["entry"]["text"]
        elif event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] == "error":
            error = " ".join(str(part.get("value")) for part in event["params"]["args"])
        if error is not None:
            self._console_errors.setdefault(event["sessionId"], []).append(error)


def find_chromium() -> str | None:
    """Return the path of Chromium; None if it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium(program: str, profile: Path, *options: str) -> Iterator[Browser]:
    """Run Chromium with an empty profile, and further options, while the context lasts."""
    with (profile / "stderr.txt").open("w") as stderr:
        process = subprocess.Popen(
            [program, *OPTIONS, *options, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        # Without pings: a busy browser on a busy machine may be late to answer one.
        with connect(
            _endpoint(process, profile), max_size=None, compression=None, proxy=None, ping_interval=None
        ) as connection:
            yield Browser(connection)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _endpoint(process: subprocess.Popen[bytes], profile: Path) -> str:
    written = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        lines = written.read_text().splitlines() if written.exists() else []
        if len(lines) == 2:
            port, path = lines
            return f"ws://127.0.0.1:{port}{path}"
        time.sleep(0.03)
    raise AssertionError(f"Chromium did not start:\n{(profile / 'stderr.txt').read_text()[-2000:]}")
