"""Structs of the configuration; their fields are the keys of the file.

    config = MonitorConfig(sources=[SourceConfig(address="demo")], server=ServerConfig(port=0))

`runtime.config.reading` builds them from a file and from options of the command line, and checks names and
types. A secret never needs to be in the file: `password_file` names a file that contains it, `password_env`
an environment variable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runtime.messages import MIN_VERDICT_HZ
from streams.input.devices.hwaccel import check_hwaccel

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765

Port = Annotated[int, Meta(ge=0, le=65535)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
# TOML and the command line accept `inf`, with which no time or size can be computed.
Positive = Annotated[float, Meta(gt=0.0, le=1e9)]
VerdictRate = Annotated[float, Meta(ge=MIN_VERDICT_HZ, le=1e9)]
PositiveCount = Annotated[int, Meta(ge=1)]
StunServer = Annotated[str, Meta(pattern=r"^stuns?:[A-Za-z0-9.-]+(:\d{1,5})?$", examples=["stun:HOST:PORT"])]
HeaderName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z", examples=["the name of a header, such as X-Forwarded-For"]
    ),
]
Text = Annotated[str, Meta(min_length=1)]


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """Table of the configuration."""


class ThresholdsConfig(_Section, frozen=True, kw_only=True):
    """Thresholds on `p_fake`.

    Args:
        real: Up to this `p_fake` a face is `real`; None for the model's.
        fake: From this `p_fake` a face is `fake`; None for the model's.

    Raises:
        ValueError: `real` is above `fake`.
    """

    real: Share | None = None
    fake: Share | None = None

    def __post_init__(self) -> None:
        if self.real is not None and self.fake is not None and self.real > self.fake:
            raise ValueError(f"thresholds.real ({self.real:g}) is above thresholds.fake ({self.fake:g})")


class SourceConfig(_Section, frozen=True, kw_only=True):
    """Source to watch.

    Args:
        address: Source as on the command line, such as `rtsp://10.0.0.7/cam`.
        address_env: Environment variable that contains the address, instead of `address`.
        address_file: File that contains the address, instead of `address`.
        name: Name of the stream, unique; None for the host of the address or the name of the file.
        user: User name for the address.
        password_env: Environment variable that contains the password.
        password_file: File that contains the password.
        transport: Transport of RTSP video.
        hwaccel: Hardware to decode with, by FFmpeg's name; None for the CPU.
        rate: Verdicts per second for each face; None for that of the whole program.
        thresholds: Thresholds of this stream; None for those of the whole program.

    Raises:
        ValueError: The address is missing or given twice, the password too, a password has no user, or the
            hardware is unknown.
    """

    address: Text | None = None
    address_env: Text | None = None
    address_file: Path | None = None
    name: Text | None = None
    user: Text | None = None
    password_env: Text | None = None
    password_file: Path | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    hwaccel: Text | None = None
    rate: VerdictRate | None = None
    thresholds: ThresholdsConfig | None = None

    def __post_init__(self) -> None:
        _one_of(self, ("address", "address_env", "address_file"), needed=True)
        _one_of(self, ("password_env", "password_file"))
        if self.hwaccel is not None:
            check_hwaccel(self.hwaccel)
        if self.user is None and (self.password_env or self.password_file):
            raise ValueError("a password needs a user; add the key user")


class ServerConfig(_Section, frozen=True, kw_only=True):
    """Server for WebSocket clients and web pages.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        allow_origin: Origins besides the server's own whose pages may connect.
        max_clients: Maximum number of WebSocket clients; None for the default.
        token_file: File with tokens, which clients then need; created with one token if it does not exist.
        insecure: Whether to listen on an address that others can reach, without tokens.
        cert: PEM file with the certificate chain for TLS.
        key: PEM file with the key of the certificate; None if `cert` contains it.
        base_path: Path under which a reverse proxy serves this server, such as `/unmask`.
        proxy_header: Header in which the proxy states the client's address, such as `X-Forwarded-For`.
        proxy_addresses: Addresses or networks from which the proxy connects.
        stun: STUN servers for senders to `browser` and `whip:KEY`, `stun:HOST:PORT`; default: none.
        scan_uploads: Whether the server scans videos that are uploaded to it.

    Raises:
        ValueError: There is a key but no certificate.
    """

    host: str = DEFAULT_HOST
    port: Port = DEFAULT_PORT
    allow_origin: tuple[str, ...] = ()
    max_clients: PositiveCount | None = None
    token_file: Path | None = None
    insecure: bool = False
    cert: Path | None = None
    key: Path | None = None
    base_path: str = ""
    proxy_header: HeaderName | None = None
    proxy_addresses: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    scan_uploads: bool = False
    stun: tuple[StunServer, ...] = ()

    def __post_init__(self) -> None:
        if self.key is not None and self.cert is None:
            raise ValueError("a key needs a certificate; add the key cert")


class JsonlConfig(_Section, frozen=True, kw_only=True):
    """Recording of all messages as JSON Lines.

    Args:
        path: Path, or `-` for standard output.
        max_mb: Size in MB at which the file is renamed; None for never.
        keep: Number of renamed files to keep.
    """

    path: Text
    max_mb: Positive | None = None
    keep: PositiveCount = 5


class WebhookConfig(_Section, frozen=True, kw_only=True):
    """Receiver of changes of state by POST.

    Args:
        url: Address of the receiver.
        url_env: Environment variable that contains the address, instead of `url`.
        url_file: File that contains the address, instead of `url`.
        secret_env: Environment variable that contains the key of the signature.
        secret_file: File that contains the key of the signature.

    Raises:
        ValueError: The address is missing or given twice, or the secret is given twice.
    """

    url: Text | None = None
    url_env: Text | None = None
    url_file: Path | None = None
    secret_env: Text | None = None
    secret_file: Path | None = None

    def __post_init__(self) -> None:
        _one_of(self, ("url", "url_env", "url_file"), needed=True)
        _one_of(self, ("secret_env", "secret_file"))


class MqttConfig(_Section, frozen=True, kw_only=True):
    """MQTT broker for states and changes.

    Args:
        url: `mqtt://[USER@]HOST[:PORT][/TOPIC]`, or `mqtts://` for TLS.
        password_env: Environment variable that contains the password.
        password_file: File that contains the password.
        discovery: Topic on which Home Assistant listens; empty to publish nothing for it.

    Raises:
        ValueError: The password is given twice.
    """

    url: Text
    password_env: Text | None = None
    password_file: Path | None = None
    discovery: str = "homeassistant"

    def __post_init__(self) -> None:
        _one_of(self, ("password_env", "password_file"))


class OutputsConfig(_Section, frozen=True, kw_only=True):
    """Outputs beside the WebSocket; None for those that are off.

    Args:
        jsonl: Recording of all messages.
        webhook: Receiver of changes of state.
        mqtt: MQTT broker.
        annotate: Annotated video of the only source.
    """

    jsonl: JsonlConfig | None = None
    webhook: WebhookConfig | None = None
    mqtt: MqttConfig | None = None
    annotate: Path | None = None


class EvidenceConfig(_Section, frozen=True, kw_only=True):
    """Evidence of faces that turn fake: biometric data of people.

    Args:
        folder: Folder of all events.
        before: Seconds before the verdict that are kept.
        after: Seconds after it.
        control: Share of the time without a fake to keep at random, 0..1.
        max_gb: Size in GB beyond which the oldest evidence is deleted.
        days: Age in days beyond which evidence is deleted.
    """

    folder: Path
    before: Annotated[float, Meta(ge=0.0, le=60.0)] = 5.0
    after: Annotated[float, Meta(ge=0.0, le=60.0)] = 5.0
    control: Share = 0.0
    max_gb: Positive = 10.0
    days: Positive = 30.0


class FleetConfig(_Section, frozen=True, kw_only=True):
    """Settings of `unmask fleet`, which `unmask monitor` does not use.

    Args:
        address: Address of the Ray cluster, `auto` or `local`; None for that of this machine, else `local`.
        cores_per_camera: Cores that a camera needs; None to measure it on each worker.
    """

    address: Text | None = None
    cores_per_camera: Positive | None = None


class MonitorConfig(_Section, frozen=True, kw_only=True):
    """Configuration of `unmask monitor` and `unmask fleet`.

    Args:
        model: Directory of the bundle; None for the bundled model.
        engine: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
        jobs: Processes that watch the sources, for `unmask monitor`; with 1 the program itself does.
        rate: Verdicts per second and face; None for one per sample.
        thresholds: Thresholds of all streams without their own; None for the model's.
        duration: Time in seconds after which to stop; None to run until the sources end.
        sources: Sources to watch.
        server: Server for clients and pages.
        outputs: Outputs beside the WebSocket.
        evidence: Evidence; None for none.
        fleet: Settings of `unmask fleet`.
    """

    model: Path | None = None
    engine: Literal["auto", "onnxruntime", "openvino", "tensorrt"] = "auto"
    jobs: PositiveCount = 1
    rate: VerdictRate | None = None
    thresholds: ThresholdsConfig | None = None
    duration: Positive | None = None
    sources: tuple[SourceConfig, ...] = ()
    server: ServerConfig = ServerConfig()
    outputs: OutputsConfig = OutputsConfig()
    evidence: EvidenceConfig | None = None
    fleet: FleetConfig = FleetConfig()


def _one_of(section: msgspec.Struct, keys: tuple[str, ...], *, needed: bool = False) -> None:
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other; keep one of them")
    if needed and not given:
        raise ValueError(f"the key {keys[0]} is missing (or {' or '.join(keys[1:])})")
