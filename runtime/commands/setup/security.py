"""Tokens, proxy and TLS of the server, from its configuration."""

from __future__ import annotations

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

TokenFile: TypeAlias = Literal["create", "skip", "needed"]


def make_security(server: ServerConfig, places: Places, token_file: TokenFile) -> Security:
    """Return who may use the server, and how.

    Args:
        server: Configuration of the server.
        places: Places of the settings, for errors.
        token_file: What to do about a token file that does not exist; see `MonitorSetup.load`.

    Raises:
        UserError: A value cannot be used, or others could use the server without a token.
        TokenFileInvalid: The token file cannot be read or created.
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
        # No token file is created for a run that cannot begin.
        tokens = _make_tokens(server, "skip" if problems and token_file == "create" else token_file)
    problems.raise_all()
    proxy = ProxyRules(
        base_path=server.base_path, header=server.proxy_header, addresses=server.proxy_addresses
    )
    return Security(tokens=tokens, proxy=proxy, certificate=certificate)


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


def _make_tokens(server: ServerConfig, token_file: TokenFile) -> TokenSet | None:
    path = server.token_file
    if path is None:
        return None
    if not path.exists() and token_file == "skip":
        return TokenSet(())
    if not path.exists() and token_file == "create":
        token = create_token_file(path)
        complain(f"created {path}; this token, which is shown only now, has every right: {token}")
    return read_token_file(path)
