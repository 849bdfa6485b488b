"""Report of an evaluation in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from train.errors import TrainError

LEVELS = (("video", "Videos"), ("window", "Windows"), ("frame", "Frames"))
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
    ("fpr_at_half", "FPR at 0.5"),
    ("tpr_at_half", "TPR at 0.5"),
    ("fpr_at_threshold_fpr1", "FPR at the 1 % FPR threshold"),
    ("tpr_at_threshold_fpr1", "TPR at the 1 % FPR threshold"),
)


class ReportError(TrainError):
    """A report that cannot be written; the message is one line with advice."""


def report(metrics: Mapping[str, Any]) -> str:
    """Return the report.

    Args:
        metrics: The content of `metrics.json`.

    Returns:
        Markdown.
    """
    counts, data = metrics["counts"], metrics["data"]
    parts = [
        f"# Evaluation of {metrics['model']['name']} on {data['name']}",
        f"{metrics['model']['identity']}. Split: {data['split']}"
        f"{', selected groups' if data['groups'] else ''}. "
        f"{counts['videos']} videos ({counts['real_videos']} real, {counts['fake_videos']} fake) in "
        f"{counts['groups']} groups, {counts['clips']} clips, {counts['windows']} windows, "
        f"{counts['frames']} frames. In brackets: 95 % bootstrap intervals by group, "
        f"{metrics['replicates']} draws, seed {metrics['seed']}.",
    ]
    if metrics["notes"]:
        parts.append("\n".join(f"- {note}" for note in metrics["notes"]))
    parts += [
        "## Scores",
        "A video's score is the calibrated mean logit over its windows, as in `unmask scan`. A live verdict "
        f"is made of one window. Frame: {metrics['frame']['kind']}. FPR: false positive rate, the share of "
        "real ones scored as fake. TPR: true positive rate, the share of fakes detected.",
        _levels(metrics),
        "![ROC](roc.png) ![Scores](scores.png)",
    ]
    if counts["videos_scored"]:
        parts += [
            "## Methods",
            "The fakes of each method against all real videos.",
            _methods(metrics["methods"]),
            "## Ablation",
            _ablation(metrics["ablation"]),
            "## Calibration",
            _calibration(metrics["calibration"]),
        ]
    parts.append("![Reliability](reliability.png)")
    if "robustness" in metrics:
        parts += ["## Robustness", *_robustness(metrics["robustness"])]
    return "\n\n".join(parts) + "\n"


def _levels(metrics: Mapping[str, Any]) -> str:
    levels = [metrics[key] for key, _ in LEVELS if metrics[key]["scores"]]
    head = ["", *(title for key, title in LEVELS if metrics[key]["scores"])]
    rows = [["Scores", *(str(level["scores"]) for level in levels)]]
    rows += [[title, *(_estimate(level[key]) for level in levels)] for key, title in ESTIMATES]
    rows += [[title, *(_share(level[key]) for level in levels)] for key, title in SHARES]
    threshold, fpr1 = metrics["video"]["threshold"], metrics["video"]["threshold_fpr1"]
    thresholds = f"Stored threshold: {threshold:.3f}; 1 % FPR threshold: {_number(fpr1)}."
    return _table(head, rows) + "\n\n" + thresholds


def _methods(methods: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [name, str(m["videos"]), str(m["groups"]), _estimate(m["auc"]), _share(m["tpr_at_half"])]
        for name, m in methods.items()
    ]
    return _table(["Method", "Videos", "Groups", "AUC", "TPR at 0.5"], rows)


def _ablation(ablation: Mapping[str, Any]) -> str:
    lines = [
        f"AUC by video {_number(ablation['auc_network'])} with windows through the LSTM, "
        f"{_number(ablation['auc_frame_mean'])} with the mean of the frames' logits. "
        + _gain(ablation["lstm_gain"], "The LSTM", "averaging its frames would do better")
    ]
    if ablation["temporal_gain"] is not None:
        lines.append(
            f"AUC {_number(ablation['auc'])} with the temporal classifier. "
            + _gain(
                ablation["temporal_gain"],
                "The model with the temporal classifier",
                "the network alone would do better",
            )
        )
    return " ".join(lines)


def _gain(difference: Mapping[str, Any], subject: str, otherwise: str) -> str:
    low, high = difference["low"], difference["high"]
    if low is None:
        conclusion = "There are too few groups to compare them."
    elif low > 0:
        conclusion = f"{subject} is better."
    elif high < 0:
        conclusion = f"{subject} is worse: {otherwise}."
    else:
        conclusion = "The difference is not significant."
    return f"Difference {_estimate(difference)}. {conclusion}"


def _calibration(calibration: Mapping[str, Any]) -> str:
    rows = []
    crossed = calibration["cross_validated"]
    for key, title in (("window", "full windows"), ("min_frames", "shortest windows")):
        errors, own = calibration[key], crossed.get(f"ece_{key}")
        rows.append([title, _number(errors["ece_raw"]), _number(errors.get("ece_stored")), _number(own)])
    text = "Expected calibration error over ten bins, with equal weight of both classes."
    table = _table(["", "Raw", "Stored calibration", "Fitted here, cross-validated by group"], rows)
    stored = calibration["stored"]
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
        ["Corruption", "Strength", "AUC", "Accuracy at 0.5", "FPR at 0.5", "TPR at 0.5"],
        [
            [
                f"{row['corruption']} {row['severity'] or ''}".strip(),
                str(row["strength"] or ""),
                _estimate(row["auc"]),
                _share(row["accuracy_at_half"]),
                _share(row["fpr_at_half"]),
                _share(row["tpr_at_half"]),
            ]
            for row in rows
        ],
    )
    about = f"By {rows[0]['level']}, {rows[0]['scores']} scores, one clip per video. "
    return [about + "Crops are corrupted, not whole frames, and scored by the network alone.", table]


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
