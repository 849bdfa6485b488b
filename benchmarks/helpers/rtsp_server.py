"""RTSP camera for tests and benchmarks: serves the frames of an H.264 or H.265 file in a loop at /cam.

It runs under the system's Python, which has Debian's GStreamer bindings, and prints its port once it listens:

    /usr/bin/python3 benchmarks/helpers/rtsp_server.py clip.mp4 --user ada --password secret --auth digest

Like a camera it is one running stream in real time: a client that connects late starts in the middle. With
several files of one codec, a line with a number on standard input changes to that file.
"""

from __future__ import annotations

import argparse
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

ROLE = "viewer"
TIMEOUT_NS = 10 * Gst.SECOND


class Clip:
    """Encoded frames of a file, in decoding order, read once."""

    def __init__(self, path: str, codec: str) -> None:
        pipeline = Gst.parse_launch(
            f"filesrc name=file ! parsebin ! {codec}parse "
            f"! video/x-{codec},stream-format=byte-stream,alignment=au ! appsink name=sink sync=false"
        )
        pipeline.get_by_name("file").set_property("location", path)
        sink = pipeline.get_by_name("sink")
        pipeline.set_state(Gst.State.PLAYING)
        self.caps = None
        self.frames = []
        while sample := sink.emit("try-pull-sample", TIMEOUT_NS):
            self.caps = sample.get_caps()
            self.frames.append(sample.get_buffer())
        pipeline.set_state(Gst.State.NULL)
        if not self.frames:
            raise SystemExit(f"no {codec} frames in {path}")
        start = min(frame.pts for frame in self.frames)
        end = max(frame.pts + frame.duration for frame in self.frames)
        self.length_ns = end - start
        # With B-frames the first decoding time is before the first presentation time, and none may be
        # negative.
        self.start_ns = min([start, *(frame.dts for frame in self.frames)])

    def frame(self, index: int, start_ns: int) -> Gst.Buffer:
        """Return a frame, with the time stamps of a round that starts at the given time."""
        frame = self.frames[index].copy_deep()
        shift = start_ns - self.start_ns
        frame.pts += shift
        frame.dts = frame.dts + shift if frame.dts != Gst.CLOCK_TIME_NONE else Gst.CLOCK_TIME_NONE
        return frame


class Camera(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """Factory of the one running stream that all clients share."""

    def __init__(self, clips: list[Clip], codec: str, *, headers_per_slice: bool) -> None:
        super().__init__()
        self.clips = clips
        self.number = 0
        self.set_shared(True)
        self.set_launch(
            "( appsrc name=source format=time max-buffers=4 max-bytes=0 max-time=0 "
            f"! {codec}parse config-interval={0 if headers_per_slice else -1} "
            f"! video/x-{codec},stream-format=byte-stream,alignment=au "
            f"! rtp{codec}pay name=pay0 pt=96 config-interval={-1 if headers_per_slice else 0} )"
        )
        self.connect("media-configure", self.configure)

    def configure(self, _factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name_recurse_up("source")
        clip, index, start_ns = self.clips[self.number], 0, 0
        source.set_property("caps", clip.caps)

        def feed(appsrc: Gst.Element, _wanted: int) -> None:
            nonlocal clip, index, start_ns
            if index == len(clip.frames):
                index, start_ns = 0, start_ns + clip.length_ns
            wanted = self.clips[self.number]
            if wanted is not clip:
                # Each file begins with a keyframe, so the change can come at any time.
                start_ns += index * clip.length_ns // len(clip.frames)
                clip, index = wanted, 0
                appsrc.set_property("caps", clip.caps)
            appsrc.emit("push-buffer", clip.frame(index, start_ns))
            index += 1

        source.connect("need-data", feed)


def guard(server: GstRtspServer.RTSPServer, camera: Camera, scheme: str, user: str, password: str) -> None:
    """Require the credentials of this user."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", ROLE)
    auth = GstRtspServer.RTSPAuth()
    if scheme == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role(ROLE, "media.factory.access", True)
    permissions.add_permission_for_role(ROLE, "media.factory.construct", True)
    camera.set_permissions(permissions)


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--codec", choices=["h264", "h265"], default="h264")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--auth", choices=["none", "basic", "digest"], default="none")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument(
        "--headers-per-slice", action="store_true", help="as rtph264pay config-interval=-1 does"
    )
    options = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    clips = [Clip(path, options.codec) for path in options.clips]
    camera = Camera(clips, options.codec, headers_per_slice=options.headers_per_slice)
    if options.auth != "none":
        guard(server, camera, options.auth, options.user, options.password)
    server.get_mount_points().add_factory("/cam", camera)
    if not server.attach(None):
        raise SystemExit(f"port {options.port} is taken")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()

    def read_commands() -> None:
        for line in sys.stdin:
            camera.number = int(line)

    threading.Thread(target=read_commands, daemon=True).start()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
