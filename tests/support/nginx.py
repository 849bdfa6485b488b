"""nginx as a reverse proxy, and certificates, for tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    location /unmask {{ proxy_pass http://127.0.0.1:{upstream}; }}
    location /stripped/ {{ proxy_pass http://127.0.0.1:{upstream}/; }}
    # Stands for clients of other addresses.
    location /from/ {{
      proxy_pass http://127.0.0.1:{upstream}/;
      proxy_set_header X-Forwarded-For "198.51.100.1, $http_x_test_address";
    }}
  }}
}}
"""


def make_certificate(folder: Path, name: str, *, passphrase: str | None = None) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1 with a common name; return certificate and key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-noenc"] if passphrase is None else ["-passout", f"pass:{passphrase}"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def missing_programs() -> str | None:
    """Return the name of a program that is not installed; None if there is none."""
    return next((name for name in ("nginx", "openssl") if shutil.which(name) is None), None)


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[tuple[int, int]]:
    """Run nginx in front of a port; yield its ports for HTTP and HTTPS.

    Args:
        folder: Empty folder for its files.
        upstream: Port of the server.
    """
    certificate, key = make_certificate(folder, "proxy")
    port, tls_port = (_free_port() for _ in range(2))
    path = folder / "nginx.conf"
    path.write_text(
        CONFIGURATION.format(
            folder=folder, port=port, tls_port=tls_port, certificate=certificate, key=key, upstream=upstream
        )
    )
    log = (folder / "log").open("w")
    with log, subprocess.Popen(["nginx", "-p", str(folder), "-c", str(path)], stderr=log) as process:
        try:
            _wait_for(tls_port, process, folder / "log")
            yield port, tls_port
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return
