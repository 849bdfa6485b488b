"""Order of the files of tests."""

from __future__ import annotations

from pathlib import Path

from tests.support.order import LONG, run_order


def test_long_files_are_spread_among_the_others() -> None:
    """Every test runs once, those of a file together, and no long file is the last."""
    files = {
        f"tests/test_{number}.py": [f"{number}:{test}" for test in range(number)] for number in range(1, 91)
    }
    files |= {path: [path] for path in LONG}
    order = run_order(files)
    assert sorted(order) == sorted(test for tests in files.values() for test in tests)
    assert order[:2] == [LONG[0], "90:0"]
    assert order[1:91] == files["tests/test_90.py"]
    assert order.index(LONG[-1]) < order.index("25:0")


def test_long_files_exist() -> None:
    """A file that was renamed is renamed in the list too."""
    folder = Path(__file__).parents[1]
    assert [path for path in LONG if not (folder / path).exists()] == []


def test_a_part_of_the_tests_has_an_order_too() -> None:
    """Long files alone, and others alone."""
    assert run_order({LONG[1]: [2], LONG[0]: [1]}) == [1, 2]
    assert run_order({"b.py": [1], "a.py": [2, 3]}) == [2, 3, 1]
    assert run_order({}) == []
