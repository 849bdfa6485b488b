"""Number of usable cores: hyper-threads, affinity and quotas of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.engines.cpu import usable_cores


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Kernel files of four cores with two hyper-threads each."""
    for cpu, siblings in enumerate(["0,4", "1,5", "2,6", "3,7"] * 2):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
    return tmp_path


def limit(root: Path, group: str, quota: str) -> None:
    folder = root / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{quota}\n")


def test_hyper_threads_count_as_one_core(root: Path) -> None:
    """Logical CPUs that share a core count once, and only those that the process is bound to."""
    assert usable_cores(range(8), root=root) == 4
    assert usable_cores([0, 4], root=root) == 1


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 2), ("1000 100000", 1), ("9000000 100000", 4), ("max 100000", 4)]
)
def test_a_container_s_quota_caps_the_count(root: Path, quota: str, cores: int) -> None:
    """The quota is rounded up to whole cores, and is at least one."""
    limit(root, "", quota)
    assert usable_cores(range(8), root=root) == cores


def test_the_smallest_quota_of_nested_groups_counts(root: Path) -> None:
    """A systemd service is limited by its own group and by every slice around it."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/system.slice/unmask.service\n")
    limit(root, "system.slice/unmask.service", "300000 100000")
    assert usable_cores(range(8), root=root) == 3
    limit(root, "system.slice", "200000 100000")
    assert usable_cores(range(8), root=root) == 2


def test_without_kernel_files_logical_cpus_are_counted(tmp_path: Path) -> None:
    """Elsewhere than on Linux every logical CPU counts as a core."""
    assert usable_cores(range(8), root=tmp_path) == 8
    assert usable_cores() >= 1
