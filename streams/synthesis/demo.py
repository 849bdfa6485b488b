"""Built-in demo: an endless stream of one face that alternates between real and a synthetic fake.

The face is the public-domain portrait of Eileen Collins (NASA) that ships with scikit-image. It moves, leaves
the frame and returns, in a fixed cycle. A label in the frame states which phase is shown.

    for pts, rgb in demo_frames(fps=25):
        show(rgb)
"""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.synthesis.fakes import self_blend

# Phases of a cycle in seconds of media time. It starts with the real face in the frame.
FAKE_START_S = 9.0
LEAVE_START_S = 18.0  # the fake face moves out on the right
LEAVE_END_S = 20.0
RETURN_START_S = 22.0  # the real face moves in on the left
CYCLE_S = 24.0

# Regions of the portrait in pixels as x, y, width, height: what is shown, and the box that CenterFace finds.
SHOWN = (60, 0, 330, 330)
FACE = (181.5, 58.2, 88.4, 119.6)
SHOWN_HEIGHT = 0.73  # height of the shown part divided by the height of the frame
FAKE_MARGIN = 1.5  # side of the square that becomes a fake, divided by the height of the face box

VARIANTS = 10
VARIANT_S = 0.2  # duration of the blend from one variant of the fake to the next
VARIANT_SEED = 11
SOFTNESS = 0.15  # width of the edge of the fake, relative to the face
TREMBLE = 0.3  # largest deviation of the blend's weight in a single frame

# Errors of a camera's codec: blotches of a few pixels, whose strength varies from frame to frame.
BLOTCH, BLOTCH_MAPS = 4, 16
MIN_ERROR, MAX_ERROR = 0.4, 4.0  # standard deviation in grey levels

REAL_COLOUR, FAKE_COLOUR = (46, 160, 67), (218, 54, 51)

Rgb = NDArray[np.uint8]


def demo_frames(*, fps: int = 25, width: int = 1280, height: int = 720) -> Iterator[tuple[int, Rgb]]:
    """Generate the frames of the demo, endless and deterministic.

    Args:
        fps: Frames per second of media time.
        width: Frame width in pixels.
        height: Frame height in pixels.

    Yields:
        Presentation time in units of 1 / fps, starting at 0, and the frame, RGB uint8 (height, width, 3).
    """
    portrait = _portrait(height)
    left, top, side = _face_square(portrait)
    real = portrait[top : top + side, left : left + side]
    fakes = [
        self_blend(real, np.random.default_rng(VARIANT_SEED + n))[0].astype(np.float32)
        for n in range(VARIANTS)
    ]
    drawn = _drawn_part(side)
    clean = portrait.astype(np.float32)
    errors = _coding_errors(portrait.shape[0])
    background = _background(width, height)
    for pts in count():
        t = pts / fps
        frame = background.copy()
        # As its movements, the errors of the real face are repeated with the fake.
        repeated_s = t % CYCLE_S - (FAKE_START_S if _is_fake(t) else 0)
        rng = np.random.default_rng((VARIANT_SEED, round(repeated_s * fps)))
        strength = math.exp(rng.uniform(math.log(MIN_ERROR), math.log(MAX_ERROR)))
        card = np.asarray(cv2.scaleAdd(errors[rng.integers(BLOTCH_MAPS)], strength, clean), np.float32)
        if _is_fake(t):
            number, weight = divmod(t / VARIANT_S, 1)
            # As face-swap software, which draws each frame by itself.
            weight += TREMBLE * rng.uniform(-1, 1)
            current, following = fakes[int(number) % VARIANTS], fakes[(int(number) + 1) % VARIANTS]
            face = card[top : top + side, left : left + side]
            face += drawn * (current + np.float32(weight) * (following - current) - face)
        shown = np.asarray(cv2.convertScaleAbs(card), np.uint8)
        if _draw(frame, shown, _placement(t, card.shape[0], width, height)):
            _label(frame, "SYNTHETIC FAKE" if _is_fake(t) else "REAL FACE", _is_fake(t))
        yield pts, frame


def _is_fake(t: float) -> bool:
    return FAKE_START_S <= t % CYCLE_S < LEAVE_END_S


