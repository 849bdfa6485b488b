"""Printing of the findings of `unmask doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from runtime.commands.doctor.finding import Finding
from streams.text import printable

MARKS = {"ok": "ok", "optional": "--", "problem": "!!"}


def run_doctor(host: str, port: int, *, as_json: bool) -> int:
    """Check this machine and print one line for each finding.

    Args:
        host: Address on which the server would listen.
        port: Its port.
        as_json: Whether to print lines of JSON.

    Returns:
        Exit code: 2 if unmask cannot work here, else 0.
    """
    from runtime.commands.doctor.inputs import input_findings
    from runtime.commands.doctor.machine import machine_findings

    problems = 0
    for findings in (machine_findings(host, port), input_findings()):
        for line, finding in _lines(findings, as_json=as_json):
            problems += finding.level == "problem"
            print(line, flush=True)  # noqa: T201
    return 2 if problems else 0


def _lines(findings: Iterable[Finding], *, as_json: bool) -> Iterable[tuple[str, Finding]]:
    for finding in findings:
        if as_json:
            yield json.dumps(asdict(finding)), finding
        else:
            # Names of cameras come from the devices.
            text = printable(f"{finding.text}; {finding.advice}", 1000)
            yield f"{MARKS[finding.level]} {finding.subject + ':':16}{text}", finding
