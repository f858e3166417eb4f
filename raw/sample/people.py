"""Who speaks in the sample corpus: looks and voices of the drawn people."""

from dataclasses import dataclass

Colour = tuple[float, float, float]  # red, green, blue in [0, 255]


@dataclass(frozen=True)
class Speaker:
    """Looks and voice of one drawn person. Face measures are relative to half the face width."""

    skin: Colour
    hair: Colour
    shirt: Colour
    hair_style: str  # short, long, bob, curly, bun, fringe or bald
    voice: str  # eSpeak NG voice with its variant
    pitch: int  # eSpeak NG pitch at label_A = 0, of 0 to 99
    words_per_minute: int
    iris: Colour = (92, 64, 44)
    lips: Colour = (178, 88, 84)
    face_width: float = 1.0
    jaw_width: float = 0.8
    chin: float = 1.32  # from the centre of the face down
    eye_spacing: float = 0.42
    eye_size: float = 1.0
    brow_weight: float = 1.0
    nose_width: float = 0.2
    lip_weight: float = 1.0
    beard: bool = False
    glasses: bool = False


SPEAKERS = (
    Speaker(
        skin=(240, 200, 172), hair=(96, 58, 34), shirt=(58, 104, 148), hair_style="short",
        voice="en-us+m3", pitch=42, words_per_minute=185, iris=(82, 112, 140), lips=(190, 108, 98),
        jaw_width=0.86, brow_weight=1.15,
    ),
    Speaker(
        skin=(250, 216, 190), hair=(206, 158, 88), shirt=(170, 74, 94), hair_style="long",
        voice="en-us+f2", pitch=50, words_per_minute=190, iris=(70, 120, 92), lips=(204, 92, 96),
        jaw_width=0.74, chin=1.27, eye_size=1.1, nose_width=0.17, lip_weight=1.15,
    ),
    Speaker(
        skin=(126, 84, 58), hair=(34, 26, 24), shirt=(214, 158, 60), hair_style="curly",
        voice="en-us+f4", pitch=44, words_per_minute=180, iris=(58, 36, 24), lips=(140, 66, 62),
        jaw_width=0.78, chin=1.29, eye_size=1.08, nose_width=0.24, lip_weight=1.35,
    ),
    Speaker(
        skin=(150, 104, 74), hair=(30, 24, 24), shirt=(76, 122, 92), hair_style="bald",
        voice="en-us+m7", pitch=36, words_per_minute=178, iris=(60, 40, 28), lips=(146, 82, 72),
        face_width=1.02, jaw_width=0.88, nose_width=0.25, brow_weight=1.2, lip_weight=1.15,
        beard=True,
    ),
    Speaker(
        skin=(226, 180, 142), hair=(38, 30, 32), shirt=(118, 92, 150), hair_style="bob",
        voice="en-us+f5", pitch=46, words_per_minute=192, iris=(64, 42, 30), lips=(192, 90, 92),
        jaw_width=0.77, chin=1.28, eye_size=1.02, nose_width=0.19,
    ),
    Speaker(
        skin=(214, 164, 126), hair=(58, 42, 36), shirt=(70, 84, 96), hair_style="fringe",
        voice="en-us+m1", pitch=52, words_per_minute=188, iris=(84, 60, 38), lips=(176, 96, 86),
        face_width=0.97, jaw_width=0.82, brow_weight=1.1, glasses=True,
    ),
    Speaker(
        skin=(246, 208, 184), hair=(164, 74, 38), shirt=(64, 138, 138), hair_style="bun",
        voice="en-us+f1", pitch=52, words_per_minute=184, iris=(76, 128, 122), lips=(206, 104, 98),
        jaw_width=0.75, chin=1.3, eye_size=1.08, eye_spacing=0.43, nose_width=0.18,
    ),
    Speaker(
        skin=(238, 194, 168), hair=(176, 172, 168), shirt=(122, 66, 58), hair_style="short",
        voice="en-us+m5", pitch=46, words_per_minute=176, iris=(86, 108, 126), lips=(184, 108, 100),
        face_width=1.03, jaw_width=0.9, chin=1.34, eye_size=0.95, nose_width=0.23,
    ),
)  # fmt: skip
