"""Measurement of the CPU time of each method on one video."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.harness.benchmark_record import Figure, quantity
from benchmarks.harness.errors import NothingMeasured
from benchmarks.helpers.samples import file_samples
from benchmarks.suites.baseline.original_method import (
    CLIP,
    Crops,
    HogFaces,
    OriginalNetwork,
    ScoreClip,
    first_frames,
    whole_clip,
)
from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.model.bundle import Bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.stream_analysis import StreamAnalysis
from streams.faces.crop import crop_face
from streams.faces.detector import Detector, Infer
from streams.faces.finder import FaceFinder
from streams.input.frame import Frame
from streams.input.source import Source

# Calls of unmask's network in one repetition: one alone is too short for the clock.
NETWORK_CALLS = 20

ReportStep = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """CPU time of one method.

    Args:
        name: Name for the table.
        faces_s: CPU seconds per verdict for decoding and faces, in each repetition.
        network_s: CPU seconds per verdict for the network, in each repetition.
        verdicts_hz: Verdicts per second of video.
    """

    name: str
    faces_s: Sequence[float]
    network_s: Sequence[float]
    verdicts_hz: float

    @property
    def total_s(self) -> list[float]:
        """CPU seconds per verdict, in each repetition."""
        return [faces + network for faces, network in zip(self.faces_s, self.network_s, strict=True)]

    @property
    def per_verdict_s(self) -> float:
        """Median of `total_s`."""
        return statistics.median(self.total_s)

    @property
    def per_network_s(self) -> float:
        """Median of `network_s`."""
        return statistics.median(self.network_s)

    def figures(self) -> dict[str, Figure]:
        """Return the figures under the name of the method."""
        return {
            f"{self.name}: CPU a verdict": quantity(self.total_s, "s"),
            f"{self.name}: CPU a verdict, faces": quantity(self.faces_s, "s"),
            f"{self.name}: CPU a verdict, network": quantity(self.network_s, "s"),
            f"{self.name}: CPU a second of video": quantity(
                [spent * self.verdicts_hz for spent in self.total_s], "s"
            ),
        }


class MethodBench:
    """CPU time of the methods on one video.

    Args:
        source: Video file.
        bundle: Model bundle of unmask.
        repeats: Number of repetitions.
        step: Called with a description of each step.

    Raises:
        VideoTooShort: The video has too few frames.
        ModuleNotFoundError: dlib is not installed.
    """

    def __init__(self, source: Source, bundle: Bundle, repeats: int, step: ReportStep) -> None:
        self._source = source
        self._bundle = bundle
        self._repeats = repeats
        self._step = step
        self.notes = [
            f"the original needs {CLIP} frames a verdict; unmask gives {bundle.sample_hz:g} verdicts a second"
        ]
        self.dlib_faces = 0
        # Created before the measurements, as dlib may not be installed.
        self._hog_faces = HogFaces()
        step("decoding")
        decode_s = []
        for _ in range(repeats):
            started = time.process_time()
            self._frames = list(first_frames(source, CLIP))
            decode_s.append((time.process_time() - started) / CLIP)
        self._decode_s = decode_s
        self.width, self.height = self._frames[0].width, self._frames[0].height
        self.fps = _frame_rate(source)

    @property
    def _clip_hz(self) -> float:
        return float(self.fps / CLIP)

    def unmask(self, engine: Engine, infer: Infer) -> MethodCost:
        """Measure unmask as `monitor` runs it, but as fast as it can."""
        self._step("unmask")
        alone = self._unmask_network(engine)
        total = [self._analyse_video(engine, infer) for _ in range(self._repeats)]
        # Alone, the network may take longer than in the pipeline, but a verdict costs no more than `total`.
        network = [min(whole, part) for whole, part in zip(total, alone, strict=True)]
        # Everything but the network: decoding, faces and the rest of the pipeline.
        faces = [whole - part for whole, part in zip(total, network, strict=True)]
        return MethodCost(name="unmask", faces_s=faces, network_s=network, verdicts_hz=self._bundle.sample_hz)

    def originals(self, infer: Infer, *, compiled: bool) -> list[MethodCost]:
        """Measure the original method and the steps between it and unmask."""
        hog, clip = self._hog()
        finder = self._finder(infer)
        self._step("PyTorch, the whole clip")
        network = OriginalNetwork.random()
        eager = self._cpu_s(network.eager(clip))
        methods = [
            self._clip_method("original", hog, eager),
            self._clip_method("without dlib", finder, eager),
        ]
        if compiled and (spent := self._compiled(network, clip)) is not None:
            methods.append(self._clip_method("without dlib, torch.compile", finder, spent))
        self._step("onnxruntime, the whole clip")
        with tempfile.TemporaryDirectory() as folder:
            bundle = network.bundle(Path(folder))
            with open_engine(bundle, "onnxruntime") as running:
                spent = self._cpu_s(lambda: running.logits(running.features(clip)[None]))
        methods.append(self._clip_method("without dlib, onnxruntime", finder, spent))
        self._step("PyTorch, the new crop only")
        new_crop_s = self._cpu_s(network.new_crop(clip), calls=2)
        frames = float(self.fps) / self._bundle.sample_hz
        faces = [
            hog_s / CLIP + decode_s * frames for hog_s, decode_s in zip(hog, self._decode_s, strict=True)
        ]
        methods.append(
            MethodCost(
                name="feature buffer alone",
                faces_s=faces,
                network_s=new_crop_s,
                verdicts_hz=self._bundle.sample_hz,
            )
        )
        return methods

    def _clip_method(self, name: str, faces_s: Sequence[float], network_s: Sequence[float]) -> MethodCost:
        decoded = [spent + decode * CLIP for spent, decode in zip(faces_s, self._decode_s, strict=True)]
        return MethodCost(name=name, faces_s=decoded, network_s=network_s, verdicts_hz=self._clip_hz)

    def _hog(self) -> tuple[list[float], Crops]:
        """Find the faces of 80 frames with dlib; return the CPU seconds of each part, and the clip."""
        self._step(f"dlib in {CLIP} frames of {self.width}x{self.height}")
        spent, crops = [], []
        for frame in self._frames:
            started = time.process_time()
            crop = self._hog_faces.crop(frame)
            spent.append(time.process_time() - started)
            if crop is not None:
                crops.append(crop)
        self.dlib_faces = len(crops)
        if len(crops) < CLIP:
            self.notes.append(
                f"dlib found a face in {len(crops)} of {CLIP} frames; the clip repeats those; the further "
                "frames that the original would search are not charged"
            )
        # The frames of each part are spread over the clip.
        parts = [spent[number :: self._repeats] for number in range(self._repeats)]
        return [CLIP * statistics.fmean(part) for part in parts], whole_clip(crops)

    def _finder(self, infer: Infer) -> list[float]:
        """Find and cut out the faces of the same 80 frames as unmask does; return the CPU seconds for all."""
        self._step(f"faces of unmask in the same {CLIP} frames")
        spent = []
        for _ in range(self._repeats):
            finder = FaceFinder(Detector(infer))
            started = time.process_time()
            for index, image in enumerate(self._frames):
                frame = Frame(
                    image=image,
                    pts=index,
                    time_base=1 / self.fps,
                    captured=None,
                    decode_ms=0.0,
                    connection=1,
                    segment=1,
                )
                for face in finder.find(frame)[:1]:
                    crop_face(image, face.box, size=self._bundle.input_size, margin=self._bundle.crop_margin)
            spent.append(time.process_time() - started)
        return spent

    def _compiled(self, network: OriginalNetwork, clip: Crops) -> list[float] | None:
        self._step("torch.compile, the whole clip (compiling takes a while)")
        try:
            score = network.compiled(clip)
        except Exception as error:  # noqa: BLE001  any error of the compiler is a result too
            line = " ".join(str(error).split())[:120]
            self.notes.append(f"torch.compile does not work here: {type(error).__name__}: {line}")
            return None
        return self._cpu_s(score)

    def _unmask_network(self, engine: Engine) -> list[float]:
        rng = np.random.default_rng(0)
        size = self._bundle.input_size
        crop = rng.integers(0, 256, (1, size, size, 3), np.uint8)
        window = rng.standard_normal((1, self._bundle.window, self._bundle.feature_dim), np.float32)

        def score() -> None:
            engine.features(crop)
            engine.logits(window)

        # Every sample has a verdict, but not every one new features, and logits are new only with features.
        every = self._bundle.feature_every
        return [spent / every for spent in self._cpu_s(score, calls=NETWORK_CALLS)]

    def _cpu_s(self, call: ScoreClip, *, calls: int = 1) -> list[float]:
        """Return the CPU seconds of a call in each repetition, after one call to warm up."""
        call()
        spent = []
        for _ in range(self._repeats):
            started = time.process_time()
            for _ in range(calls):
                call()
            spent.append((time.process_time() - started) / calls)
        return spent

    def _analyse_video(self, engine: Engine, infer: Infer) -> float:
        """Analyse the video once; return the CPU seconds per verdict, from the first verdict on."""
        bundle = self._bundle
        started = ended = 0.0
        verdicts = 0
        with ExitStack() as stack:
            batcher = stack.enter_context(Batcher(engine.features))
            finder = FaceFinder(Detector(infer))
            analysis = StreamAnalysis(bundle, head=engine, features=batcher, finder=finder)
            for frame in file_samples(self._source, bundle.sample_hz):
                scored = any(verdict.p_fake is not None for verdict in analysis.analyse(frame))
                if scored and not started:
                    started = time.process_time()
                elif scored:
                    verdicts += 1
                    ended = time.process_time()
        if not verdicts:
            raise NothingMeasured(self._source.spec, "no face that could be scored twice")
        return (ended - started) / verdicts


def _frame_rate(source: Source) -> Fraction:
    with av.open(source.address.reveal()) as container:
        stream = container.streams.video[0]
        return Fraction(stream.average_rate or stream.guessed_rate or 25)
