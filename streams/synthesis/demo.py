"""Make the demo: an endless stream of one face that is by turns untouched and forged, and says which.

The face is the public-domain portrait of Eileen Collins (NASA) that scikit-image ships. It moves about,
leaves the picture and comes back, always in the same way:

    for pts, rgb in demo_frames(fps=25):
        show(rgb)
"""

import math
from collections.abc import Iterator
from itertools import count
from typing import Literal

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from streams.synthesis.fakes import self_blend

# The course of a cycle. It starts with the face in the picture, so that there is something to judge at once.
FORGED_S = 9.0  # until here the face is untouched
LEAVING_S = 18.0  # it starts to go out on the right
GONE_S = 20.0
RETURNING_S = 22.0  # it starts to come in on the left, untouched
CYCLE_S = 24.0

# In pixels of the portrait: the part that is shown, and the face in it as CenterFace sees it.
SHOWN = (60, 0, 330, 330)
FACE = (181.5, 58.2, 88.4, 119.6)
SHOWN_HEIGHT = 0.73  # of the picture's
PATCH_MARGIN = 1.5  # side of the square that is forged, over the height of the face

VARIANTS = 10
VARIANT_S = 0.2  # how long one forgery takes to fade into the next
VARIANT_SEED = 11

REAL_COLOUR, FORGED_COLOUR = (46, 160, 67), (218, 54, 51)

Rgb = NDArray[np.uint8]


def demo_frames(*, fps: int = 25, width: int = 1280, height: int = 720) -> Iterator[tuple[int, Rgb]]:
    """Make the pictures of the demo, without end and the same every time.

    Args:
        fps: Pictures per second of media time.
        width: Width of a picture in pixels.
        height: Height of a picture in pixels.

    Yields:
        Presentation time in units of 1 / fps, counted from 0, and the picture, RGB uint8 (height, width, 3).
    """
    untouched = _portrait(height)
    left, top, side = _patch(untouched)
    patch = untouched[top : top + side, left : left + side]
    forged = [self_blend(patch, np.random.default_rng(VARIANT_SEED + n))[0] for n in range(VARIANTS)]
    card = untouched.copy()
    background = _background(width, height)
    for pts in count():
        t = pts / fps
        picture = background.copy()
        here = card[top : top + side, left : left + side]
        if _is_forged(t):
            number, mix = divmod(t / VARIANT_S, 1)
            one, next_one = forged[int(number) % VARIANTS], forged[(int(number) + 1) % VARIANTS]
            cv2.addWeighted(one, 1 - mix, next_one, mix, 0, dst=here)
        else:
            here[...] = patch
        if _draw(picture, card, _placement(t, card.shape[0], width, height)):
            _label(picture, "FORGED FACE" if _is_forged(t) else "REAL FACE", _is_forged(t))
        yield pts, picture


def demo_truth(pts_s: float) -> Literal["real", "forged", "away"]:
    """Tell what the demo shows at a time.

    Args:
        pts_s: Presentation time in seconds.

    Returns:
        `away` unless the whole face is in the picture (of the default size), else what the picture says.
    """
    width, height = 1280, 720
    side = round(SHOWN_HEIGHT * height)
    zoom = side / SHOWN[3]
    x, y = (FACE[0] - SHOWN[0]) * zoom, (FACE[1] - SHOWN[1]) * zoom
    corners = np.array([[x, y, 1], [x + FACE[2] * zoom, y, 1], [x, y + FACE[3] * zoom, 1]])
    corners = np.vstack([corners, corners[1] + corners[2] - corners[0]])
    across, down = _placement(pts_s, side, width, height) @ corners.T
    if across.min() < 0 or across.max() > width or down.min() < 0 or down.max() > height:
        return "away"
    return "forged" if _is_forged(pts_s) else "real"


def _is_forged(t: float) -> bool:
    return FORGED_S <= t % CYCLE_S < GONE_S


