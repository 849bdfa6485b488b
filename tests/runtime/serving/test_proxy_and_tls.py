"""Server behind a real nginx with TLS and a sub-path, and with TLS of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import shutil
import socket
import ssl
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.errors import CertificateInvalid
from runtime.messages import StreamMessage
from runtime.serving.access.gate import ProxyRules
from runtime.serving.access.tokens import TokenSet, parse_tokens
from runtime.serving.certificate import Certificate
from runtime.serving.metrics import Metrics
from runtime.serving.server import Security, Server, serve
from tests.support.aio import TIMEOUT_S, run, until
from tests.support.browser import Browser
from tests.support.nginx import make_certificate, missing_programs, nginx
from tests.support.wire import make_broadcaster, verdict

TOKEN = "admin-token-0123456789"
TOKENS = TokenSet(parse_tokens(f"{TOKEN} read control send", Path("tokens")))


@pytest.fixture(scope="module")
def proxied(
    tmp_path_factory: pytest.TempPathFactory, skip_or_fail: Callable[[str], NoReturn]
) -> Iterator[tuple[Server, int, int]]:
    """Server that requires a token, and the ports of an nginx in front of it: HTTP and HTTPS."""
    if (missing := missing_programs()) is not None:
        skip_or_fail(f"{missing} is not installed (Debian: apt install nginx-light openssl)")
    broadcaster = make_broadcaster()
    broadcaster.publish(StreamMessage(stream="door", state="live"))
    security = Security(tokens=TOKENS, proxy=ProxyRules(base_path="/unmask", header="X-Forwarded-For"))
    with (
        serve_in_thread(broadcaster, port=0, metrics=Metrics(), security=security) as server,
        nginx(tmp_path_factory.mktemp("nginx"), server.port) as ports,
    ):
        yield server, *ports


def request(
    port: int, method: str, path: str, body: str | None = None, *, context: Any = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request, with TLS if there is a context, and return status, headers and body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)
    with closing(connection):
        connection.request(method, path, body=body, headers=named)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def trusting() -> ssl.SSLContext:
    """Return a client context that accepts the self-signed certificates of the tests."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("prefix", ["/unmask/", "/stripped/"])
def test_a_browser_logs_in_under_a_sub_path_over_tls(proxied: tuple[Server, int, int], prefix: str) -> None:
    """Redirects are relative, the cookie is secure and valid for the sub-path, the WebSocket accepts it."""
    _, _, port = proxied
    context = trusting()
    status, headers, _ = request(port, "GET", prefix, context=context)
    assert (status, headers["Location"]) == (303, "login")
    status, _, body = request(port, "GET", f"{prefix}login", context=context)
    assert status == 200
    # Every address on the page is relative.
    assert b'="/' not in body
    assert b"http" not in body.partition(b"<body>")[0].replace(b"http-equiv", b"")
    form = urllib.parse.urlencode({"token": TOKEN})
    origin = f"https://127.0.0.1:{port}"
    status, headers, _ = request(port, "POST", f"{prefix}login", form, context=context, Origin=origin)
    assert (status, headers["Location"]) == (303, "./")
    cookie = headers["Set-Cookie"]
    assert cookie.endswith("; HttpOnly; SameSite=Lax; Secure")
    assert "Path=" not in cookie
    value = cookie.partition(";")[0]
    assert request(port, "GET", prefix, context=context, Cookie=value)[0] == 200
    health = json.loads(request(port, "GET", f"{prefix}healthz", context=context, Cookie=value)[2])
    assert health["streams"] == {"door": "live"}

    async def scenario() -> None:
        url = f"wss://127.0.0.1:{port}{prefix}ws"
        async with connect(
            url,
            ssl=context,
            proxy=None,
            origin=Origin(origin),
            additional_headers={"Cookie": value},
        ) as connection:
            assert json.loads(await connection.recv())["type"] == "hello"

    run(scenario)


def test_the_base_path_without_its_slash(proxied: tuple[Server, int, int]) -> None:
    """Relative addresses on the page would lead elsewhere, so the browser is sent on."""
    status, headers, _ = request(proxied[1], "GET", "/unmask")
    assert (status, headers["Location"]) == (308, "unmask/")


def test_attempts_are_counted_by_the_address_behind_the_proxy(proxied: tuple[Server, int, int]) -> None:
    """One client's wrong tokens do not make others wait; it cannot choose the address that counts."""
    _, port, _ = proxied
    wrong = {"Authorization": "Bearer wrong-token-0123456789"}
    right = {"Authorization": f"Bearer {TOKEN}"}
    statuses = [
        request(port, "GET", "/from/healthz", X_Test_Address="203.0.113.7", **wrong)[0] for _ in range(8)
    ]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert request(port, "GET", "/from/healthz", X_Test_Address="203.0.113.7", **right)[0] == 429
    assert request(port, "GET", "/from/healthz", X_Test_Address="203.0.113.8", **right)[0] == 200
    assert request(port, "GET", "/unmask/healthz", X_Forwarded_For="203.0.113.7", **right)[0] == 200


