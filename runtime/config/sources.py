"""Sources of a configuration, ready to be opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlsplit, urlunsplit

from runtime.config.model import MonitorConfig, SourceConfig, ThresholdsConfig
from runtime.config.secrets import find_secret
from streams.errors import SourceError, SourceInvalid
from streams.input.source import MAX_NAME, Source, parse_source


@dataclass(frozen=True, kw_only=True)
class WatchedSource:
    """Source with the settings of its analysis.

    Args:
        source: Source to read; its name is the name of the stream, unique within the program.
        rate_hz: Verdicts per second and face; None for one per sample.
        thresholds: Thresholds that differ from the model's.
        index: Number of the source in its configuration; None if a client has added it.
    """

    source: Source
    rate_hz: float | None = None
    thresholds: ThresholdsConfig = ThresholdsConfig()  # noqa: RUF009  frozen
    index: int | None = field(default=None, compare=False)

    def thresholds_or(self, real: float, fake: float) -> tuple[float, float]:
        """Return the thresholds `real` and `fake`, those of the model where the source has none of its own.

        Args:
            real: Threshold of the model.
            fake: Threshold of the model.
        """
        own = self.thresholds
        return (real if own.real is None else own.real, fake if own.fake is None else own.fake)

    def renamed(self, name: str) -> WatchedSource:
        """Return the same source under another name."""
        return replace(self, source=replace(self.source, name=name))


@dataclass(frozen=True, kw_only=True)
class SourceProblem:
    """Reason why a source of a configuration cannot be used.

    Args:
        index: Number of the source.
        key: Key whose value is the cause.
        reason: What is wrong with it; contains no secret.
    """

    index: int
    key: str
    reason: str


def make_source(config: SourceConfig) -> Source:
    """Return the source of its configuration, with secrets from their files and variables.

    Args:
        config: One source.

    Raises:
        SourceError: The address is wrong.
        ValueError: A secret cannot be read; the message contains nothing of it.
    """
    return _parse(config, _find_address(config), find_secret(config.password_env, config.password_file))


def make_sources(config: MonitorConfig) -> tuple[list[WatchedSource], list[SourceProblem]]:
    """Return the sources of a configuration with unique names, and what is wrong with the others.

    Args:
        config: The configuration.

    Returns:
        The sources, and the problem of each that cannot be used.
    """
    watched: list[WatchedSource] = []
    problems: list[SourceProblem] = []
    for index, item in enumerate(config.sources):
        key = address_key = _given_key(item, "address", "address_env", "address_file")
        try:
            address = _find_address(item)
            key = _given_key(item, "password_env", "password_file")
            password = find_secret(item.password_env, item.password_file)
            key = address_key
            source = _parse(item, address, password)
            _check_given_once(source, [other.source for other in watched])
            key = "thresholds"
            watched.append(replace(_with_settings(source, item, config), index=index))
        except (SourceError, ValueError) as error:
            problems.append(SourceProblem(index=index, key=key, reason=str(error)))
    names = unique_names([item.source for item in watched])
    return [item.renamed(name) for item, name in zip(watched, names, strict=True)], problems


def watch(item: SourceConfig, config: MonitorConfig) -> WatchedSource:
    """Return a source with its own settings, or else those of the whole program.

    Args:
        item: Configuration of the source.
        config: Configuration of the program.

    Raises:
        SourceError: The address is wrong.
        ValueError: A secret cannot be read, or the thresholds exclude each other.
    """
    return _with_settings(make_source(item), item, config)


def _with_settings(source: Source, item: SourceConfig, config: MonitorConfig) -> WatchedSource:
    common, own = config.thresholds or ThresholdsConfig(), item.thresholds or ThresholdsConfig()
    return WatchedSource(
        source=source,
        rate_hz=config.rate if item.rate is None else item.rate,
        thresholds=ThresholdsConfig(
            real=common.real if own.real is None else own.real,
            fake=common.fake if own.fake is None else own.fake,
        ),
    )


def _given_key(item: SourceConfig, *keys: str) -> str:
    return next((key for key in keys if getattr(item, key) is not None), keys[0])


def _find_address(item: SourceConfig) -> str:
    address = item.address or find_secret(item.address_env, item.address_file)
    assert address is not None
    return address


def _parse(item: SourceConfig, address: str, password: str | None) -> Source:
    if item.user is not None:
        address = _with_user(address, item.user, password)
    return parse_source(address, name=item.name, rtsp_transport=item.transport, hwaccel=item.hwaccel)


def _check_given_once(source: Source, others: Iterable[Source]) -> None:
    """Check that no other stream would take the frames of a source that has one reader."""
    if source.kind in ("pipe", "push") and any(
        (source.kind, source.address) == (other.kind, other.address) for other in others
    ):
        advice = "give it once" if source.kind == "pipe" else "give each sender a key of its own: whip:KEY"
        raise SourceInvalid(source.spec, "was given twice", advice)


def unique_names(sources: Sequence[Source]) -> list[str]:
    """Return names of streams without duplicates: the second `cam` becomes `cam-2`.

    A name that the user has given stays with its source, because tokens may be restricted to it.

    Args:
        sources: The sources, in the order of the names.
    """
    names = [source.name for source in sources]
    unique: dict[int, str] = {}
    for index in sorted(range(len(names)), key=lambda index: not sources[index].is_name_given):
        number, candidate = 1, names[index]
        # Another source may itself be called `cam-2`.
        while candidate in unique.values() or (number > 1 and candidate in names):
            number += 1
            suffix = f"-{number}"
            candidate = f"{names[index][: MAX_NAME - len(suffix)]}{suffix}"
        unique[index] = candidate
    return [unique[index] for index in range(len(names))]


def _with_user(address: str, user: str, password: str | None) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        raise SourceInvalid("the address", "it is malformed") from None
    if not parts.scheme or not parts.netloc:
        raise SourceInvalid("the address", "only a network address has a user", "remove the key user")
    if "@" in parts.netloc:
        raise SourceInvalid(f"{parts.scheme}://…", "it contains a user already", "remove it or the key user")
    secret = "" if password is None else f":{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}{secret}@{parts.netloc}"))
