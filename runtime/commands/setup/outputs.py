"""Options of the outputs, from their configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.commands.setup.places import Places
from runtime.commands.setup.problems import Problems
from runtime.config.model import EvidenceConfig, JsonlConfig, MonitorConfig, MqttConfig, WebhookConfig
from runtime.config.secrets import find_secret
from runtime.errors import VideoNotWritten
from runtime.files import is_one_of
from runtime.outputs.annotated_video.video import check_video_name
from runtime.outputs.evidence.events import EventLimits
from runtime.outputs.evidence.store import StoreLimits
from runtime.outputs.jsonl import Rotation
from runtime.outputs.mqtt import MqttOptions
from runtime.outputs.options import EvidenceOptions, OutputOptions
from runtime.outputs.webhook import WebhookOptions, parse_secret
from streams.input.source import Source


def make_outputs(config: MonitorConfig, places: Places) -> OutputOptions:
    """Return the options of the outputs.

    Args:
        config: The configuration.
        places: Places of the settings, for errors.

    Raises:
        UserError: A value cannot be used; the message names its place and contains no secret.
        ConfigInvalid: Several values cannot be used.
    """
    outputs = config.outputs
    problems = Problems()
    with problems.noted():
        rotation = None if outputs.jsonl is None else _rotation(outputs.jsonl, places)
    with problems.noted():
        webhook = None if outputs.webhook is None else _webhook(outputs.webhook, places)
    with problems.noted():
        mqtt = None if outputs.mqtt is None else _mqtt(outputs.mqtt, places)
    with problems.noted():
        evidence = None if config.evidence is None else _evidence(config.evidence, places)
    problems.raise_all()
    return OutputOptions(
        jsonl=None if outputs.jsonl is None else outputs.jsonl.path,
        rotation=rotation,
        webhook=webhook,
        mqtt=mqtt,
        evidence=evidence,
        annotate=outputs.annotate,
    )


def check_output_files(config: MonitorConfig, places: Places, sources: Sequence[Source]) -> None:
    """Check that an annotated video has one source, and that no output is written into a watched file.

    Args:
        config: The configuration.
        places: Places of the settings, for errors.
        sources: The sources that are watched.

    Raises:
        VideoNotWritten: The command line names a file that cannot be the annotated video.
        ConfigInvalid: The configuration does.
        UserError: The recording would be written into a watched file.
    """
    watched = [path for path in (source.path for source in sources) if path is not None]
    problems = Problems()
    if config.outputs.annotate is not None:
        with problems.noted(), places.naming_errors("outputs", "annotate"):
            _check_annotate(config.outputs.annotate, len(config.sources), watched)
    if (jsonl := config.outputs.jsonl) is not None and is_one_of(Path(jsonl.path), watched):
        with problems.noted(), places.naming("outputs", "jsonl", "path"):
            raise ValueError(f"{jsonl.path} is a video to watch; give another path")
    problems.raise_all()


def _check_annotate(path: Path, sources: int, watched: Sequence[Path]) -> None:
    if sources != 1:
        reason = "there are several sources" if sources else "there is no source"
        raise VideoNotWritten(path, reason, "watch exactly one")
    check_video_name(path)
    if is_one_of(path, watched):
        raise VideoNotWritten(path, "it is the video to watch", "give another path")


def _rotation(jsonl: JsonlConfig, places: Places) -> Rotation | None:
    if jsonl.max_mb is None:
        return None
    with places.naming("outputs", "jsonl", "max_mb"):
        return Rotation(max_bytes=int(jsonl.max_mb * 1e6), keep=jsonl.keep)


def _webhook(webhook: WebhookConfig, places: Places) -> WebhookOptions:
    table = ("outputs", "webhook")
    with places.naming(*table, "url_env" if webhook.url_env else "url_file" if webhook.url_file else "url"):
        url = webhook.url or find_secret(webhook.url_env, webhook.url_file)
        assert url is not None
    with places.naming(*table, "secret_env" if webhook.secret_env else "secret_file"):
        text = find_secret(webhook.secret_env, webhook.secret_file)
        secret = None if text is None else parse_secret(text)
    with places.naming(*table, "url"):
        return WebhookOptions(url=url, secret=secret)


def _mqtt(mqtt: MqttConfig, places: Places) -> MqttOptions:
    table = ("outputs", "mqtt")
    with places.naming(*table, "password_env" if mqtt.password_env else "password_file"):
        password = find_secret(mqtt.password_env, mqtt.password_file)
    with places.naming(*table, "url"):
        return MqttOptions(url=mqtt.url, password=password, discovery=mqtt.discovery or None)


def _evidence(evidence: EvidenceConfig, places: Places) -> EvidenceOptions:
    with places.naming("evidence"):
        events = EventLimits(before_s=evidence.before, after_s=evidence.after, control_share=evidence.control)
    with places.naming("evidence"):
        store = StoreLimits(max_gb=evidence.max_gb, max_days=evidence.days)
    return EvidenceOptions(folder=evidence.folder, events=events, store=store)
