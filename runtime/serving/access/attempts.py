"""Failed attempts to present a token, counted by address in a bounded table. No I/O and no clock."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

CAPACITY = 1024
# Failures before an address has to wait; a person mistypes, a program repeats an old token.
FREE_FAILURES = 5
MIN_WAIT_S = 1.0
MAX_WAIT_S = 30.0
# After this time without a failure, the failures of an address are forgotten.
FORGET_S = 600.0


@dataclass(slots=True)
class _Failures:
    count: int
    last_s: float
    blocked_until_s: float


class Attempts:
    """Table of failed attempts: after a few, an address waits, each time twice as long up to `MAX_WAIT_S`.

    An IPv6 address counts with its whole /64, of which one client can use every address. When the table is
    full, the address whose last failure is the longest ago is dropped.

    Args:
        capacity: Maximum number of addresses in the table.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def wait_s(self, address: str, now: float) -> float:
        """Return the seconds until the next attempt of an address is examined; 0 if it may try now.

        Args:
            address: IP address.
            now: Monotonic time in seconds.
        """
        failures = self._failures.get(_network(address))
        return 0.0 if failures is None else max(0.0, failures.blocked_until_s - now)

    def failed(self, address: str, now: float) -> None:
        """Count a failed attempt.

        Args:
            address: IP address.
            now: Monotonic time in seconds.
        """
        network = _network(address)
        previous = self._failures.pop(network, None)
        count = 1 if previous is None or now - previous.last_s > FORGET_S else previous.count + 1
        # The exponent is limited, because a float overflows.
        doublings = min(count - FREE_FAILURES, 16)
        wait_s = min(MIN_WAIT_S * 2**doublings, MAX_WAIT_S) if doublings >= 0 else 0.0
        self._failures[network] = _Failures(count, now, now + wait_s)
        while len(self._failures) > self._capacity:
            self._failures.popitem(last=False)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
