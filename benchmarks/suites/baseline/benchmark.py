"""What a verdict costs in CPU time: the original method and unmask on the same video, in the same run.

Between the two stand the steps that anyone would try first, so that each gain has a line of its own. Each
line is one method, and its cost has two parts: finding and cutting out the faces, with decoding, and the
network.

    original                       dlib in each of 80 frames, the clip of 80 through PyTorch
    without dlib                   the same, but faces found and followed as unmask does
    without dlib, torch.compile    that, and the network compiled
    without dlib, onnxruntime      the same with the clip through onnxruntime instead
    feature buffer alone           the original, but only the new frame goes through dlib and ResNeXt-50
    unmask                         all of it: its own faces, its smaller head, the buffer, its engine

The methods of 80 frames are charged for those 80 frames; unmask is charged for all that lies between two
verdicts, decoding of frames between samples included, at the model's own rate of samples (`sample_hz`), not
at a rate that would suit it. CPU time is that of the whole process, all threads. Where a video shows several
faces, the original looks at the first, unmask is charged for all of them, and they count as one verdict.
"""

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
from rich.console import Console

from benchmarks.harness.errors import NothingMeasured, SettingInvalid
from benchmarks.harness.record import Figure, Output, new_record, new_table, quantity
from benchmarks.suites.baseline.original_method import (
    CLIP,
    Crops,
    FaceDecision,
    HogFaces,
    Network,
    pictures,
    whole_clip,
)
from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.stream_analysis import StreamAnalysis
from streams.errors import EndOfStream
from streams.faces.crop import crop_face
from streams.faces.detector import Detector, Infer
from streams.faces.finder import FaceFinder
from streams.input.frame import Frame
from streams.input.reader import open_reader
from streams.input.source import Source, parse_source

# Calls of our own network in one repetition: one alone is too short for the clock.
NETWORK_CALLS = 20

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """Holds what one method costs.

    Args:
        name: For people.
        faces_s: CPU seconds a verdict for decoding and faces, in each repetition.
        network_s: The same for the network.
        verdicts_hz: Verdicts in a second of video.
    """

    name: str
    faces_s: Sequence[float]
    network_s: Sequence[float]
    verdicts_hz: float

    @property
    def total_s(self) -> list[float]:
        """CPU seconds a verdict, in each repetition."""
        return [faces + network for faces, network in zip(self.faces_s, self.network_s, strict=True)]

    @property
    def per_verdict_s(self) -> float:
        """The median of `total_s`."""
        return statistics.median(self.total_s)

    @property
    def per_network_s(self) -> float:
        """The median of `network_s`."""
        return statistics.median(self.network_s)

    def figures(self) -> dict[str, Figure]:
        """Give the figures under the method's name."""
        return {
            f"{self.name}: CPU a verdict": quantity(self.total_s, "s"),
            f"{self.name}: CPU a verdict, faces": quantity(self.faces_s, "s"),
            f"{self.name}: CPU a verdict, network": quantity(self.network_s, "s"),
            f"{self.name}: CPU a second of video": quantity(
                [spent * self.verdicts_hz for spent in self.total_s], "s"
            ),
        }


