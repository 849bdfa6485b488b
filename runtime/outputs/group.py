"""All outputs of one run of the monitor, opened and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from runtime.messages import HelloMessage, Thresholds
from runtime.model.bundle import Bundle
from runtime.outputs.annotated_video.video import AnnotatedStream, AnnotatedVideo
from runtime.outputs.evidence.manifest import ModelFacts
from runtime.outputs.evidence.recorder import EvidenceRecorder
from runtime.outputs.evidence.routes import event_routes
from runtime.outputs.evidence.store import EvidenceStore
from runtime.outputs.interface import Output
from runtime.outputs.jsonl import JsonlWriter
from runtime.outputs.mqtt import Mqtt
from runtime.outputs.options import EvidenceOptions, OutputOptions
from runtime.outputs.webhook import Webhook
from runtime.pipeline.stream_thread import FrameSink, ScoredFrame
from runtime.serving.http.exchange import Route
from streams.input.clips.packet_ring import RingLimits

POLL_S = 0.02


class OutputGroup:
    """Open outputs.

    Args:
        options: Which outputs, and theirs.
        hello: First message for clients; its version, session and engine become part of the evidence.
        bundle: The model.
        on_closed: Called from any thread when the reader of standard output has left.

    Attributes:
        outputs: All open outputs; each is a sink of the broadcaster.
        recording: The JSON Lines output; None if there is none.
        evidence: The evidence output; None if there is none.

    Raises:
        JsonlFailed: The recording cannot be opened.
        EvidenceFailed: The folder for evidence cannot be used.
        VideoNotWritten: The annotated video cannot be created.
        ExtraMissing: An optional library is not installed.
    """

    def __init__(
        self, options: OutputOptions, *, hello: HelloMessage, bundle: Bundle, on_closed: Callable[[], None]
    ) -> None:
        self.recording: JsonlWriter | None = None
        self.evidence: EvidenceRecorder | None = None
        self.outputs: list[Output] = []
        self._frame_sinks: list[FrameSink] = []
        # Those that may fail to open come first; none of them has a thread of its own until it is open.
        if options.evidence is not None:
            self.evidence = _evidence(options.evidence, hello, bundle)
            self.outputs.append(self.evidence)
            self._frame_sinks.append(self.evidence.on_frame)
        if options.annotate is not None:
            video = AnnotatedVideo(options.annotate, _thresholds(hello, bundle), sample_hz=bundle.sample_hz)
            annotated = AnnotatedStream(video)
            self.outputs.append(annotated)
            self._frame_sinks.append(annotated.on_frame)
        if options.jsonl is not None:
            self.recording = JsonlWriter(options.jsonl, on_closed=on_closed, rotation=options.rotation)
            self.outputs.append(self.recording)
        if options.mqtt is not None:
            self.outputs.append(Mqtt(options.mqtt))
        if options.webhook is not None:
            self.outputs.append(Webhook(options.webhook))

    @property
    def closed(self) -> bool:
        """Whether the reader of standard output has left, for whom the program was run."""
        return self.recording is not None and self.recording.closed

    @property
    def ring_limits(self) -> RingLimits | None:
        """Limits of the packets that the sources should keep; None to keep none."""
        return None if self.evidence is None else self.evidence.ring_limits

    @property
    def routes(self) -> list[Route]:
        """HTTP routes of the outputs: the list of events, and their files."""
        return event_routes(None if self.evidence is None else self.evidence.store)

    def on_frame(self, scored: ScoredFrame) -> None:
        """Pass a scored frame to the outputs that need it; returns at once."""
        for sink in self._frame_sinks:
            sink(scored)

    async def close(self, *, patience_s: float, hurry_s: float, hurry: Callable[[], bool]) -> None:
        """Wait until everything is written or sent, and close all outputs at the same time.

        Args:
            patience_s: Longest time in seconds to wait.
            hurry_s: Time in seconds that is left once `hurry` returns true.
            hurry: Function that returns whether a signal has ended the program.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while not _finished(self.outputs) and not hurry() and loop.time() < deadline:
            await asyncio.sleep(POLL_S)
        rest_s = hurry_s if hurry() else 0.0
        await asyncio.gather(*(asyncio.to_thread(output.close, timeout_s=rest_s) for output in self.outputs))


def _finished(outputs: Sequence[Output]) -> bool:
    # All of them are asked, because that is what makes each accept no more.
    finished = [output.finish() for output in outputs]
    return all(finished)


def _thresholds(hello: HelloMessage, bundle: Bundle) -> Thresholds:
    """Return the thresholds of the program, which may differ from the model's."""
    calibration = bundle.calibration
    return hello.thresholds or Thresholds(real=calibration.threshold_real, fake=calibration.threshold_fake)


def _evidence(options: EvidenceOptions, hello: HelloMessage, bundle: Bundle) -> EvidenceRecorder:
    thresholds = _thresholds(hello, bundle)
    model = ModelFacts(
        name=bundle.name,
        sha256=bundle.digest,
        engine=hello.engine or "",
        threshold_real=thresholds.real,
        threshold_fake=thresholds.fake,
        hysteresis=bundle.calibration.hysteresis,
        version=hello.version,
        session=hello.session,
    )
    return EvidenceRecorder(EvidenceStore(options.folder, options.store), options.events, model)
