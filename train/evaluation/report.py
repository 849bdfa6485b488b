"""Writes the figures of an evaluation down for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TITLES = (("video", "Videos"), ("window", "Windows"), ("frame", "Frames"))
ESTIMATES = (
    ("auc", "AUC"),
    ("accuracy_at_half", "Accuracy at 0.5"),
    ("balanced_accuracy_at_half", "Balanced accuracy at 0.5"),
    ("accuracy_at_threshold", "Accuracy at the stored threshold"),
    ("balanced_accuracy_at_threshold", "Balanced accuracy at the stored threshold"),
    ("equal_error_rate", "Equal error rate"),
    ("average_precision", "Average precision"),
)
SHARES = (
    ("false_alarms_at_half", "Reals called fake at 0.5"),
    ("detected_at_half", "Fakes called fake at 0.5"),
    ("false_alarms_at_far1", "Reals called fake at the 1 % threshold"),
    ("detected_at_far1", "Fakes called fake at the 1 % threshold"),
)


class ReportError(ValueError):
    """Says that a report cannot be written; `str()` is one line that says what to do."""


def report(found: Mapping[str, Any]) -> str:
    """Write the report.

    Args:
        found: What is in `metrics.json`.

    Returns:
        Markdown.
    """
    counts, data = found["counts"], found["data"]
    parts = [
        f"# How {found['model']['name']} measures on {data['name']}",
        f"{found['model']['identity']}. Split: {data['split']}"
        f"{', of it the groups given' if data['groups'] else ''}. "
        f"{counts['videos']} videos ({counts['real_videos']} real, {counts['fake_videos']} fake) in "
        f"{counts['groups']} groups, {counts['clips']} clips, {counts['windows']} windows, "
        f"{counts['frames']} frames. In brackets: 95 % bootstrap intervals, groups drawn together, "
        f"{found['replicates']} draws, seed {found['seed']}.",
    ]
    if found["notes"]:
        parts.append("\n".join(f"- {note}" for note in found["notes"]))
    parts += [
        "## Scores",
        "A video's score is made as in `unmask scan`: the calibrated mean logit over its windows. A window "
        f"is what one live verdict is made of. Frame: {found['frame']['kind']}.",
        _levels(found),
        "![ROC](roc.png) ![Scores](scores.png)",
    ]
    if counts["videos_scored"]:
        parts += [
            "## Methods",
            "Each method's forgeries against all reals, by video.",
            _methods(found["methods"]),
            "## The LSTM against averaging frames",
            _sequence(found["sequence"]),
            "## Calibration",
            _calibration(found["calibration"]),
        ]
    parts.append("![Reliability](reliability.png)")
    if "robustness" in found:
        parts += ["## Robustness", *_robustness(found["robustness"])]
    return "\n\n".join(parts) + "\n"


def _levels(found: Mapping[str, Any]) -> str:
    levels = [found[key] for key in ("video", "window", "frame") if found[key]["scores"]]
    head = ["", *(title for key, title in TITLES if found[key]["scores"])]
    rows = [["Scores", *(str(level["scores"]) for level in levels)]]
    rows += [[title, *(_estimate(level[key]) for level in levels)] for key, title in ESTIMATES]
    rows += [[title, *(_share(level[key]) for level in levels)] for key, title in SHARES]
    threshold, far1 = found["video"]["threshold"], found["video"]["threshold_fpr1"]
    stated = f"Stored threshold: {threshold:.3f}; 1 % threshold: {_number(far1)}."
    return _table(head, rows) + "\n\n" + stated


def _methods(methods: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [name, str(m["videos"]), str(m["groups"]), _estimate(m["auc"]), _share(m["detected_at_half"])]
        for name, m in methods.items()
    ]
    return _table(["Method", "Videos", "Groups", "AUC", "Called fake at 0.5"], rows)


def _sequence(sequence: Mapping[str, Any]) -> str:
    said = (
        f"AUC by video {_number(sequence['auc_of_network'])} with windows through the LSTM, "
        f"{_number(sequence['auc_of_frame_means'])} with the mean of the frames' logits. "
        + _better(sequence["difference"], "The LSTM", "averaging its frames would do better")
    )
    if sequence["temporal"] is not None:
        said += f" With flicker {_number(sequence['auc_of_windows'])}. " + _better(
            sequence["temporal"], "The model with flicker", "the network alone would do better"
        )
    return said


def _better(difference: Mapping[str, Any], subject: str, otherwise: str) -> str:
    low, high = difference["low"], difference["high"]
    if low is None:
        verdict = "There are too few groups to tell whether one is better."
    elif low > 0:
        verdict = f"{subject} is better."
    elif high < 0:
        verdict = f"{subject} is worse: {otherwise}."
    else:
        verdict = "No difference is shown."
    return f"Difference {_estimate(difference)}. {verdict}"


def _calibration(calibration: Mapping[str, Any]) -> str:
    rows = []
    for key, title in (("window", "full windows"), ("min_frames", "shortest windows")):
        entry, crossed = calibration[key], calibration["cross_fitted"].get(f"ece_{key}")
        rows.append([title, _number(entry["ece_before"]), _number(entry.get("ece_stored")), _number(crossed)])
    text = "Expected calibration error over ten bins, both classes weighing alike."
    table = _table(["", "Raw", "Stored Platt scaling", "Fitted here, on other groups"], rows)
    stored, crossed = calibration["stored"], calibration["cross_fitted"]
    lines = []
    if stored is not None:
        lines.append(f"Stored: scale {stored['scale']:.3f}, offset {stored['offset']:+.3f}.")
    if "reason" in crossed:
        lines.append(f"No fit here: {crossed['reason']}.")
    else:
        lines.append(f"Fitted here: scale {crossed['scale']:.3f}, offset {crossed['offset']:+.3f}.")
    return "\n\n".join([text, table, " ".join(lines)])


def _robustness(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    table = _table(
        ["Damage", "Strength", "AUC", "Accuracy at 0.5", "Reals called fake", "Fakes called fake"],
        [
            [
                f"{row['corruption']} {row['severity'] or ''}".strip(),
                str(row["strength"] or ""),
                _estimate(row["auc"]),
                _share(row["accuracy_at_half"]),
                _share(row["false_alarms_at_half"]),
                _share(row["detected_at_half"]),
            ]
            for row in rows
        ],
    )
    about = f"By {rows[0]['level']}, {rows[0]['scores']} scores, one clip of each video. "
    return [about + "The crop is damaged, not the picture it was cut from.", table]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _estimate(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "-"
    if value["low"] is None:
        return f"{value['value']:.3f} (no interval)"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
