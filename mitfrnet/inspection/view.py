"""What a page or a picture shows of one clip."""

from collections.abc import Sequence
from dataclasses import dataclass

from mitfrnet.errors import ParamsError
from mitfrnet.features.visual import RECIPES, VisualParams
from mitfrnet.inspection.masking import ClipMasks
from mitfrnet.inspection.playback import Playback, make_playback
from mitfrnet.inspection.predictions import ModelPredictions
from mitfrnet.inspection.stills import Still, make_stills
from mitfrnet.inspection.subject import Subject
from mitfrnet.inspection.tracks import Waveform, waveform
from mitfrnet.params import parse_params


@dataclass(frozen=True)
class View:
    """All that a page or a picture shows of one clip.

    Attributes:
        subject: the clip.
        masks: that it is shown under.
        models: what models predict; may be empty.
        remark: on models that are left out, or why there are none.
        stills: frames with the landmarks of the face.
        playback: None where the clip does not fit into a page.
        sound: its waveform; None where there is none.
    """

    subject: Subject
    masks: ClipMasks
    models: Sequence[ModelPredictions]
    remark: str | None
    stills: Sequence[Still]
    playback: Playback | None
    sound: Waveform | None


def make_view(
    subject: Subject,
    masks: ClipMasks,
    models: Sequence[ModelPredictions],
    remark: str | None = None,
) -> View:
    """Return the view of a clip, whose media are decoded for it.

    The arguments are attributes of `View`.
    """
    clip, limits, duration_s = subject.clip, subject.limits, subject.duration_s
    fps = None if subject.probe.video_reason else subject.probe.fps
    return View(
        subject,
        masks,
        models,
        remark,
        stills=make_stills(clip, limits, _face_params(subject), duration_s=duration_s),
        playback=make_playback(clip, limits, fps=fps, duration_s=duration_s),
        sound=waveform(subject),
    )


def _face_params(subject: Subject) -> VisualParams:
    """Return settings for face detection: those of the features, if they are ours."""
    identity = subject.tensors.metadata["features"]["visual"]["identity"]
    try:
        return parse_params(VisualParams, identity.get("settings", {}), where="visual features")
    except ParamsError:  # features of another extractor than ours
        return RECIPES["mmsa_fet"]
