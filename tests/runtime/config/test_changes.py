"""Changes between two configurations."""

from __future__ import annotations

from runtime.config.changes import SourceChanges, find_changes
from runtime.config.model import MonitorConfig, SourceConfig
from runtime.config.sources import WatchedSource, make_sources


def sources(**addresses: str) -> list[WatchedSource]:
    """Return sources by name."""
    items = tuple(SourceConfig(name=name, address=address) for name, address in addresses.items())
    return make_sources(MonitorConfig(sources=items))[0]


def test_only_what_differs_changes() -> None:
    """Of five sources one stays, and one each is removed, renamed, replaced and added."""
    before = sources(stays="rtsp://a/1", goes="rtsp://a/2", old="rtsp://a/3", moves="rtsp://a/4")
    after = sources(stays="rtsp://a/1", new="rtsp://a/3", moves="rtsp://b/4", comes="rtsp://a/5")
    assert find_changes(before, after) == SourceChanges(
        removed=("goes",), renamed=(("old", "new"),), replaced=(after[2],), added=(after[3],)
    )


def test_the_same_sources_in_another_order_change_nothing() -> None:
    """A comment or the order in the file restarts no camera."""
    before = sources(a="rtsp://a/1", b="rtsp://a/2")
    assert find_changes(before, before[::-1]) == SourceChanges(removed=(), renamed=(), replaced=(), added=())


def test_a_password_or_a_setting_replaces_the_source() -> None:
    """Both are only used when the source is opened."""
    before = sources(a="rtsp://u:one@a/1")
    assert find_changes(before, sources(a="rtsp://u:two@a/1")).replaced
    item = SourceConfig(name="a", address="rtsp://u:one@a/1", rate=2)
    assert find_changes(before, make_sources(MonitorConfig(sources=(item,)))[0]).replaced


def test_swapped_names_replace_both() -> None:
    """Neither name is free for a renaming."""
    after = sources(a="rtsp://a/2", b="rtsp://a/1")
    assert find_changes(sources(a="rtsp://a/1", b="rtsp://a/2"), after).replaced == tuple(after)


def test_two_sources_with_one_address_are_renamed_one_by_one() -> None:
    """Each old name is used once."""
    changes = find_changes(
        sources(a="rtsp://a/1", b="rtsp://a/1"), sources(c="rtsp://a/1", d="rtsp://a/1", e="rtsp://a/1")
    )
    assert changes.renamed == (("a", "c"), ("b", "d"))
    assert [item.source.name for item in changes.added] == ["e"]
