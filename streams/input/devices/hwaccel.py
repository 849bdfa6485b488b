"""Hardware that FFmpeg can decode with."""

from __future__ import annotations

from functools import cache

import av
from av.codec import Codec
from av.codec.hwaccel import HWAccel, hwdevices_available

__all__ = ["check_hwaccel", "find_hwaccels", "hwaccel_problem"]

# A device that decodes any of them is usable; a stream of another format is decoded by the CPU.
_FORMATS = ("h264", "hevc", "mjpeg")
_MISSING = "this machine has no such device, or not its driver"


def check_hwaccel(device: str) -> None:
    """Check the name of a device.

    Args:
        device: Name of FFmpeg's, such as `cuda`.

    Raises:
        ValueError: FFmpeg does not know the name.
    """
    known = hwdevices_available()
    if device not in known:
        raise ValueError(f"hwaccel must be one of {', '.join(known)}, not {device!r}")


@cache
def hwaccel_problem(device: str) -> str | None:
    """Return why a device cannot decode on this machine; None if it can.

    Args:
        device: Name of FFmpeg's.
    """
    reason = ""
    for name in _FORMATS:
        try:
            HWAccel(device, allow_software_fallback=False).create(Codec(name, "r"))
        except NotImplementedError:
            reason = reason or "FFmpeg has no decoder for it"
        # Whatever is missing, FFmpeg reports EPERM, as for a lack of permission.
        except (av.FFmpegError, OSError, ValueError):
            reason = _MISSING
        else:
            return None
    return reason


def find_hwaccels() -> list[str]:
    """Return the devices that can decode on this machine."""
    return [device for device in hwdevices_available() if hwaccel_problem(device) is None]
