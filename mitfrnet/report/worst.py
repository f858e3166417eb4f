"""The test clips that a model gets most wrong."""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mitfrnet.errors import FeatureError
from mitfrnet.files import write_json
from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.report.confusion import class_of
from mitfrnet.report.over_rates import blocks
from mitfrnet.report.results import Results
from mitfrnet.report.scores import Group, score_groups

LIST = "clips.json"


@dataclass(frozen=True)
class WorstClip:
    """A test clip, its label and its prediction.

    Attributes:
        corpus, utterance_id: which clip.
        label: as printed.
        prediction: as printed; the mean over runs, or the most frequent class.
        transcript: its transcript.
        page: file name of its page, in the folder of the list; None without a page.
    """

    corpus: str
    utterance_id: str
    label: str
    prediction: str
    transcript: str = ""
    page: str | None = None

    @property
    def command(self) -> str:
        """Return the command that inspects it."""
        return shlex.join(["mitfrnet", "inspect", f"{self.corpus}/{self.utterance_id}"])


def judged_group(results: Results) -> Group:
    """Return the scores by which the worst clips of the first corpus are chosen.

    They are those at the lowest missing rate.
    """
    return blocks(score_groups(results))[0].groups[0]


def worst_clips(group: Group, model: str, ids: Sequence[str], most: int) -> list[WorstClip]:
    """Return the clips with the largest error, or those that most runs put in one wrong class.

    Clips with equal errors are in the order of their ids. Clips without an error are left out.

    Args:
        group: the corpus and missing rate.
        model: key of the predictor.
        ids: utterance ids, in the order of the group's labels.
        most: the largest number of clips.
    """
    predictions, label, scale = group.row(model).predictions, group.label, group.scale
    if isinstance(scale, ClassScale):
        classes = np.arange(len(scale.classes))
        votes = (predictions[..., None] == classes).mean(0)  # (clips, classes)
        prediction = votes.argmax(-1)
        error = np.where(prediction == label, 0, votes.max(-1))
    else:
        prediction = predictions.mean(0)
        error = np.abs(prediction - label)
    order = sorted(np.flatnonzero(error), key=lambda i: (-error[i], ids[i]))
    return [
        WorstClip(
            corpus=group.corpus,
            utterance_id=ids[i],
            label=_shown(label[i], scale),
            prediction=_shown(prediction[i], scale),
        )
        for i in order[:most]
    ]


def _shown(value: float, scale: LabelScale) -> str:
    return class_of(value, scale) if isinstance(scale, ClassScale) else f"{value:.2f}"


def page_name(utterance_id: str) -> str:
    """Return a file name for the page of an utterance with any id.

    Some characters of an id cannot stand in a file name or a link, and some file systems ignore
    case. The digest keeps ids apart that differ in nothing else.
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "-", utterance_id)[:60].strip("-")
    digest = hashlib.sha256(utterance_id.encode()).hexdigest()[:12]
    return f"{readable}-{digest}.html".removeprefix("-")


def write_worst(clips: Sequence[WorstClip], folder: Path) -> None:
    """Write the list of clips to the folder of their pages."""
    write_json([asdict(clip) for clip in clips], folder / LIST)


def read_worst(folder: Path, report: Path) -> list[WorstClip]:
    """Return the list of clips in a folder, with `page` as a link if the page exists.

    Args:
        folder: the folder of the list and the pages.
        report: the folder of the page that links to them.

    Raises:
        FeatureError: the list is absent or broken.
    """
    path = folder / LIST
    try:
        clips = [WorstClip(**clip) for clip in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, TypeError, ValueError) as error:
        raise FeatureError(f"{path}: no list of clips ({error}); run the inspect stage") from error
    links = {p.name: quote(Path(os.path.relpath(p, report)).as_posix()) for p in folder.iterdir()}
    return [replace(clip, page=links.get(clip.page or "")) for clip in clips]