def _placement(t: float, side: int, width: int, height: int) -> NDArray[np.float64]:
    """Return the (2, 3) matrix from pixels of the portrait, as shown, to pixels of the picture."""
    t %= CYCLE_S
    # No sway while it comes and goes, so that all movements join smoothly; periods that divide FORGED_S, so
    # that the forged face repeats the movements of the real one.
    sway = _ease(t / 1.5) * _ease((LEAVING_S - t) / 1.5)
    x = 0.5 + 0.2 * sway * math.sin(2 * math.pi * t / 9)
    y = 0.54 + 0.03 * sway * math.sin(2 * math.pi * t / 4.5)
    angle = 4.0 * sway * math.sin(2 * math.pi * t / 3)
    zoom = 1 + 0.05 * sway * math.cos(2 * math.pi * t / 4.5)
    if t < RETURNING_S:
        x += 0.9 * _ease((t - LEAVING_S) / (GONE_S - LEAVING_S))
    else:
        x -= 0.9 * _ease((CYCLE_S - t) / (CYCLE_S - RETURNING_S))
    matrix = np.asarray(cv2.getRotationMatrix2D((side / 2, side / 2), angle, zoom), np.float64)
    matrix[:, 2] += np.array([x * width - side / 2, y * height - side / 2])
    return matrix


def _ease(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _portrait(height: int) -> Rgb:
    x, y, columns, rows = SHOWN
    side = round(SHOWN_HEIGHT * height)
    portrait = np.asarray(skimage.data.astronaut(), np.uint8)  # type: ignore[no-untyped-call]
    shown = portrait[y : y + rows, x : x + columns]
    return np.asarray(cv2.resize(shown, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def _patch(portrait: Rgb) -> tuple[int, int, int]:
    """Return the square around the face in the portrait as shown: left, top, side."""
    zoom = portrait.shape[0] / SHOWN[3]
    side = PATCH_MARGIN * FACE[3]
    left, top = FACE[0] - SHOWN[0] + FACE[2] / 2 - side / 2, FACE[1] - SHOWN[1] + FACE[3] / 2 - side / 2
    return round(left * zoom), round(top * zoom), round(side * zoom)


def _background(width: int, height: int) -> Rgb:
    light = np.linspace(1.0, 0.55, height)[:, None, None] * np.array([70, 84, 104])
    return np.ascontiguousarray(np.broadcast_to(light, (height, width, 3)).round().astype(np.uint8))


def _draw(picture: Rgb, card: Rgb, matrix: NDArray[np.float64]) -> bool:
    """Draw the card into the picture in place; return whether any of it is visible."""
    height, width = picture.shape[:2]
    side = card.shape[0]
    corners = matrix @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]], np.float64)
    left, top = np.maximum(np.floor(corners.min(axis=1)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=1)), (width, height)).astype(int).tolist()
    if left >= right or top >= bottom:
        return False
    # Only the part of the picture under the card is gone through: a third of the time of all of it.
    part = picture[top:bottom, left:right]
    moved = matrix - np.array([[0, 0, left], [0, 0, top]])
    cv2.warpAffine(card, moved, (right - left, bottom - top), part, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
    return True


def _label(picture: Rgb, text: str, forged: bool) -> None:
    unit = picture.shape[0] / 720
    font, size, weight = cv2.FONT_HERSHEY_DUPLEX, 1.4 * unit, max(1, round(2 * unit))
    (wide, high), _ = cv2.getTextSize(text, font, size, weight)
    margin = round(24 * unit)
    colour = FORGED_COLOUR if forged else REAL_COLOUR
    cv2.rectangle(picture, (margin, margin), (3 * margin + wide, 3 * margin + high), colour, cv2.FILLED)
    cv2.putText(
        picture, text, (2 * margin, 2 * margin + high), font, size, (255, 255, 255), weight, cv2.LINE_AA
    )
