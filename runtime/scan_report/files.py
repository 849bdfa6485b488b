"""Reports as files: the suffix decides between a page and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from runtime.errors import ReportNotWritten, os_reason
from runtime.files import check_writable, write_atomically
from runtime.model.bundle import Bundle
from runtime.scan_report.document import Report, ScannedVideo
from runtime.scan_report.html import html_report
from runtime.version import version


def make_report(videos: Sequence[ScannedVideo], bundle: Bundle, engine: str) -> Report:
    """Return the report of scanned videos, made now by this version.

    Args:
        videos: The videos.
        bundle: The model.
        engine: Description of the engine.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(videos=videos, bundle=bundle, engine=engine, version=version(), created=created)


def check_report_path(path: Path) -> None:
    """Check that a report can be written, before a scan that may take an hour.

    Args:
        path: Path of the report.

    Raises:
        ReportNotWritten: Its suffix is neither `.html` nor `.json`, or the file cannot be written.
    """
    if path.suffix.lower() not in (".html", ".json"):
        raise ReportNotWritten(path, "its name ends neither in .html nor in .json")
    try:
        check_writable(path)
    except OSError as error:
        raise ReportNotWritten(path, os_reason(error)) from error


def write_report(path: Path, report: Report) -> None:
    """Write a report.

    Args:
        path: Path that ends in `.html` or `.json`.
        report: The report.

    Raises:
        ReportNotWritten: The file cannot be written.
    """
    if path.suffix.lower() == ".html":
        text = html_report(report)
    else:
        text = json.dumps(report.to_dict(), allow_nan=False) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ReportNotWritten(path, os_reason(error)) from error
