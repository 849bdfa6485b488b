"""Page of a benchmark: tables and charts in one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

COLUMNS = (
    ("auc", "AUC", "number"),
    ("fpr", "FPR at fake", "share"),
    ("tpr", "TPR at fake", "share"),
    ("tpr_at_fpr_0.01", "TPR at 1 % FPR", "share"),
    ("tpr_at_fpr_0.05", "TPR at 5 % FPR", "share"),
    ("false_alarms_per_hour", "false alarms per hour", "rate"),
    ("real_time_fake", "real time in fake", "share"),
    ("pair_order", "pairs in order", "share"),
    ("ece", "ECE", "number"),
)
# Rows of the lists of the worst videos.
MAX_WORST = 15

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #8884; text-align: left; vertical-align: top; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.first td { border-top: 2px solid #888a; }
.wide { overflow-x: auto; } img { max-width: 100%; background: #fff; } small { opacity: .75; }
p { max-width: 55rem; }
"""

EXPLANATION = (
    "Each video is scored as by `unmask scan`. FPR at fake: share of the real videos whose score is at or "
    "above the model's threshold of the state fake; TPR at fake: the same of the fakes. TPR at 1 % and 5 % "
    "FPR: with a threshold chosen on the real videos of that row. False alarms per hour: entries of a face "
    "into the state fake, with the hysteresis of `unmask monitor`, per hour of real footage; short videos "
    "have more of them, because each begins anew. Real time in fake: share of the verdicts on real videos "
    "that are fake. Pairs in order: pairs of a fake and the real video it was made from in which the fake "
    "has the higher score. ECE: expected calibration error at equal priors. Brackets: 95 % bootstrap "
    "interval over people. A video without a score, such as one without a face, is not called fake, and "
    "counts in no AUC, pair or ECE; a file that cannot be read counts nowhere."
)


def benchmark_page(results: Mapping[str, Any], charts: Sequence[tuple[str, bytes]]) -> str:
    """Return the page.

    Args:
        results: Content of `benchmark.json`.
        charts: Title and PNG of each chart.
    """
    models: Mapping[str, Any] = results["models"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>unmask benchmark</title>',
        f"<style>{STYLE}</style></head><body><h1>unmask benchmark</h1>",
        f"<p>{escape(_about(results))}</p>",
        "<h2>All data sets together</h2>",
        _figures_table("", {"": {name: model["pooled"] for name, model in models.items()}}),
        *(f"<p>{escape(line)}</p>" for line in _worst_lines(models)),
        *(f"<p>{escape(line)}</p>" for line in _differences(models)),
        f"<p><small>{escape(EXPLANATION)}</small></p>",
        "<h2>By data set</h2>",
        _figures_table("data set", _by_name(models, "data_sets")),
    ]
    if any(model.get("conditions") for model in models.values()):
        parts += _transcoded(models)
    parts += ["<h2>Charts</h2>", *(_chart(title, png) for title, png in charts)]
    parts += ["<h2>Methods</h2>", _methods(models)]
    for key, title in (("brightness", "brightness of the face"), ("skin_tone", "skin tone in the image")):
        parts += [f"<h2>Real videos by {title}</h2>", _groups(models, key)]
    parts.append(
        "<p><small>Brightness: mean luma of the crop, dark below 70, bright from 120 of 255. Skin tone: "
        "individual typology angle of the cheeks in the image; dim and coloured light change it too."
        "</small></p>"
    )
    for name, model in models.items():
        parts += [f"<h2>Errors of {escape(name)}</h2>", _errors(model)]
    return "\n".join(parts) + "</body></html>\n"


def _about(results: Mapping[str, Any]) -> str:
    data = results["data"]
    return (
        f"{data['videos']} videos ({data['real']} real, {data['fake']} fake) of {data['groups']} groups of "
        f"people, {data['real_hours']:.2f} hours of real footage; split: {data['split']}. "
        f"unmask {results['version']}, code {results['code']}."
    )


def _worst_lines(models: Mapping[str, Any]) -> Iterable[str]:
    for name, model in models.items():
        groups = [
            f"{title} {model[key]!r} ({_share(model[table][model[key]]['fpr']['value'])})"
            for key, table, title in (
                ("worst_set", "data_sets", "data set"),
                ("worst_brightness", "brightness", "brightness"),
                ("worst_skin_tone", "skin_tone", "skin tone"),
            )
            if model[key] is not None
        ]
        if groups:
            yield f"{name}: highest false positive rate by {', '.join(groups)}."


def _differences(models: Mapping[str, Any]) -> Iterable[str]:
    for name, model in models.items():
        difference = model.get("auc_difference")
        if difference is not None:
            yield f"{name}: AUC minus that of {next(iter(models))}: {_estimate(difference, 'signed')}."