def run_baseline(
    video: str,
    *,
    repeats: int = 3,
    compiled: bool = True,
    model: Path | None = None,
    engine: str = "auto",
    json_out: Path | None = None,
    compare: Path | None = None,
) -> int:
    """Measure, print a table and write a record.

    Args:
        video: A video file of at least 80 frames, with a face.
        repeats: How often each part is measured; of dlib, in how many parts the frames are taken.
        compiled: Whether to try `torch.compile` too, which takes a minute to compile.
        model: The bundle's directory; None for the one that ships with unmask.
        engine: As for `open_engine`.
        json_out: Where to write the record; None for nowhere.
        compare: An earlier record to hold this one against; None for none.

    Returns:
        The exit code.

    Raises:
        BenchmarkError: The video is too short or has no face, or a record cannot be written or read.
        ModuleNotFoundError: The extra `bench` is not installed.
        SourceError: The video cannot be read.
        UnmaskError: The model or the engine cannot be used.
    """
    output = Output("baseline", json_out=json_out, compare=compare)
    source = parse_source(video)
    if source.kind != "file":
        raise SettingInvalid("VIDEO", video, "is not a file; the original method has no other input")
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    bundle = load_bundle(model)
    bench = _Bench(source, bundle, repeats, console.print)
    with open_engine(bundle, engine) as running:
        # First: a video without a face should not take minutes to say so.
        ours = bench.unmask(running, detector_infer(engine))
        described = running.describe()
    methods = [*bench.originals(detector_infer(engine), engine, compiled=compiled), ours]
    record = new_record(
        "baseline",
        settings={"source": source.spec, "repeats": repeats, "sample_hz": bundle.sample_hz},
        figures={name: figure for method in methods for name, figure in method.figures().items()},
        warmup="one run of each network; ours from its first verdict on",
        bundle=bundle,
        engine=described,
        notes=bench.notes,
        video={"width": bench.width, "height": bench.height, "fps": round(float(bench.fps), 3)},
        dlib_faces=bench.dlib_faces,
    )
    original = methods[0]
    ratios = {
        "ratio_cpu_per_video_second": _ratio(
            original.per_verdict_s * original.verdicts_hz, ours.per_verdict_s * ours.verdicts_hz
        ),
        "ratio_cpu_network": _ratio(original.per_network_s, ours.per_network_s),
        "ratio_cpu_per_verdict": _ratio(original.per_verdict_s, ours.per_verdict_s),
    }
    columns = ("faces", "network", "a verdict", "verdicts/s", "a second of video", "network x", "verdict x")
    table = new_table("CPU seconds", columns)
    for method in methods:
        table.add_row(
            method.name,
            f"{statistics.median(method.faces_s):.4f}",
            f"{method.per_network_s:.4f}",
            f"{method.per_verdict_s:.4f}",
            f"{method.verdicts_hz:.2f}",
            f"{method.per_verdict_s * method.verdicts_hz:.3f}",
            f"{_ratio(original.per_network_s, method.per_network_s):.1f}",
            f"{_ratio(original.per_verdict_s, method.per_verdict_s):.1f}",
        )
    output.finish({**record, **ratios}, table)
    return 0


def _ratio(original_s: float, ours_s: float) -> float:
    return round(original_s / ours_s, 1)


