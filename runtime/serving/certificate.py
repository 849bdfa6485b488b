"""TLS certificate that is loaded again when its files change, without a restart."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from runtime.errors import CertificateInvalid, os_reason

logger = logging.getLogger(__name__)


class Certificate:
    """Certificate chain and key, and the TLS context that uses them.

    New connections use the files of the last successful load; open ones continue.

    Args:
        chain: PEM file with the certificate and its intermediates.
        key: PEM file with the private key, without a passphrase; None if it is in `chain`.

    Raises:
        CertificateInvalid: A file cannot be read, or the key does not belong to the certificate.
    """

    def __init__(self, chain: Path, key: Path | None = None) -> None:
        self._chain = chain
        self._key = key or chain
        self._loaded = self._state()
        self.context = self._new_context()

    def reload_if_changed(self) -> None:
        """Load the files again if they have changed; log it and keep the old ones if they cannot be used."""
        state = self._state()
        if state == self._loaded:
            return
        self._loaded = state
        try:
            # First into another context, because a failure could leave the one in use without a key.
            self._new_context()
            self.context.load_cert_chain(self._chain, self._key)
        except (CertificateInvalid, OSError) as error:
            logger.warning("%s; the certificate before it stays in use", error)
        else:
            logger.info("the certificate %s was loaded again", self._chain)

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for path in (self._chain, self._key):
            try:
                path.read_bytes()
            except OSError as error:
                raise CertificateInvalid(path, os_reason(error)) from error
        try:
            # An empty passphrase instead of a question in the terminal.
            context.load_cert_chain(self._chain, self._key, password=lambda: b"")
        except (ssl.SSLError, ValueError, OSError) as error:
            raise CertificateInvalid(self._key, _reason(error, self._key)) from error
        return context

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        states = []
        for path in (self._chain, self._key):
            try:
                status = path.stat()
                states.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                states.append((0, 0, 0))
        return tuple(states)


def _reason(error: Exception, key: Path) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "this key does not belong to the certificate"
    # OpenSSL reports no more than that it cannot read the key.
    if b"ENCRYPTED" in key.read_bytes():
        return "this key has a passphrase"
    return "neither a PEM certificate nor a PEM key can be read from it"