def _by_name(models: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """Return figures by row and model instead of by model and row."""
    rows: dict[str, dict[str, Any]] = {}
    for model_name, model in models.items():
        for name, figures in model.get(key, {}).items():
            rows.setdefault(name, {})[model_name] = figures
    return rows


def _figures_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    head = [*([title] if title else []), "model", "real / fake", *(name for _, name, _ in COLUMNS)]
    lines = []
    for name, models in rows.items():
        for number, (model, figures) in enumerate(models.items()):
            cells = [name if number == 0 else ""] if title else []
            unscored = figures["videos"] - figures["scored"]
            counts = f"{figures['real']} / {figures['fake']}" + (
                f" ({unscored} unscored)" if unscored else ""
            )
            cells += [model, counts]
            cells += [_cell(figures[key], form) for key, _, form in COLUMNS]
            lines.append((cells, number == 0))
    return _table(head, lines)


def _transcoded(models: Mapping[str, Any]) -> list[str]:
    """Return the tables of the figures after transcoding: pooled, then by data set in brief."""
    rows = {"original": {name: model["pooled"] for name, model in models.items()}}
    for name, found in _by_name(models, "conditions").items():
        rows[name] = {model: figures["pooled"] for model, figures in found.items()}
    parts = ["<h2>After transcoding, all data sets together</h2>", _figures_table("video", rows)]
    for key, title, form in (("auc", "AUC", "number"), ("fpr", "FPR at fake", "share")):
        parts += [f"<h3>{title} by data set</h3>", _condition_matrix(models, key, form)]
    return parts


def _condition_matrix(models: Mapping[str, Any], key: str, form: str) -> str:
    names = sorted({name for model in models.values() for name in model["data_sets"]})
    lines = []
    for model_name, model in models.items():
        conditions = {"original": model["data_sets"]}
        conditions |= {name: figures["data_sets"] for name, figures in model["conditions"].items()}
        for number, (condition, sets) in enumerate(conditions.items()):
            values = [sets[name][key]["value"] if name in sets else None for name in names]
            cells = ["-" if value is None else _number(value, form) for value in values]
            lines.append(([model_name if number == 0 else "", condition, *cells], number == 0))
    return _table(["model", "video", *names], lines)


def _methods(models: Mapping[str, Any]) -> str:
    lines = []
    for method, figures in _by_name(models, "methods").items():
        for number, (model, found) in enumerate(figures.items()):
            cells = [method if number == 0 else "", model, str(found["fake"])]
            cells += [_cell(found["auc"], "number"), _cell(found["tpr"], "share")]
            lines.append((cells, number == 0))
    return _table(["method", "model", "fakes", "AUC", "TPR at fake"], lines)


def _groups(models: Mapping[str, Any], key: str) -> str:
    lines = []
    for group, figures in _by_name(models, key).items():
        for number, (model, found) in enumerate(figures.items()):
            cells = [group if number == 0 else "", model, f"{found['real']} of {found['real_groups']} people"]
            cells += [_cell(found["fpr"], "share"), _cell(found["false_alarms_per_hour"], "rate")]
            lines.append((cells, number == 0))
    return _table(["group", "model", "real videos", "FPR at fake", "false alarms per hour"], lines)


def _errors(model: Mapping[str, Any]) -> str:
    scored = [video for video in model["videos"] if video["p_fake"] is not None]
    false_alarms = sorted(
        (v for v in scored if not v["fake"] and v["p_fake"] >= model["threshold_fake"]),
        key=lambda video: -video["p_fake"],
    )
    missed = sorted((v for v in scored if v["fake"]), key=lambda video: video["p_fake"])
    missed = [video for video in missed if video["p_fake"] < model["threshold_fake"]]
    unscored = [video for video in model["videos"] if video["p_fake"] is None]
    return (
        _videos("Real videos scored as fake", false_alarms)
        + _videos("Fakes not detected", missed)
        + _videos("No score", unscored)
    )


def _videos(title: str, videos: Sequence[Mapping[str, Any]]) -> str:
    if not videos:
        return f"<h3>{title}: none</h3>"
    lines = []
    for video in videos[:MAX_WORST]:
        p_fake = video["p_fake"]
        result = video["error"] or video["state"] if p_fake is None else f"{p_fake:.3f}"
        lines.append(([video["data_set"], video["name"], video["method"], result], False))
    shown = "" if len(videos) <= MAX_WORST else f", of which {MAX_WORST}"
    return f"<h3>{title}: {len(videos)}{shown}</h3>" + _table(
        ["data set", "video", "method", "p_fake"], lines
    )


def _chart(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'


def _table(head: Sequence[str], lines: Sequence[tuple[Sequence[str], bool]]) -> str:
    rows = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for cells, first in lines:
        columns = "".join(f"<td class=n>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr{' class=first' if first else ''}>{columns}</tr>")
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _cell(value: Any, form: str) -> str:
    if isinstance(value, Mapping):
        return _estimate(value, form)
    return "-" if value is None else _number(value, form)


def _estimate(value: Mapping[str, Any], form: str) -> str:
    if value["value"] is None:
        return "-"
    text = _number(value["value"], form)
    if value["low"] is None:
        return text
    return f"{text} [{_number(value['low'], form)}, {_number(value['high'], form)}]"


def _number(value: float, form: str) -> str:
    return {
        "number": f"{value:.3f}",
        "signed": f"{value:+.3f}",
        "share": _share(value),
        "rate": f"{value:.1f}",
    }[form]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
