"""One WebRTC sender: a peer connection whose video goes to the inlet of a source."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiortc.rtcrtpreceiver
import av
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import get_decoder
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from runtime.serving.whip.limits import SenderLimits
from streams.input.pushed.inlet import FrameInlet, PushedFrame

__all__ = ["OfferInvalid", "Sender"]

logger = logging.getLogger(__name__)

# A sender that has not sent a frame by then cannot reach this machine.
FIRST_FRAME_TIMEOUT_S = 15.0
# Without frames for this long, another sender may take its place.
IDLE_S = 3.0

for _library in ("aiortc", "aioice"):
    # They log lost packets, which a sender causes at will.
    logging.getLogger(_library).setLevel(logging.ERROR)


# Larger than what is accepted, so that the frames of an ordinary sender are refused with their size.
DECODED_PIXELS = 8192 * 4352
# Each section and each candidate opens sockets or starts checks; a browser sends one section for one track.
MAX_SECTIONS = 8
MAX_CANDIDATES = 64


class OfferInvalid(ValueError):
    """A session description from which no video can be received."""


class Sender:
    """WebRTC sender of one source.

    Args:
        inlet: Receives the frames.
        name: Name of the stream, for the log.
        stun: Addresses of STUN servers, `stun:HOST:PORT`; default: none.
        on_end: Called on the event loop once the sender has ended.
    """

    def __init__(
        self, inlet: FrameInlet, *, name: str, stun: Sequence[str], on_end: Callable[[], None]
    ) -> None:
        self._inlet = inlet
        self._name = name
        self._on_end = on_end
        self._started_s = self._last_frame_s = time.monotonic()
        self._number: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        # An empty list, because aiortc asks a public STUN server if there is none.
        servers = [RTCIceServer(urls=list(stun))] if stun else []
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._connection.add_listener("track", self._add_track)
        self._connection.add_listener("connectionstatechange", self._check_state)

    @property
    def idle(self) -> bool:
        """Whether another sender may take its place."""
        return time.monotonic() - self._last_frame_s > IDLE_S

    async def answer(self, offer: str) -> str:
        """Return the answer to an offer, both as SDP.

        Raises:
            OfferInvalid: The offer is malformed, or has no video that can be decoded.
        """
        if offer.count("\nm=") > MAX_SECTIONS or offer.count("a=candidate:") > MAX_CANDIDATES:
            raise OfferInvalid("the offer has too many sections or candidates")
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
            for transceiver in self._connection.getTransceivers():
                track = transceiver.receiver.track
                wanted = self._task is not None and track is not None and track.id == self._task.get_name()
                transceiver.direction = "recvonly" if wanted else "inactive"
            if self._task is not None:
                await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:  # noqa: BLE001  the parser raises whatever the text causes
            raise OfferInvalid(f"the offer cannot be used ({type(error).__name__})") from None
        if self._task is None:
            raise OfferInvalid("the offer contains no video")
        return self._connection.localDescription.sdp

    async def close(self) -> None:
        """End the connection; return once it has ended, whoever began to end it."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        # A request that is cancelled must not leave the connection half closed.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._number is not None:
            self._inlet.end(self._number)
        if self._task is not None:
            self._task.cancel()
        try:
            await self._connection.close()
        finally:
            self._on_end()

    def _add_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "video" and self._task is None:
            self._task = asyncio.create_task(self._receive(track), name=track.id)

    async def _check_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            await self.close()

    async def _receive(self, track: MediaStreamTrack) -> None:
        limits = SenderLimits()
        try:
            while True:
                timeout_s = FIRST_FRAME_TIMEOUT_S if self._number is None else None
                async with asyncio.timeout(timeout_s):
                    image: Any = await track.recv()
                now_s = self._last_frame_s = time.monotonic()
                pts_s = float(image.pts * image.time_base)
                reason = limits.violation(
                    width=image.width, height=image.height, arrival_s=now_s, pts_s=pts_s
                )
                if reason is not None:
                    logger.warning("%s: the sender is disconnected: %s", self._name, reason)
                    break
                if self._number is None:
                    self._number = self._inlet.begin()
                self._inlet.push(self._number, PushedFrame(image, now_s))
        except MediaStreamError:
            logger.debug("%s: the sender has left", self._name)
        except TimeoutError:
            logger.warning(
                "%s: no video that can be decoded arrived; check firewalls (UDP) and the sender's settings",
                self._name,
            )
        except Exception:
            logger.exception("%s: internal error; the sender is disconnected", self._name)
        await self.close()


def _limited_decoder(codec: Any) -> Any:
    """Create aiortc's decoder with a limit on the size of a frame, checked before memory is allocated."""
    decoder: Any = get_decoder(codec)
    names = {"video/vp8": "vp8", "video/h264": "h264"}
    if name := names.get(codec.mimeType.lower()):
        # libvpx, which aiortc uses for VP8, checks no limit of FFmpeg's before it decodes.
        decoder.codec = av.CodecContext.create(name, "r")
        decoder.codec.options = {"max_pixels": str(DECODED_PIXELS)}
        decoder.codec.thread_count = 1
    return decoder


# aiortc has no setting for it.
setattr(aiortc.rtcrtpreceiver, "get_decoder", _limited_decoder)  # noqa: B010
