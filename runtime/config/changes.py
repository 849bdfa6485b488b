"""Changes from the sources of one configuration to those of another. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.config.sources import WatchedSource


@dataclass(frozen=True, kw_only=True)
class SourceChanges:
    """Changes, to be made in this order.

    Args:
        removed: Names of the streams that are no longer watched.
        renamed: Old and new names of streams that are otherwise the same.
        replaced: Sources whose address or settings have changed; their streams start again.
        added: Sources to watch from now on.
    """

    removed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    replaced: tuple[WatchedSource, ...]
    added: tuple[WatchedSource, ...]


def find_changes(before: Sequence[WatchedSource], after: Sequence[WatchedSource]) -> SourceChanges:
    """Return what must change; sources that are the same are not touched.

    Args:
        before: Sources of the configuration in use, with unique names.
        after: Sources of the new configuration, with unique names.
    """
    old = {item.source.name: item for item in before}
    new = {item.source.name: item for item in after}
    gone = [item for name, item in old.items() if name not in new]
    added = [item for name, item in new.items() if name not in old]
    renamed = []
    for item in tuple(added):
        # The same source under a name that is new, while its old name is gone.
        same = next((other for other in gone if other.renamed(item.source.name) == item), None)
        if same is not None:
            renamed.append((same.source.name, item.source.name))
            gone.remove(same)
            added.remove(item)
    return SourceChanges(
        removed=tuple(item.source.name for item in gone),
        renamed=tuple(renamed),
        replaced=tuple(item for name, item in new.items() if name in old and old[name] != item),
        added=tuple(added),
    )
