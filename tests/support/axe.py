"""Accessibility check of a page with axe-core.

Source: https://github.com/dequelabs/axe-core, as the package axe-core-python contains it.
"""

from __future__ import annotations

from importlib import resources

from tests.support.browser import Page

SERIOUS = ("serious", "critical")


def serious_faults(page: Page) -> list[str]:
    """Return the serious and critical faults of a page, one line for each element."""
    page.evaluate((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(({ violations }) => violations)")
    return [
        f"{fault['id']}: {fault['help']}: {node['html'][:120]}: {node['failureSummary']}"
        for fault in found
        if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]
