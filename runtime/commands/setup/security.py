"""Tokens, proxy and TLS of the server, from its configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from runtime.commands.options import UserError, complain
from runtime.commands.setup.places import Places
from runtime.commands.setup.problems import Problems
from runtime.config.model import ServerConfig
from runtime.serving.access.gate import ProxyRules
from runtime.serving.access.origins import Access
from runtime.serving.access.tokens import TokenSet, create_token_file, read_token_file
from runtime.serving.certificate import Certificate
from runtime.serving.server import Security, is_loopback

TokenFile: TypeAlias = Literal["skip", "needed"]


def make_security(server: ServerConfig, places: Places, token_file: TokenFile) -> Security:
    """Return who may use the server, and how.

    Args:
        server: Configuration of the server.
        places: Places of the settings, for errors.
        token_file: What to do about a token file that does not exist; see `MonitorSetup.load`.

    Raises:
        UserError: A value cannot be used, or others could use the server without a token.
        TokenFileInvalid: The token file cannot be read.
        CertificateInvalid: The certificate or its key cannot be used.
        ConfigInvalid: Several of these are wrong.
    """
    problems = Problems()
    with problems.noted(), places.naming("server", "allow_origin"):
        Access(server.allow_origin)
    with problems.noted(), places.naming("server", "base_path"):
        ProxyRules(base_path=server.base_path)
    with problems.noted(), places.naming("server", "proxy_addresses"):
        ProxyRules(addresses=server.proxy_addresses)
    with problems.noted():
        certificate = None if server.cert is None else Certificate(server.cert, server.key)
    with problems.noted():
        _check_reach(server, places)
    with problems.noted():
        tokens = _read_tokens(server.token_file, token_file)
    problems.raise_all()
    proxy = ProxyRules(
        base_path=server.base_path, header=server.proxy_header, addresses=server.proxy_addresses
    )
    return Security(tokens=tokens, proxy=proxy, certificate=certificate)


def create_tokens(server: ServerConfig, security: Security) -> Security:
    """Create the token file that did not exist, print its token, and return the security with it.

    Args:
        server: Configuration of the server.
        security: What `make_security` returned, without tokens if their file did not exist.

    Raises:
        TokenFileInvalid: The token file cannot be created.
    """
    path = server.token_file
    if path is None or security.tokens:
        return security
    if not path.exists():
        token = create_token_file(path)
        complain(f"created {path}; this token, which is shown only now, has every right: {token}")
    return replace(security, tokens=read_token_file(path))


def _check_reach(server: ServerConfig, places: Places) -> None:
    if server.token_file is not None or server.insecure or is_loopback(server.host):
        return
    place = places.of("server", "host")
    token, everyone = (
        ("--token-file FILE", "--insecure")
        if place.startswith("-")
        else ("server.token_file", "server.insecure = true")
    )
    raise UserError(
        f"{place} {server.host}: others can reach this address; "
        f"require a token with {token}, or accept everyone with {everyone}"
    )


def _read_tokens(path: Path | None, token_file: TokenFile) -> TokenSet | None:
    if path is None:
        return None
    return TokenSet(()) if token_file == "skip" and not path.exists() else read_token_file(path)
