"""Report as one self-contained HTML page: no script, no outside request.

A click on the timeline is a link to a frame further down, which the style sheet shows while it is the target.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from runtime.model.bundle import Bundle
from runtime.pipeline.scan_result import FaceScore
from runtime.scan_report.document import Report, ScannedVideo
from runtime.scan_report.timeline import Still, TimelineSample
from runtime.scan_report.wording import LIMITS, reason_text, verdict_text
from streams.text import printable

WIDTH, HEIGHT = 1000, 100
# Points of one curve; of a longer video each point is the highest score of its interval.
MAX_POINTS = 500
# Longest interval between two samples, in sample intervals, that a curve connects.
MAX_STEPS = 4
# Further faces are listed in the table, without a curve.
MAX_CURVES = 8


def html_report(report: Report) -> str:
    """Return a report as an HTML page.

    Args:
        report: Content of the report.
    """
    style = (resources.files("runtime.scan_report") / "report.css").read_text(encoding="utf-8")
    names = [_name(video) for video in report.videos]
    title = names[0] if len(names) == 1 else f"{len(names)} videos"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)} - unmask report</title><style>{style}</style></head>"
    )
    parts = [head, f"<body><main><h1>unmask report: {escape(title)}</h1>"]
    parts.append(f'<p class="dim">Made on {escape(report.created)} by unmask {escape(report.version)}.</p>')
    if len(names) > 1:
        parts.append(_summary(report))
    for index, video in enumerate(report.videos):
        parts += _video(video, report.bundle, prefix=f"v{index}", heading=len(names) > 1)
    parts += ["<h3>Limits</h3>", f"<p>{escape(LIMITS)}</p>", _facts(report), "</main></body></html>\n"]
    return "\n".join(parts)


def _video(video: ScannedVideo, bundle: Bundle, *, prefix: str, heading: bool) -> Iterator[str]:
    result, verdict = video.result, verdict_text(video.result, bundle.calibration)
    yield f'<section id="{prefix}">'
    if heading:
        yield f"<h2>{escape(_name(video))}</h2>"
    yield (
        f'<div class="verdict {verdict.state}"><strong>{escape(verdict.title)}</strong>'
        f"<p>{escape(printable(verdict.text, 1000))}</p>"
        "<p>This is an estimate, not proof; see the limits below.</p></div>"
    )
    yield from _not_scored(video)
    if video.stills:
        yield "<h3>Timeline of p_fake</h3>"
        yield _timeline(video, bundle, prefix)
        yield _still_figures(video.stills, prefix)
    if moments := video.moments:
        yield "<h3>Moments with the highest p_fake</h3>"
        seconds = bundle.window / bundle.sample_hz
        yield f'<p class="dim">Each score rests on up to {seconds:g} s of the face before the moment.</p>'
        yield '<div class="moments">' + "".join(map(_moment, moments)) + "</div>"
    if result.faces:
        yield "<h3>Faces</h3>" + _faces(result.faces, video.stills)
    yield "<h3>File</h3>" + _table(
        [],
        [
            ("name", _name(video)),
            ("size", "unknown" if video.bytes is None else f"{video.bytes:,} bytes"),
            ("SHA-256", video.sha256 or "unknown"),
            ("analysed", f"{result.seconds:.1f} s, {result.frames} frames"),
        ],
    )
    yield "</section>"


def _not_scored(video: ScannedVideo) -> Iterator[str]:
    if not video.not_scored:
        return
    total = len(video.samples)
    shares = [
        f"{reason_text(reason)} ({100 * count / total:.0f} %)"
        for reason, count in video.not_scored.most_common()
    ]
    yield f"<p>Parts without a decision, as a share of all samples: {escape(', '.join(shares))}.</p>"


def _timeline(video: ScannedVideo, bundle: Bundle, prefix: str) -> str:
    """Return the curves of the faces as SVG, with a link to a frame for each interval."""
    end_s = max(video.stills[-1].end_s, video.result.seconds)
    counting = {face.face for face in video.result.faces if face.counts}
    by_face: dict[int, list[TimelineSample]] = defaultdict(list)
    for sample in video.samples:
        by_face[sample.face].append(sample)
    step_s = 1 / bundle.sample_hz
    shapes = []
    for threshold in (bundle.calibration.threshold_fake, bundle.calibration.threshold_real):
        y = HEIGHT * (1 - threshold)
        shapes.append(f'<line x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for begin, end in _gaps(video.samples, step_s):
        x, width = WIDTH * begin / end_s, WIDTH * (end - begin) / end_s
        shapes.append(f'<rect class="gap" x="{x:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}"/>')
    shown = sorted(by_face, key=lambda face: (face not in counting, -len(by_face[face])))[:MAX_CURVES]
    legend = []
    for number, face in enumerate(shown):
        path = _curve(by_face[face], end_s, step_s)
        kind = f"face{number}" if face in counting else f"face{number} other"
        shapes.append(f'<path class="{kind}" d="{path}"/>')
        legend.append(f'<span class="face{number}">face {face}</span>')
    for index, still in enumerate(video.stills):
        x, width = WIDTH * still.begin_s / end_s, WIDTH * (still.end_s - still.begin_s) / end_s
        label = escape(_caption(still))
        shapes.append(
            f'<a href="#{prefix}-{index}" aria-label="{label}"><rect x="{x:.1f}" y="0" width="{width:.1f}" '
            f'height="{HEIGHT}"><title>{label}</title></rect></a>'
        )
    fake, real = bundle.calibration.threshold_fake, bundle.calibration.threshold_real
    return (
        '<p class="dim">Click a time to see its frame. The dashed lines are the thresholds of fake '
        f"({fake:.2f}) and real ({real:.2f}); grey: no decision.</p>"
        f'<svg class="timeline" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="group" '
        f'aria-label="p_fake over time, from 0 at the bottom to 1 at the top">{"".join(shapes)}</svg>'
        f'<div class="axis"><span>0:00</span><span>{" ".join(legend)}</span>'
        f"<span>{_clock(end_s)}</span></div>"
    )


def _curve(samples: Sequence[TimelineSample], end_s: float, step_s: float) -> str:
    """Return the SVG path of one face; it is interrupted where there is no score."""
    width_s = max(end_s / MAX_POINTS, step_s / 2)
    points: list[tuple[float, float | None]] = []
    last_index = -1
    for sample in samples:
        index = int(sample.time_s / width_s)
        if index != last_index:
            points.append((sample.time_s, sample.p_fake))
            last_index = index
        elif sample.p_fake is not None and sample.p_fake > (points[-1][1] or 0.0):
            points[-1] = (sample.time_s, sample.p_fake)
    path, previous_s = [], None
    for time_s, p_fake in points:
        if p_fake is None:
            previous_s = None
            continue
        joined = previous_s is not None and time_s - previous_s <= max(MAX_STEPS * step_s, 2.5 * width_s)
        path.append(f"{'L' if joined else 'M'}{WIDTH * time_s / end_s:.1f} {HEIGHT * (1 - p_fake):.1f}")
        previous_s = time_s
    # A single point would be invisible.
    return " ".join(path) + ("h1" if len(path) == 1 else "")


def _gaps(samples: Iterable[TimelineSample], step_s: float) -> list[tuple[float, float]]:
    """Return the intervals in which the image does not allow a decision."""
    gaps: list[tuple[float, float]] = []
    for sample in samples:
        if sample.reason is not None:
            begin_s = sample.time_s - step_s
            if gaps and begin_s <= gaps[-1][1] + step_s:
                gaps[-1] = (gaps[-1][0], max(gaps[-1][1], sample.time_s))
            else:
                gaps.append((begin_s, sample.time_s))
    return gaps


def _still_figures(stills: Sequence[Still], prefix: str) -> str:
    """Return the frames; the one with the highest score is shown until another one is chosen."""
    first = max(range(len(stills)), key=lambda index: stills[index].rank)
    # The style sheet hides the first one if an earlier element is the target, so it has to come last.
    order = [index for index in range(len(stills)) if index != first] + [first]
    figures = []
    for index in order:
        still = stills[index]
        before, after = max(index - 1, 0), min(index + 1, len(stills) - 1)
        crop = (
            ""
            if still.crop is None
            else f'<img class="crop" alt="crop of the face" src="{_data(still.crop)}">'
        )
        figures.append(
            f'<figure id="{prefix}-{index}"{" class=first" if index == first else ""}>'
            f'<img alt="frame of the video with boxes around its faces" src="{_data(still.frame)}">{crop}'
            f"<figcaption>{escape(_caption(still))} "
            f'<a href="#{prefix}-{before}">earlier</a> <a href="#{prefix}-{after}">later</a>'
            "</figcaption></figure>"
        )
    return f'<div class="stills">{"".join(figures)}</div>'


def _moment(still: Still) -> str:
    assert still.crop is not None
    return (
        f'<figure><img class="crop" alt="crop of the face" src="{_data(still.crop)}">'
        f"<figcaption>{escape(_caption(still))}</figcaption></figure>"
    )


def _faces(faces: Sequence[FaceScore], stills: Sequence[Still]) -> str:
    best: dict[int, Still] = {}
    for still in stills:
        if still.face is not None and (still.face not in best or still.rank > best[still.face].rank):
            best[still.face] = still
    rows = []
    for face in sorted(faces, key=lambda face: (not face.counts, -face.seconds)):
        found = best.get(face.face)
        image = (
            ""
            if found is None or found.crop is None
            else f'<img alt="" width="64" src="{_data(found.crop)}">'
        )
        score = "none" if face.p_fake is None else f"{face.p_fake:.2f}"
        cells = (
            str(face.face),
            score,
            f"{face.seconds:.1f} s",
            str(face.windows),
            "yes" if face.counts else "no",
        )
        rows.append(f"<tr><td>{image}</td>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(
        f"<th class=number>{name}</th>" for name in ("face", "p_fake", "in view", "scored windows", "counts")
    )
    return (
        '<p class="dim">The score of the video is that of its most suspicious face, among those in view '
        "for at least half as long as the face in view longest.</p>"
        f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
    )


def _summary(report: Report) -> str:
    rows = []
    for index, video in enumerate(report.videos):
        verdict = verdict_text(video.result, report.bundle.calibration)
        score = "" if video.result.p_fake is None else f"{video.result.p_fake:.2f}"
        rows.append(
            f'<tr><td><a href="#v{index}">{escape(_name(video))}</a></td>'
            f"<td class={verdict.state}>{escape(verdict.title)}</td><td class=number>{score}</td></tr>"
        )
    return (
        '<div class="wide"><table><tr><th>video</th><th>verdict</th><th class=number>p_fake</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _facts(report: Report) -> str:
    bundle, calibration = report.bundle, report.bundle.calibration
    rows = [
        ("model", bundle.name),
        ("SHA-256 of the model", bundle.digest),
        ("engine", report.engine),
        (
            "thresholds",
            f"fake from {calibration.threshold_fake:.3f}, real up to {calibration.threshold_real:.3f}",
        ),
        ("samples", f"{bundle.sample_hz:g} per second, {bundle.min_frames} to {bundle.window} per score"),
    ]
    return "<h3>Model</h3>" + _table([], rows) + _measured(bundle)


def _measured(bundle: Bundle) -> str:
    """Return the figures of the model's manifest, as far as they have the usual form."""
    rows = []
    for name, figures in bundle.metrics.items():
        if not isinstance(figures, dict):
            continue
        auc = figures.get("auc")
        rows.append(
            (
                str(name),
                str(figures.get("videos", "")),
                _share(auc.get("value") if isinstance(auc, dict) else auc, "{:.2f}"),
                _share(figures.get("fpr_at_half"), "{:.0%}"),
                _share(figures.get("tpr_at_half"), "{:.0%}"),
            )
        )
    if not rows:
        return ""
    head = ("measured on", "videos", "AUC", "false positive rate at 0.5", "detection rate at 0.5")
    return "<p class=dim>Figures that its authors measured:</p>" + _table(head, rows)


def _share(value: Any, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"] if head else []
    lines += [
        "<tr>" + "".join(f"<td>{escape(printable(cell))}</td>" for cell in row) + "</tr>" for row in rows
    ]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _caption(still: Still) -> str:
    if still.face is None or still.p_fake is None:
        return f"{_clock(still.media_s)}: no score"
    return f"{_clock(still.media_s)}: face {still.face} {still.state}, p_fake {still.p_fake:.2f}"


def _clock(seconds: float) -> str:
    tenths = round(10 * seconds)
    sign, tenths = ("-", -tenths) if tenths < 0 else ("", tenths)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{tenths / 10:04.1f}"
    return f"{sign}{hours}:{minutes:02}:{text}" if hours else f"{sign}{minutes}:{text}"


def _name(video: ScannedVideo) -> str:
    return printable(Path(video.result.file).name or video.result.file)


def _data(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