def test_the_dashboard_works_under_a_sub_path(proxied: tuple[Server, int, int], browser: Browser) -> None:
    """A browser logs in by the form, loads the dashboard, connects and logs out, without console errors."""
    _, port, _ = proxied
    page = browser.open(f"http://127.0.0.1:{port}/unmask/overlay-setup")
    page.wait_for("document.querySelector('input#token')")
    assert page.evaluate("location.pathname") == "/unmask/login"
    page.evaluate(
        f"document.querySelector('input#token').value = '{TOKEN}', document.querySelector('form').submit()"
    )
    page.wait_for("location.pathname === '/unmask/overlay-setup'")
    page.command("Page.navigate", url=f"http://127.0.0.1:{port}/unmask/")
    page.wait_for("location.pathname === '/unmask/' && document.body?.textContent.includes('door')")
    page.wait_for("!document.querySelector('#logout').hidden")
    page.evaluate("document.querySelector('#logout').click()")
    page.wait_for("location.pathname === '/unmask/login' && document.querySelector('input#token')")
    assert page.command("Network.getCookies")["cookies"] == []
    assert page.console_errors == []


@pytest.fixture
def certificates(tmp_path: Path, skip_or_fail: Callable[[str], NoReturn]) -> Callable[..., tuple[Path, Path]]:
    """Function that makes a certificate: `certificates(name, passphrase=None)`."""
    if shutil.which("openssl") is None:
        skip_or_fail("openssl is not installed")
    return lambda name, **options: make_certificate(tmp_path, name, **options)


def common_name(port: int, folder: Path) -> str:
    """Return the common name of the certificate that a server presents."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=TIMEOUT_S)
    (folder / "presented.pem").write_text(pem)
    command = ["openssl", "x509", "-in", str(folder / "presented.pem"), "-noout", "-subject"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return shown.rpartition("=")[2].strip()


def test_a_renewed_certificate_is_used_without_dropping_clients(
    certificates: Callable[..., tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """New connections get the new certificate, an open one continues; a damaged one changes nothing."""
    monkeypatch.setattr("runtime.serving.server.SECURITY_CHECK_S", 0.02)
    caplog.set_level(logging.INFO, "runtime.serving.certificate")
    chain, key = certificates("first")
    new_chain, new_key = certificates("second")

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        security = Security(certificate=Certificate(chain, key))
        async with serve(broadcaster, port=0, security=security) as server:
            assert server.urls.dashboard == f"https://127.0.0.1:{server.port}/"
            assert server.urls.websocket == f"wss://127.0.0.1:{server.port}/ws"
            async with connect(server.urls.websocket, ssl=trusting(), proxy=None) as connection:
                for _ in range(2):
                    await connection.recv()
                assert await asyncio.to_thread(common_name, server.port, chain.parent) == "first"
                key.write_text("half a key")
                await until(lambda: "stays in use" in caplog.text)
                assert await asyncio.to_thread(common_name, server.port, chain.parent) == "first"
                shutil.copy(new_key, key)
                shutil.copy(new_chain, chain)
                await until(lambda: "was loaded again" in caplog.text)
                assert await asyncio.to_thread(common_name, server.port, chain.parent) == "second"
                broadcaster.publish(verdict())
                assert json.loads(await connection.recv())["type"] == "verdict"
            # Whoever speaks HTTP to it is refused without a traceback.
            raw = socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S)
            with closing(raw):
                raw.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert b"200" not in await asyncio.to_thread(raw.recv, 100)
            status = await asyncio.to_thread(
                lambda: request(server.port, "GET", "/healthz", context=trusting())[0]
            )
            assert status == 200
        assert not any(record.exc_info for record in caplog.records)

    run(scenario)


def test_a_certificate_that_cannot_be_used(certificates: Callable[..., tuple[Path, Path]]) -> None:
    """One line names the file and the cause, and nobody is asked for a passphrase."""
    chain, key = certificates("first")
    other_chain, other_key = certificates("other")
    _, locked = certificates("locked", passphrase="hush")
    text = chain.with_name("text")
    text.write_text("no certificate")
    for arguments, reason in (
        ((chain, other_key), "does not belong to the certificate"),
        ((other_chain, locked), "has a passphrase"),
        ((text, key), "neither a PEM certificate nor a PEM key"),
        ((chain,), "neither a PEM certificate nor a PEM key"),
        ((chain.with_name("none"), key), "no such file"),
        ((chain, key.with_name("none")), "no such file"),
    ):
        with pytest.raises(CertificateInvalid, match=reason) as raised:
            Certificate(*arguments)
        assert "hush" not in str(raised.value)
