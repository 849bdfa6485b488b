"""Order in which the files of tests run, so that two at a time use both cores until the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")

LONG = (
    "tests/train/fitting/test_run.py",
    "tests/train/models/test_teacher.py",
    "tests/train/evaluation/test_record.py",
    "tests/test_network.py",
    "tests/test_wheel.py",
    "tests/benchmarks/suites/test_gpu.py",
    "tests/benchmarks/suites/test_baseline.py",
    "tests/export/test_bundle_writer.py",
    "tests/train/models/test_initial_weights.py",
    "tests/benchmarks/suites/test_fanout.py",
    "tests/benchmarks/suites/test_throughput.py",
    "tests/train/fitting/test_calibrate.py",
)
"""Files with few tests, which take from ten seconds to a minute and a half, mostly on the CPU."""

# Share of the other files among which those are spread. After it, short files fill up both processes.
SPREAD = 2 / 3


def run_order(files: Mapping[str, Sequence[Item]]) -> list[Item]:
    """Return the tests of all files, those of a file together.

    Files with many tests come first, and those in `LONG` are spread among them: most tests of servers and
    cameras wait, and leave their core to those that compute.

    Args:
        files: Tests of each file, by its path.
    """
    others = sorted(files.keys() - set(LONG), key=lambda path: (-len(files[path]), path))
    long = [path for path in LONG if path in files]
    distance = max(1, int(SPREAD * len(others) / max(1, len(long))))
    order: list[Item] = []
    for index, path in enumerate(others):
        if index % distance == 0 and long:
            order += files[long.pop(0)]
        order += files[path]
    for path in long:
        order += files[path]
    return order
