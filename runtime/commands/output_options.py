"""Options of the outputs on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.commands.options import UserError
from runtime.outputs.evidence.events import EventLimits
from runtime.outputs.evidence.store import StoreLimits
from runtime.outputs.jsonl import Rotation
from runtime.outputs.mqtt import MqttOptions
from runtime.outputs.options import EvidenceOptions, OutputOptions
from runtime.outputs.webhook import WebhookOptions, parse_secret

MAX_SECRET_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class OutputArguments:
    """Values of the command line, unchecked; see the help of `unmask monitor`."""

    jsonl: str | None
    jsonl_max_mb: float | None
    jsonl_keep: int
    webhook: str | None
    webhook_secret_file: Path | None
    mqtt: str | None
    mqtt_password_file: Path | None
    evidence: Path | None
    evidence_control: float
    evidence_max_gb: float
    evidence_days: float
    annotate: Path | None


def make_outputs(arguments: OutputArguments) -> OutputOptions:
    """Return the options of the outputs.

    Args:
        arguments: Values of the command line.

    Raises:
        UserError: A value cannot be used; the message names its option.
    """
    for option, value, needed, given in (
        ("--jsonl-max-mb", arguments.jsonl_max_mb, "--jsonl", arguments.jsonl),
        ("--webhook-secret-file", arguments.webhook_secret_file, "--webhook", arguments.webhook),
        ("--mqtt-password-file", arguments.mqtt_password_file, "--mqtt", arguments.mqtt),
        ("--evidence-control", arguments.evidence_control or None, "--evidence", arguments.evidence),
    ):
        if value is not None and given is None:
            raise UserError(f"{option} has no effect without {needed}; give both")
    rotation = None
    if arguments.jsonl_max_mb is not None:
        with _option("--jsonl-max-mb"):
            rotation = Rotation(max_bytes=int(arguments.jsonl_max_mb * 1e6), keep=arguments.jsonl_keep)
    return OutputOptions(
        jsonl=arguments.jsonl,
        rotation=rotation,
        webhook=_webhook(arguments),
        mqtt=_mqtt(arguments),
        evidence=_evidence(arguments),
        annotate=arguments.annotate,
    )


def _webhook(arguments: OutputArguments) -> WebhookOptions | None:
    if arguments.webhook is None:
        return None
    secret = None
    with _option("--webhook-secret-file"):
        if arguments.webhook_secret_file is not None:
            secret = parse_secret(read_secret(arguments.webhook_secret_file))
    with _option("--webhook"):
        return WebhookOptions(url=arguments.webhook, secret=secret)


def _mqtt(arguments: OutputArguments) -> MqttOptions | None:
    if arguments.mqtt is None:
        return None
    password = None
    with _option("--mqtt-password-file"):
        if arguments.mqtt_password_file is not None:
            password = read_secret(arguments.mqtt_password_file)
    with _option("--mqtt"):
        return MqttOptions(url=arguments.mqtt, password=password)


def _evidence(arguments: OutputArguments) -> EvidenceOptions | None:
    if arguments.evidence is None:
        return None
    with _option("--evidence-control"):
        events = EventLimits(control_share=arguments.evidence_control)
    with _option("--evidence-max-gb, --evidence-days"):
        store = StoreLimits(max_gb=arguments.evidence_max_gb, max_days=arguments.evidence_days)
    return EvidenceOptions(folder=arguments.evidence, events=events, store=store)


def read_secret(path: Path) -> str:
    """Return the secret in a file, without white space around it.

    Args:
        path: Text file of at most `MAX_SECRET_BYTES`.

    Raises:
        ValueError: It cannot be read, is empty, too long or not text; the message contains nothing of it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: it is not text") from None
    if not text or len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"{path}: it is {'empty' if not text else 'longer than a secret'}")
    return text


@contextmanager
def _option(name: str) -> Iterator[None]:
    """Name the option in an error about its value."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