def _placement(t: float, side: int, width: int, height: int) -> NDArray[np.float64]:
    """Return the (2, 3) affine matrix from pixels of the shown portrait to pixels of the frame."""
    t %= CYCLE_S
    # The sway is zero while the face leaves and returns, so that all movements join smoothly. Its periods
    # divide FAKE_START_S, so that the fake face repeats the movements of the real one.
    sway = _ease(t / 1.5) * _ease((LEAVE_START_S - t) / 1.5)
    x = 0.5 + 0.2 * sway * math.sin(2 * math.pi * t / 9)
    y = 0.54 + 0.03 * sway * math.sin(2 * math.pi * t / 4.5)
    angle = 4.0 * sway * math.sin(2 * math.pi * t / 3)
    zoom = 1 + 0.05 * sway * math.cos(2 * math.pi * t / 4.5)
    if t < RETURN_START_S:
        x += 0.9 * _ease((t - LEAVE_START_S) / (LEAVE_END_S - LEAVE_START_S))
    else:
        x -= 0.9 * _ease((CYCLE_S - t) / (CYCLE_S - RETURN_START_S))
    matrix = np.asarray(cv2.getRotationMatrix2D((side / 2, side / 2), angle, zoom), np.float64)
    matrix[:, 2] += np.array([x * width - side / 2, y * height - side / 2])
    return matrix


def _ease(progress: float) -> float:
    progress = min(max(progress, 0.0), 1.0)
    return progress * progress * (3 - 2 * progress)


def _portrait(height: int) -> Rgb:
    x, y, columns, rows = SHOWN
    side = round(SHOWN_HEIGHT * height)
    shown = _astronaut()[y : y + rows, x : x + columns]
    return np.asarray(cv2.resize(shown, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def _astronaut() -> Rgb:
    # skimage.data.astronaut reads the same file, but first imports scipy and tifffile, for half a second.
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the portrait comes with scikit-image: pip install scikit-image", name="skimage"
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "astronaut.png"
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(image, np.uint8)


def _face_square(portrait: Rgb) -> tuple[int, int, int]:
    """Return left, top and side of the square around the face in the shown portrait."""
    zoom = portrait.shape[0] / SHOWN[3]
    side = FAKE_MARGIN * FACE[3]
    left, top = FACE[0] - SHOWN[0] + FACE[2] / 2 - side / 2, FACE[1] - SHOWN[1] + FACE[3] / 2 - side / 2
    return round(left * zoom), round(top * zoom), round(side * zoom)


def _drawn_part(side: int) -> NDArray[np.float32]:
    """Return the weight of the fake in the square around the face, an ellipse, float32 (side, side, 1)."""
    steps = ((np.arange(side) + 0.5) / side * 2 - 1) * FAKE_MARGIN
    right, down = np.meshgrid(steps, steps)
    radius = np.hypot(right / FACE[2] * FACE[3], down)
    return np.clip((1 - radius) / SOFTNESS, 0, 1).astype(np.float32)[..., None]


def _coding_errors(side: int) -> list[cv2.typing.MatLike]:
    """Return maps of grey blotches with a standard deviation of about 1, float32 (side, side, 3)."""
    rng = np.random.default_rng(VARIANT_SEED)
    cells = side // BLOTCH
    maps = (rng.normal(0, 1.6, (cells, cells)).astype(np.float32) for _ in range(BLOTCH_MAPS))
    return [cv2.merge([cv2.resize(each, (side, side))] * 3) for each in maps]


def _background(width: int, height: int) -> Rgb:
    light = np.linspace(1.0, 0.55, height)[:, None, None] * np.array([70, 84, 104])
    return np.ascontiguousarray(np.broadcast_to(light, (height, width, 3)).round().astype(np.uint8))


def _draw(frame: Rgb, card: Rgb, matrix: NDArray[np.float64]) -> bool:
    """Draw the card into the frame in place; return whether any part of it is visible."""
    height, width = frame.shape[:2]
    side = card.shape[0]
    corners = matrix @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]], np.float64)
    left, top = np.maximum(np.floor(corners.min(axis=1)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=1)), (width, height)).astype(int).tolist()
    if left >= right or top >= bottom:
        return False
    # Only the part of the frame under the card is processed, in a third of the time of the whole frame.
    target = frame[top:bottom, left:right]
    shifted = matrix - np.array([[0, 0, left], [0, 0, top]])
    size = (right - left, bottom - top)
    cv2.warpAffine(card, shifted, size, target, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
    return True


def _label(frame: Rgb, text: str, fake: bool) -> None:
    unit = frame.shape[0] / 720
    font, size, weight = cv2.FONT_HERSHEY_DUPLEX, 1.4 * unit, max(1, round(2 * unit))
    (wide, high), _ = cv2.getTextSize(text, font, size, weight)
    margin = round(24 * unit)
    colour = FAKE_COLOUR if fake else REAL_COLOUR
    cv2.rectangle(frame, (margin, margin), (3 * margin + wide, 3 * margin + high), colour, cv2.FILLED)
    cv2.putText(
        frame, text, (2 * margin, 2 * margin + high), font, size, (255, 255, 255), weight, cv2.LINE_AA
    )
