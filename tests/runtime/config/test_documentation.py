"""docs/configuration.md: its example is right, and its table has every key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from runtime.config.model import MonitorConfig
from runtime.config.reading import Settings, make_config, table_of

TEXT = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")


def tables(kind: type[msgspec.Struct], name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield the name and the keys of each table."""
    inner = {item.name: table_of(item.type) for item in msgspec.structs.fields(kind)}
    yield name, {key for key, section in inner.items() if section is None or key == "thresholds"}
    for key, section in inner.items():
        if section is not None and key != "thresholds":
            yield from tables(section, f"{name}.{key}".lstrip("."))


def test_the_example_is_right() -> None:
    """It can be copied and changed."""
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    config = make_config(Settings(values=tomllib.loads(example)))
    assert [source.name for source in config.sources] == ["door", None]
    assert config.evidence is not None


def test_the_table_has_every_key() -> None:
    """A key that is added to the model is added to the page."""
    rows = re.findall(r"^\| (\(top\)|`\[+([\w.]+)\]+`) \| (.*) \|$", TEXT, re.MULTILINE)
    documented = {name: set(re.findall(r"`([a-z_]+)`", keys)) for _, name, keys in rows}
    expected = dict(tables(MonitorConfig))
    for name, keys in expected.items():
        assert documented[name] == keys, name
    assert documented.keys() == expected.keys()