class _Bench:
    """Measures the methods on one video."""

    def __init__(self, source: Source, bundle: Bundle, repeats: int, temporal_features: Tell) -> None:
        self._source = source
        self._bundle = bundle
        self._repeats = repeats
        self._tell = temporal_features
        self.notes = [
            f"{CLIP} frames make one verdict of the original; unmask gives {bundle.sample_hz:g} a second"
        ]
        self.dlib_faces = 0
        # Before anything is measured: it may not be installed.
        self._hog_faces = HogFaces()
        temporal_features("decoding")
        decode_s = []
        for _ in range(repeats):
            started = time.process_time()
            self._pictures = list(pictures(source, CLIP))
            decode_s.append((time.process_time() - started) / CLIP)
        self._decode_s = decode_s
        self.width, self.height = self._pictures[0].width, self._pictures[0].height
        self.fps = _frame_rate(source)

    @property
    def _clip_hz(self) -> float:
        return float(self.fps / CLIP)

    def unmask(self, engine: Engine, infer: Infer) -> MethodCost:
        """Measure unmask as `monitor` runs it, only without waiting for the video's own pace."""
        self._tell("unmask")
        network = self._own_network(engine)
        total = [self._pass(engine, infer) for _ in range(self._repeats)]
        # What is not the network: decoding, faces, and all that holds them together.
        faces = [max(0.0, whole - part) for whole, part in zip(total, network, strict=True)]
        return MethodCost(name="unmask", faces_s=faces, network_s=network, verdicts_hz=self._bundle.sample_hz)

    def originals(self, infer: Infer, engine: str, *, compiled: bool) -> list[MethodCost]:
        """Measure the original method and the steps between it and ours."""
        hog, clip = self._hog()
        finder = self._finder(infer)
        self._tell("PyTorch, the whole clip")
        network = Network.random()
        eager = self._cpu_s(network.eager(clip))
        methods = [
            self._clip_method("original", hog, eager),
            self._clip_method("without dlib", finder, eager),
        ]
        if compiled and (spent := self._compiled(network, clip)) is not None:
            methods.append(self._clip_method("without dlib, torch.compile", finder, spent))
        self._tell("onnxruntime, the whole clip")
        with tempfile.TemporaryDirectory() as folder:
            bundle = network.bundle(Path(folder))
            with open_engine(bundle, "onnxruntime") as running:
                spent = self._cpu_s(lambda: running.logits(running.features(clip)[None]))
        methods.append(self._clip_method("without dlib, onnxruntime", finder, spent))
        self._tell("PyTorch, the new crop only")
        one = self._cpu_s(network.new_crop(clip), calls=2)
        frames = float(self.fps) / self._bundle.sample_hz
        faces = [found / CLIP + decode * frames for found, decode in zip(hog, self._decode_s, strict=True)]
        methods.append(
            MethodCost(
                name="feature buffer alone",
                faces_s=faces,
                network_s=one,
                verdicts_hz=self._bundle.sample_hz,
            )
        )
        return methods

    def _clip_method(self, name: str, faces_s: Sequence[float], network_s: Sequence[float]) -> MethodCost:
        decoded = [spent + decode * CLIP for spent, decode in zip(faces_s, self._decode_s, strict=True)]
        return MethodCost(name=name, faces_s=decoded, network_s=network_s, verdicts_hz=self._clip_hz)

    def _hog(self) -> tuple[list[float], Crops]:
        """Find the faces of 80 frames with dlib; the CPU seconds for 80 as told by each part of them."""
        self._tell(f"dlib in {CLIP} frames of {self.width}x{self.height}")
        spent, crops = [], []
        for picture in self._pictures:
            started = time.process_time()
            crop = self._hog_faces.crop(picture)
            spent.append(time.process_time() - started)
            if crop is not None:
                crops.append(crop)
        self.dlib_faces = len(crops)
        if len(crops) < CLIP:
            self.notes.append(
                f"dlib found a face in {len(crops)} of {CLIP} frames; the clip repeats those, and the frames "
                "that the original would go on to search are not charged"
            )
        # Each part takes its frames from all over the clip.
        parts = [spent[number :: self._repeats] for number in range(self._repeats)]
        return [CLIP * statistics.fmean(part) for part in parts], whole_clip(crops)

    def _finder(self, infer: Infer) -> list[float]:
        """Find and cut out the faces of the same 80 frames as unmask does; CPU seconds for all."""
        self._tell(f"our faces in the same {CLIP} frames")
        spent = []
        for _ in range(self._repeats):
            finder = FaceFinder(Detector(infer))
            started = time.process_time()
            for index, picture in enumerate(self._pictures):
                frame = Frame(
                    image=picture,
                    pts=index,
                    time_base=1 / self.fps,
                    captured=None,
                    decode_ms=0.0,
                    connection=1,
                    segment=1,
                )
                for face in finder.find(frame)[:1]:
                    crop_face(
                        picture, face.box, size=self._bundle.input_size, margin=self._bundle.crop_margin
                    )
            spent.append(time.process_time() - started)
        return spent

    def _compiled(self, network: Network, clip: Crops) -> list[float] | None:
        self._tell("torch.compile, the whole clip (compiling takes a while)")
        try:
            judge = network.compiled(clip)
        except Exception as error:  # noqa: BLE001  a compiler fails in many ways; that is a result too
            line = " ".join(str(error).split())[:120]
            self.notes.append(f"torch.compile does not work here: {type(error).__name__}: {line}")
            return None
        return self._cpu_s(judge)

    def _own_network(self, engine: Engine) -> list[float]:
        rng = np.random.default_rng(0)
        size = self._bundle.input_size
        crop = rng.integers(0, 256, (1, size, size, 3), np.uint8)
        window = rng.standard_normal((1, self._bundle.window, self._bundle.feature_dim), np.float32)

        def judge() -> None:
            engine.features(crop)
            engine.logits(window)

        return self._cpu_s(judge, calls=NETWORK_CALLS)

    def _cpu_s(self, call: FaceDecision, *, calls: int = 1) -> list[float]:
        """Give the CPU seconds of a call, after one to warm up, in each repetition."""
        call()
        spent = []
        for _ in range(self._repeats):
            started = time.process_time()
            for _ in range(calls):
                call()
            spent.append((time.process_time() - started) / calls)
        return spent

    def _pass(self, engine: Engine, infer: Infer) -> float:
        """Go through the video once; CPU seconds a verdict, from the first one on."""
        bundle = self._bundle
        started = ended = 0.0
        verdicts = 0
        with ExitStack() as stack:
            batcher = stack.enter_context(Batcher(engine.features))
            finder = FaceFinder(Detector(infer))
            analysis = StreamAnalysis(bundle, head=engine, features=batcher, finder=finder)
            reader = stack.enter_context(
                open_reader(self._source, sample_hz=bundle.sample_hz, on_event=lambda event: None)
            )
            while True:
                try:
                    frame = reader.next(timeout_s=10.0)
                except EndOfStream as end:
                    if end.__cause__ is not None:
                        raise end.__cause__ from None
                    break
                if frame is None:
                    continue
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
