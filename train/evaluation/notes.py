"""Notes of a report on the clips and the model: overlap with the training, few groups, other sample rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.data.clip_set import ClipSet, Entry
from train.models.trained_groups import trained_on
from train.scoring.scorer import Scorer
from train.scoring.selection import sample_rate_differs

MIN_MARGIN_RATIO = 0.97
"""Crops with a margin below this share of the model's margin show the face at another scale."""
FEW_GROUPS = 30


def notes(
    clip_set: ClipSet, entries: Sequence[Entry], scorer: Scorer, counts: Mapping[str, int]
) -> list[str]:
    """Return the notes on an evaluation.

    Args:
        clip_set: The clip set.
        entries: The clips that were scored.
        scorer: The model.
        counts: The counts that `measure` returns.
    """
    found = []
    if known := trained_on(scorer.training, clip_set, entries):
        found.append(
            f"the model was trained on {len(known)} of these {counts['groups']} groups, such as "
            f"{known[0]!r}: the metrics do not hold for unseen people"
        )
    if counts["groups"] < FEW_GROUPS:
        found.append(f"groups: only {counts['groups']}; the intervals are wide, and may still be too narrow")
    found += _short_clips(scorer, counts)
    if any(sample_rate_differs(entry, scorer) for entry in entries):
        rates = [entry.sample_hz for entry in entries if entry.sample_hz]
        found.append(
            f"clips are sampled at {min(rates):g} to {max(rates):g} Hz, "
            f"the model takes {scorer.sample_hz:g} Hz"
        )
    if clip_set.margin < MIN_MARGIN_RATIO * scorer.crop_margin:
        found.append(
            f"crops are {clip_set.margin:g} face heights wide, live crops {scorer.crop_margin:g}: "
            "the model sees larger faces here than live"
        )
    if scorer.temporal is not None and counts["videos_scored"] and not clip_set.has_residuals:
        found.append(
            "these clips contain no temporal residuals: the network alone is measured, and the thresholds "
            "are not meant for it; measure the model with `unmask train benchmark`"
        )
    if scorer.temporal is not None and not counts["videos_scored"]:
        found.append(
            "single frames have no temporal residuals, and the model was calibrated with its temporal "
            "classifier: only the metrics without a threshold hold"
        )
    if scorer.calibration is None:
        found.append("the model is not calibrated: thresholds apply to raw logits")
    return found


def _short_clips(scorer: Scorer, counts: Mapping[str, int]) -> list[str]:
    if not counts["videos_scored"]:
        return [
            f"no clip has the {scorer.min_frames} samples that the model needs: only single frames are "
            "scored, which does not predict live verdicts"
        ]
    if counts["clips_too_short"]:
        without = counts["videos"] - counts["videos_scored"]
        return [
            f"{counts['clips_too_short']} clips are too short for a window of {scorer.min_frames} samples; "
            f"{without} of {counts['videos']} videos have no score and are in the frame metrics only"
        ]
    return []
