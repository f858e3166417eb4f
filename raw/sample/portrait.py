"""How the sample corpus looks: a speaking face drawn with OpenCV.

Mouth corners and brows follow the sentiment of the face, the jaw follows the loudness of the
speech; tilt, turn, gaze and blinks follow nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from people import Colour, Speaker

PICTURE_SIZE = 176  # pixels, square
FRAME_RATE_HZ = 20

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pose:
    """What changes from frame to frame. Lengths are in half face widths."""

    smile: float  # label_V / 3 at this moment, in about [-1, 1]
    jaw: float  # in [0, 1]
    lids: float  # 1 is open, 0 is shut
    gaze: tuple[float, float]
    turn: tuple[float, float]  # shift of the features over the head: a slight turn
    shift: tuple[float, float]
    tilt_degrees: float
    scale: float


class Layer:
    """A picture with premultiplied transparency that shapes are painted on."""

    def __init__(self, size: int) -> None:
        self.pixels: Array = np.zeros((size, size, 4), np.float32)  # red, green, blue, alpha

    def copy(self) -> "Layer":
        """Return a layer that can be painted on without changing this one."""
        twin = Layer(0)
        twin.pixels = self.pixels.copy()
        return twin

    def paint(
        self,
        outline: Array,
        colour: Colour,
        *,
        opacity: float = 1.0,
        blur: float = 0.0,
        within: Array | None = None,
        inside: bool = False,
    ) -> None:
        """Fill an outline, (points, 2) in pixels.

        Args:
            outline: the corners of the shape.
            colour: its colour.
            opacity: how much of what lies below is covered, in [0, 1].
            blur: standard deviation of its soft edge, in pixels.
            within: a second outline; nothing is painted outside of it.
            inside: paint only where the layer has something already.
        """
        margin = int(3 * blur) + 2
        size = self.pixels.shape[0]
        left, top = np.maximum(np.floor(outline.min(0)).astype(int) - margin, 0)
        right, bottom = np.minimum(np.ceil(outline.max(0)).astype(int) + margin, size)
        if right <= left or bottom <= top:
            return
        corner = np.array([left, top])
        shape = (int(bottom - top), int(right - left))
        mask = _fill(outline - corner, shape)
        if blur:
            mask = cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32)
        if within is not None:
            mask = mask * _fill(within - corner, shape)
        mask = mask[..., None] * opacity
        below = self.pixels[top:bottom, left:right]
        paint = np.array([*colour, 1], np.float32)
        if inside:
            paint = paint * below[..., 3:]
        self.pixels[top:bottom, left:right] = below * (1 - mask) + paint * mask

    def stroke(
        self,
        line: Array,
        width: float,
        colour: Colour,
        *,
        opacity: float = 1.0,
        blur: float = 0.0,
        within: Array | None = None,
    ) -> None:
        """Draw a line, (points, 2), that tapers towards both ends."""
        along = np.gradient(line, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], 1)
        across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
        taper = np.sin(np.linspace(0.12, 0.88, len(line)) * np.pi)[:, None] ** 0.7 * width / 2
        outline = np.concatenate([line + across * taper, (line - across * taper)[::-1]])
        self.paint(outline, colour, opacity=opacity, blur=blur, within=within)


def _fill(outline: Array, shape: tuple[int, int]) -> Array:
    """Return the coverage of an outline, (height, width), in [0, 1]."""
    mask = np.zeros(shape, np.uint8)
    points = np.round(outline * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], (255,), cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def _smooth(corners: object, *, closed: bool = True, rounds: int = 3) -> Array:
    """Return a smooth curve from its corners, (points, 2), by cutting corners (Chaikin)."""
    points = np.asarray(corners, np.float32)
    for _ in range(rounds):
        following = np.roll(points, -1, 0) if closed else points[1:]
        current = points if closed else points[:-1]
        cut = np.stack([0.75 * current + 0.25 * following, 0.25 * current + 0.75 * following], 1)
        cut = cut.reshape(-1, 2)
        points = cut if closed else np.concatenate([points[:1], cut, points[-1:]])
    return points


def _mirror(half: object) -> Array:
    """Return a closed outline from its right half, listed from top to bottom."""
    right = np.asarray(half, np.float32)
    return np.concatenate([right, (right * [-1, 1])[::-1]])


def _ellipse(x: float, y: float, width: float, height: float) -> Array:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1)


def _tint(colour: Colour, towards: Colour, amount: float) -> Colour:
    mixed = np.array(colour) * (1 - amount) + np.array(towards) * amount
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


BLACK: Colour = (22.0, 14.0, 14.0)
WHITE: Colour = (255.0, 250.0, 244.0)


class Portrait:
    """Draws one speaker in front of one background.

    Shapes are given in half face widths around the centre of the face, x to the right and y down,
    and drawn at twice the size of the picture.
    """

    SIZE = 2 * PICTURE_SIZE
    UNIT = 0.238 * SIZE  # half a face width in pixels
    CENTRE = np.array([0.5, 0.475]) * SIZE
    NECK = np.array([0.5, 0.475 + 1.3 * 0.238]) * SIZE  # the head tilts around this point

    def __init__(self, speaker: Speaker, rng: np.random.Generator) -> None:
        self.speaker = speaker
        self._origin = self.CENTRE
        self.shade = _tint(speaker.skin, (96, 34, 30), 0.36)
        self.deep_shade = _tint(speaker.skin, (48, 16, 18), 0.62)
        self.light = _tint(speaker.skin, WHITE, 0.4)
        self.background = self._draw_background(rng)
        self.body = self._draw_body()
        self.hair_behind = self._draw_hair_behind()
        self._heads: dict[int, Layer] = {}

    def _place(self, points: object) -> Array:
        return np.asarray(points, np.float32) * self.UNIT + self._origin

    def _face(self, points: object) -> Array:
        """Place points of the face, which stretch with its width."""
        return self._place(np.asarray(points, np.float32) * [self.speaker.face_width, 1])

    def _draw_background(self, rng: np.random.Generator) -> Array:
        """Return a room out of focus, (size, size, 3)."""
        hue = rng.uniform(0, 180)
        wall_colours = [[hue, rng.uniform(25, 60), 205], [hue + 14, rng.uniform(40, 75), 150]]
        hsv = np.array([wall_colours]).astype(np.uint8)
        top, bottom = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0].astype(np.float32)
        slope = np.linspace(0, 1, self.SIZE, dtype=np.float32)[:, None, None]
        wall = Layer(self.SIZE)
        wall.pixels[..., :3] = top * (1 - slope) + bottom * slope
        wall.pixels[..., 3] = 1
        bright = _tint(tuple(top), WHITE, 0.5)
        for _ in range(3):
            x, y = rng.uniform(-2, 2), rng.uniform(-1.9, 0.6)
            size = rng.uniform(0.25, 0.6)
            wall.paint(self._place(_ellipse(x, y, size, size)), bright, opacity=0.3, blur=10)
        return wall.pixels[..., :3]

    def _draw_body(self) -> Layer:
        """Return neck and shoulders."""
        speaker, body = self.speaker, Layer(self.SIZE)
        shirt = speaker.shirt
        half = [(0.2, 1.5), (0.5, 1.58), (1.15, 1.78), (1.75, 2.05), (2.0, 2.7), (2.0, 3.2)]
        shoulders = self._place(_smooth(_mirror(half)))
        body.paint(shoulders, shirt)
        for side in (-1, 1):
            sleeve = self._place(_ellipse(side * 1.75, 2.5, 0.5, 0.9))
            body.paint(sleeve, _tint(shirt, BLACK, 0.6), opacity=0.5, blur=14, inside=True)
        body.paint(
            self._place(_ellipse(-0.7, 2.0, 0.5, 0.25)), WHITE, opacity=0.16, blur=12, inside=True
        )
        collar = [(0.3, 1.45), (0.62, 1.62), (0.42, 1.92), (0.12, 2.12), (0, 2.16)]
        body.paint(self._place(_smooth(_mirror(collar))), _tint(shirt, BLACK, 0.4))
        neck = [(0.46, 0.6), (0.45, 1.3), (0.54, 1.58), (0.3, 1.9), (0.08, 2.06), (0, 2.08)]
        outline = self._place(_smooth(_mirror(neck)))
        body.paint(outline, _tint(speaker.skin, self.shade, 0.35))
        shadow = self._place(_ellipse(0.04, speaker.chin + 0.02, 0.66, 0.3))
        body.paint(shadow, self.deep_shade, opacity=0.62, blur=7, within=outline)
        return body

    def _draw_head(self, jaw: int) -> Layer:
        """Return ears and skin without features; `jaw` is the opening in eighths."""
        if jaw in self._heads:
            return self._heads[jaw]
        speaker, head = self.speaker, Layer(self.SIZE)
        drop = 0.15 * jaw / 8
        for side in (-1, 1):
            ear = _ellipse(side * 1.0, 0.02, 0.15, 0.27)
            head.paint(self._face(ear), _tint(speaker.skin, self.shade, 0.3))
            inner = _ellipse(side * 1.02, 0.02, 0.07, 0.15)
            head.paint(self._face(inner), self.shade, opacity=0.8, blur=2)
        jaw_width, chin = speaker.jaw_width, speaker.chin + drop
        half = [
            (0, -1.38), (0.42, -1.34), (0.82, -1.05), (1.0, -0.55), (1.01, 0.05),
            (0.97, 0.48), (jaw_width, 0.86 + drop / 2), (jaw_width * 0.66, chin - 0.13),
            (jaw_width * 0.36, chin + 0.02), (0, chin + 0.03),
        ]  # fmt: skip
        outline = self._face(_smooth(_mirror(half)))
        head.paint(outline, speaker.skin)
        # Light comes from the upper left: the far cheek, the temples and the jaw lie in shade.
        for x, y, width, height, opacity in (
            (1.05, 0.25, 0.3, 1.1, 0.75),
            (-1.12, 0.3, 0.2, 1.0, 0.45),
            (0.15, chin + 0.08, 0.75, 0.2, 0.6),
            (0, -1.28, 0.9, 0.22, 0.5),
        ):
            ellipse = self._face(_ellipse(x, y, width, height))
            head.paint(ellipse, self.shade, opacity=opacity, blur=11, within=outline)
        for x, y, width, height, opacity in (
            (-0.28, -0.78, 0.42, 0.2, 0.5),
            (-0.55, 0.3, 0.18, 0.13, 0.4),
            (0.5, 0.3, 0.14, 0.11, 0.25),
            (-0.04, chin - 0.17, 0.17, 0.1, 0.35),
        ):
            ellipse = self._face(_ellipse(x, y, width, height))
            head.paint(ellipse, self.light, opacity=opacity, blur=9, within=outline)
        if speaker.beard:
            self._draw_beard(head, outline, drop)
        self._heads[jaw] = head
        return head

    def _draw_beard(self, head: Layer, outline: Array, drop: float) -> None:
        jaw_width, chin = self.speaker.jaw_width, self.speaker.chin + drop
        half = [
            (0, 0.47), (0.2, 0.47), (0.44, 0.58), (0.52, 0.72), (0.72, 0.62), (0.98, 0.1),
            (1.2, 0.2), (jaw_width + 0.3, 1.0), (jaw_width * 0.5, chin + 0.2), (0, chin + 0.2),
        ]  # fmt: skip
        beard = self._face(_smooth(_mirror(half)))
        head.paint(beard, self.speaker.hair, opacity=0.5, blur=3.5, within=outline)

    def _draw_hair_behind(self) -> Layer:
        """Return the hair behind neck and shoulders."""
        behind, style = Layer(self.SIZE), self.speaker.hair_style
        hair = _tint(self.speaker.hair, BLACK, 0.25)
        if style == "bun":
            behind.paint(self._face(_ellipse(0, -1.66, 0.46, 0.4)), hair)
            shine = self._face(_ellipse(-0.12, -1.76, 0.18, 0.1))
            behind.paint(shine, WHITE, opacity=0.25, blur=5)
        elif style == "curly":
            for angle in np.linspace(-0.22 * np.pi, 1.22 * np.pi, 17):
                x, y = 1.1 * np.cos(angle), -0.5 - 1.02 * np.sin(angle)
                behind.paint(self._face(_ellipse(x, y, 0.36, 0.36)), hair)
        elif style in ("long", "bob"):
            length = 2.1 if style == "long" else 1.1
            half = [
                (0, -1.61), (0.78, -1.58), (1.28, -1.0), (1.32, 0.1), (1.42, length - 0.3),
                (1.1, length), (0.5, length - 0.3),
            ]  # fmt: skip
            outline = self._face(_smooth(_mirror(half)))
            behind.paint(outline, hair)
            shadow = self._face(_ellipse(0, 0.6, 0.95, 1.3))
            behind.paint(shadow, BLACK, opacity=0.4, blur=12, within=outline)
        return behind

    def _draw_hair(self, head: Layer) -> None:
        """Draw the hair over the forehead."""
        style, hair = self.speaker.hair_style, self.speaker.hair
        if style == "bald":
            head.paint(
                self._face(_ellipse(-0.25, -1.05, 0.3, 0.12)),
                WHITE,
                opacity=0.3,
                blur=7,
                inside=True,
            )
            return
        hairline = {"fringe": -0.62, "bob": -0.66, "curly": -0.86}.get(style, -0.82)
        part = {"short": 0.45, "long": -0.05, "bob": 0.0, "bun": 0.0}.get(style, 0.3)
        low = {"long": 0.5, "bob": 0.75, "curly": -0.1}.get(style, -0.2)
        top = -1.62 if style in ("short", "fringe", "curly") else -1.56
        peak = hairline - (0.28 if style in ("long", "bun") else 0.08)
        outer = [
            (-1.03, low), (-1.14, -0.4), (-1.12, -0.95), (-0.75, top + 0.15), (0, top),
            (0.75, top + 0.15), (1.12, -0.95), (1.14, -0.4), (1.03, low),
        ]  # fmt: skip
        inner = [
            (0.93, low - 0.05), (0.93, -0.45), (0.8, hairline), (part, peak),
            (-0.45, hairline + 0.03), (-0.82, hairline + 0.08), (-0.93, -0.42), (-0.93, low - 0.05),
        ]  # fmt: skip
        outline = self._face(_smooth([*outer, *inner]))
        head.paint(
            outline + np.array([0, 5], np.float32),
            self.deep_shade,
            opacity=0.45,
            blur=4,
            inside=True,
        )
        if style == "curly":
            for x in np.linspace(-0.85, 0.85, 8):
                y = -1.08 - 0.16 * np.cos(x * 1.7)
                head.paint(self._face(_ellipse(x, y, 0.27, 0.25)), hair)
            for x in np.linspace(-0.8, 0.8, 7):
                spot = self._face(_ellipse(x, -1.22 - 0.14 * np.cos(x * 1.7), 0.1, 0.07))
                head.paint(spot, WHITE, opacity=0.12, blur=4)
            return
        head.paint(outline, hair)
        for x, width in ((-0.5, 0.3), (0.35, 0.2)):
            shine = self._face(_ellipse(x, -1.27, width, 0.1))
            head.paint(shine, WHITE, opacity=0.28, blur=8, within=outline)
        for side in (-1, 1):
            edge = self._face(_ellipse(side * 1.13, -0.4, 0.14, 0.8))
            head.paint(edge, BLACK, opacity=0.4, blur=7, within=outline)

    def _draw_eye(self, head: Layer, side: int, pose: Pose) -> None:
        speaker, size = self.speaker, self.speaker.eye_size
        x, y = side * speaker.eye_spacing, -0.11
        smile = max(pose.smile, 0)
        along = np.linspace(-1, 1, 21)
        arch = 1 - along**2
        lower = y + 0.02 + (0.085 - 0.035 * smile) * size * arch
        upper = y + 0.02 - 0.15 * size * arch**0.8 * (1 + 0.1 * side * along)
        lid = lower + (upper - lower) * pose.lids
        xs = x + 0.235 * size * along
        slant = -0.02 * side * along  # the outer corner lies a little higher

        def curve(ys: NDArray[np.float64]) -> Array:
            return self._face(np.stack([xs, ys + slant], 1))

        socket = self._face(_ellipse(x, y - 0.06, 0.33, 0.2))
        head.paint(socket, self.shade, opacity=0.45, blur=5)
        open_eye = np.concatenate([curve(lid), curve(lower)[::-1]])
        whole_eye = np.concatenate([curve(upper), curve(lower)[::-1]])
        head.paint(whole_eye, _tint(speaker.skin, self.shade, 0.55))
        if pose.lids > 0.15:
            head.paint(open_eye, (236, 230, 226))
            iris_x, iris_y = x + pose.gaze[0], y - 0.015 + pose.gaze[1]
            rim = _tint(speaker.iris, BLACK, 0.6)
            for radius, colour in ((0.112, rim), (0.09184, speaker.iris), (0.0504, BLACK)):
                disc = self._face(_ellipse(iris_x, iris_y, radius * size, radius * size))
                head.paint(disc, colour, within=open_eye)
            glint = self._face(_ellipse(iris_x - 0.04, iris_y - 0.045, 0.03, 0.03))
            head.paint(glint, WHITE, within=open_eye)
            shadow = curve(lid) + np.array([0, 1.5], np.float32)
            head.stroke(shadow, 6, BLACK, opacity=0.4, blur=2, within=open_eye)
        head.stroke(curve(lid), 4.2, _tint(speaker.hair, BLACK, 0.75))
        head.stroke(curve(lower), 1.6, self.deep_shade, opacity=0.7)
        crease = curve(upper - 0.06)
        head.stroke(crease, 2.2, self.deep_shade, opacity=0.6, blur=0.8)

    def _draw_brow(self, head: Layer, side: int, pose: Pose) -> None:
        """Draw a brow: raised and arched with a smile, knit and low with a frown."""
        glad, cross = max(pose.smile, 0), max(-pose.smile, 0)
        spacing = self.speaker.eye_spacing
        inner = (spacing - 0.22 - 0.05 * cross, -0.4 - 0.07 * glad + 0.13 * cross)
        middle = (spacing + 0.06, -0.53 - 0.1 * glad + 0.07 * cross)
        outer = (spacing + 0.29, -0.4 - 0.06 * glad - 0.01 * cross)
        line = _smooth([inner, middle, outer], closed=False) * [side, 1]
        # Hair grey enough still needs a brow that stands out from the skin.
        colour = _tint(self.speaker.hair, BLACK, 0.35)
        head.stroke(self._face(line), 8.5 * self.speaker.brow_weight, colour, blur=0.8)
        if cross:
            fold = np.array([(0.1, -0.42), (0.07, -0.32), (0.09, -0.2)]) * [side, 1]
            line = self._face(_smooth(fold, closed=False))
            head.stroke(line, 3, self.deep_shade, opacity=0.6 * cross, blur=1)

    def _draw_nose(self, head: Layer) -> None:
        width = self.speaker.nose_width
        side = [(0.1, -0.22), (0.11, 0.05), (width * 0.9, 0.28), (0.08, 0.36), (0.03, 0.1)]
        head.paint(self._face(_smooth(side)), self.shade, opacity=0.6, blur=4)
        bridge = [(-0.05, -0.25), (0.03, -0.25), (0.04, 0.2), (-0.07, 0.2)]
        head.paint(self._face(_smooth(bridge)), self.light, opacity=0.5, blur=4)
        head.paint(self._face(_ellipse(-0.02, 0.24, 0.08, 0.06)), self.light, opacity=0.65, blur=3)
        under = self._face(_ellipse(0.02, 0.4, width * 0.95, 0.06))
        head.paint(under, self.deep_shade, opacity=0.4, blur=3.5)
        for sign in (-1, 1):
            nostril = self._face(_ellipse(sign * width * 0.45, 0.365, 0.05, 0.025))
            head.paint(nostril, self.deep_shade, opacity=0.95, blur=1)
            wing = [
                (sign * width * 0.95, 0.22),
                (sign * width * 1.15, 0.32),
                (sign * width * 0.8, 0.39),
            ]
            line = self._face(_smooth(wing, closed=False))
            head.stroke(line, 3, self.deep_shade, opacity=0.65, blur=0.8)

    def _draw_mouth(self, head: Layer, pose: Pose) -> None:
        """Draw lips, teeth and tongue; the corners rise and fall with the smile."""
        smile, weight = pose.smile, self.speaker.lip_weight
        half_width = 0.37 + 0.08 * max(smile, 0) - 0.03 * max(-smile, 0) - 0.05 * pose.jaw
        middle = 0.735 + 0.035 * smile
        corner = middle - 0.195 * smile + 0.08 * pose.jaw
        opening = 0.02 + 0.27 * pose.jaw
        along = np.linspace(-1, 1, 41)
        bend = np.abs(along) ** 1.7
        xs = half_width * along

        def curve(height: float) -> NDArray[np.float64]:
            return height + (corner - height) * bend

        round_off = (1 - along**2) ** 0.75
        upper = curve(middle - 0.03 * pose.jaw)
        lower = curve(middle + opening) + 0.012 * (1 - bend)
        bow = 1 - 0.3 * np.exp(-((along / 0.16) ** 2))
        top = upper - 0.085 * weight * round_off * bow * (1 - 0.2 * max(smile, 0))
        bottom = lower + 0.12 * weight * round_off

        def shape(above: NDArray[np.float64], below: NDArray[np.float64]) -> Array:
            line = np.stack([xs, above], 1)
            return self._face(np.concatenate([line, np.stack([xs, below], 1)[::-1]]))

        lips = self.speaker.lips
        shadow = self._face(_ellipse(0, float(bottom[20]) + 0.06, 0.26, 0.05))
        head.paint(shadow, self.deep_shade, opacity=0.45, blur=4)
        head.paint(shape(top, upper), _tint(lips, BLACK, 0.2))
        head.paint(shape(lower, bottom), lips)
        gloss = self._face(_ellipse(-0.05, float(lower[20] + 0.045 * weight), 0.13, 0.022))
        head.paint(gloss, WHITE, opacity=0.35, blur=2.5)
        gap = shape(upper, lower)
        head.paint(gap, (84, 26, 30))
        if pose.jaw > 0.08:
            tongue = self._face(_ellipse(0, float(lower[20]) + 0.03, 0.2, 0.1))
            head.paint(tongue, (186, 84, 86), blur=2, within=gap)
            teeth = np.minimum(upper + 0.075 * (1 - max(-smile, 0)), lower)
            head.paint(shape(upper, teeth), (240, 236, 228), within=gap)
        head.stroke(self._face(np.stack([xs, upper], 1)), 2.6, _tint(lips, BLACK, 0.7), opacity=0.8)
        for side in (-1, 1):
            pit = self._face(_ellipse(side * (half_width + 0.015), corner, 0.035, 0.035))
            head.paint(pit, self.deep_shade, opacity=0.7, blur=2)
            fold = [
                (side * 0.27, 0.36),
                (side * (half_width + 0.08), 0.5 - 0.02 * smile),
                (side * (half_width + 0.13), 0.68 - 0.1 * smile),
            ]
            line = self._face(_smooth(fold, closed=False))
            head.stroke(line, 3.5, self.deep_shade, opacity=0.16 + 0.3 * abs(smile), blur=1.6)

    def _draw_glasses(self, head: Layer) -> None:
        frame, spacing = (58, 44, 40), self.speaker.eye_spacing
        for side in (-1, 1):
            outer = self._face(_ellipse(side * spacing, -0.09, 0.335, 0.29))
            inner = self._face(_ellipse(side * spacing, -0.09, 0.31, 0.265))
            ring = np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])
            head.paint(ring, frame, opacity=0.9)
            arm = [(side * (spacing + 0.33), -0.14), (side * 0.86, -0.15), (side * 1.0, -0.12)]
            head.stroke(self._face(arm), 4, frame)
        head.stroke(
            self._face(_smooth([(-0.1, -0.12), (0, -0.17), (0.1, -0.12)], closed=False)), 4, frame
        )

    def draw(self, pose: Pose) -> NDArray[np.uint8]:
        """Return one frame, (PICTURE_SIZE, PICTURE_SIZE, 3), red green blue."""
        head = self._draw_head(round(8 * pose.jaw)).copy()
        self._origin = self.CENTRE + np.array(pose.turn) * self.UNIT
        cheek = 0.16 + 0.2 * max(pose.smile, 0)
        for side in (-1, 1):
            blush = self._face(_ellipse(side * 0.6, 0.36 - 0.04 * pose.smile, 0.24, 0.17))
            head.paint(blush, (214, 84, 76), opacity=cheek, blur=8, inside=True)
            self._draw_eye(head, side, pose)
        self._draw_nose(head)
        self._draw_mouth(head, pose)
        for side in (-1, 1):
            self._draw_brow(head, side, pose)
        if self.speaker.glasses:
            self._draw_glasses(head)
        self._origin = self.CENTRE
        self._draw_hair(head)

        rotation = cv2.getRotationMatrix2D(tuple(self.NECK), pose.tilt_degrees, pose.scale)
        turn = np.array(rotation, np.float64)
        turn[:, 2] += np.array(pose.shift) * self.UNIT
        follow = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
        # Shoulders hardly move with small movements of the head, but leave the picture with it.
        away = max(abs(pose.shift[0]) - 0.3, 0) * np.sign(pose.shift[0])
        follow[:, 2] = (np.array(pose.shift) * 0.3 + [0.7 * away, 0]) * self.UNIT
        picture = self.background
        for layer, move in ((self.hair_behind, turn), (self.body, follow), (head, turn)):
            moved = cv2.warpAffine(
                layer.pixels, move, (self.SIZE, self.SIZE), flags=cv2.INTER_LINEAR
            )
            picture = picture * (1 - moved[..., 3:]) + moved[..., :3]
        small = cv2.resize(picture, (PICTURE_SIZE, PICTURE_SIZE), interpolation=cv2.INTER_AREA)
        return np.clip(np.round(small), 0, 255).astype(np.uint8)


def draw_frames(
    portrait: Portrait,
    loudness: Array,
    *,
    label_v: float,
    rng: np.random.Generator,
    slides_out: bool = False,
) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of a face that speaks, (PICTURE_SIZE, PICTURE_SIZE, 3), red green blue.

    Args:
        portrait: who speaks, and before which background.
        loudness: of the speech at each frame, (frames,), in [0, 1].
        label_v: sentiment of the face, in [-3, 3].
        rng: decides the small movements.
        slides_out: whether the face leaves the picture halfway.
    """
    frames = len(loudness)
    times = np.arange(frames) / FRAME_RATE_HZ

    def sway(size: float) -> Array:
        """Return a slow random movement, (frames,), within about +-size."""
        tones = [
            np.sin(2 * np.pi * (rng.uniform(low, high) * times + rng.uniform()))
            for low, high in ((0.1, 0.4), (0.4, 0.9))
        ]
        return size * (0.65 * tones[0] + 0.35 * tones[1])

    # The expression is there from the start, grows a little and wavers.
    growth = 0.85 + 0.15 * np.minimum(times / 0.6, 1)
    smile = np.clip(label_v / 3 * growth + sway(0.05), -1.05, 1.05)
    jaw = np.convolve(np.pad(loudness, 1, mode="edge"), [0.2, 0.6, 0.2], "valid")
    lids = np.ones(frames)
    moment = rng.uniform(0.2, 1.6)
    while moment < times[-1]:
        lids = np.minimum(lids, np.clip(np.abs(times - moment) / 0.1 - 0.1, 0, 1))
        moment += rng.uniform(1.2, 3.0)
    glances = rng.uniform(-1, 1, (frames // 12 + 1, 2)) * [0.05, 0.02]
    gaze = np.repeat(glances, 12, axis=0)[:frames]
    lean = rng.uniform(-7, 7)
    tilt, size = lean + sway(3.5), 1 + rng.uniform(-0.04, 0.04) + sway(0.02)
    turn_x, turn_y = rng.uniform(-0.05, 0.05) + sway(0.04), sway(0.03)
    shift_x, shift_y = rng.uniform(-0.15, 0.15) + sway(0.08), sway(0.05)
    if slides_out:
        shift_x = shift_x + 4.2 * np.clip((times / times[-1] - 0.3) / 0.4, 0, 1)

    for i in range(frames):
        yield portrait.draw(
            Pose(
                smile=float(smile[i]),
                jaw=float(jaw[i]),
                lids=float(lids[i]),
                gaze=(float(gaze[i, 0]), float(gaze[i, 1])),
                turn=(float(turn_x[i]), float(turn_y[i])),
                shift=(float(shift_x[i]), float(shift_y[i])),
                tilt_degrees=float(tilt[i]),
                scale=float(size[i]),
            )
        )
