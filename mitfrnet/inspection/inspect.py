"""Inspect one clip: gather what there is, and write it as a page or a picture."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mitfrnet.corpus.transcripts.words import Transcript
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import MitfrnetError, ParamsError
from mitfrnet.features.visual import RECIPES, VisualParams
from mitfrnet.files import replacing
from mitfrnet.grid import GridParams
from mitfrnet.inspection import gather, masking, predictions, tracks
from mitfrnet.inspection.masking import ClipMasks, ShownMasks
from mitfrnet.inspection.page import View, render_page
from mitfrnet.inspection.playback import make_playback
from mitfrnet.inspection.predictions import ModelPredictions
from mitfrnet.inspection.stills import Still, make_stills
from mitfrnet.missing import MaskParams
from mitfrnet.params import load_params, parse_params
from mitfrnet.predict.extraction import LIMITS, FeatureSettings
from mitfrnet.predict.predictor import Predictor, model_folder
from mitfrnet.predict.transcripts import beside

# What models make of an utterance under masks, and what is to be said of those left out.
Predict = Callable[[SplitTensors, ClipMasks], tuple[list[ModelPredictions], str | None]]


def inspect(
    target: str,
    *,
    corpus: str | None = None,
    models: Sequence[Path | str] = (),
    transcript: str = "",
    root: Path = Path(),
) -> View:
    """Return all that is to be shown of a clip.

    Args:
        target: a file, `<corpus>/<utterance id>`, or, with `corpus`, an utterance id.
        corpus: of the utterance.
        models: folders of trained models, or their names on the hub; of an utterance the
            default is those of the grid.
        transcript: of a clip that is in no corpus; empty: what a file beside it holds.
        root: the folder of the project.

    Raises:
        MitfrnetError: there is nothing to show, and why.
    """
    found, name = gather.find(target, corpus, root)
    remark = None
    if found is None:
        folders = [model_folder(model) for model in models]
        for folder in folders:
            Predictor(folder)  # refuses a model whose features cannot be made here
        recipe = FeatureSettings(folders[0], LIMITS) if folders else None
        language = gather.first_language() if recipe is None else recipe.language
        said = (
            Transcript(transcript, source="given") if transcript else beside(Path(name), language)
        )
        if isinstance(said, MitfrnetError):
            raise said
        subject = gather.gather_clip(Path(name), said, recipe)
        if recipe is not None:
            hide = MaskParams(**recipe.config["training"]["masks"]["params"])
        else:
            hide = load_params(MaskParams, section="mask", path=root / "params.yaml")
            remark = "No model: name one with --model."
        masks = masking.draw(subject.tensors, subject.part, hide)
        return _view(
            subject, masks, predictions.of_folders(folders, subject.tensors, masks), remark
        )

    def predict(
        tensors: SplitTensors, masks: ClipMasks
    ) -> tuple[list[ModelPredictions], str | None]:
        if not models:
            return predictions.of_grid(found, tensors, masks, root)
        folders = [model_folder(model) for model in models]
        return predictions.of_folders(folders, tensors, masks), None

    params = root / "params.yaml"
    shown = ShownMasks(
        load_params(GridParams, section="grid", path=params).missing_rates,
        load_params(MaskParams, section="mask", path=params),
    )
    return inspect_utterance(found, name, predict, shown, root)


def inspect_utterance(
    corpus: str, utterance_id: str, predict: Predict, shown: ShownMasks, root: Path = Path()
) -> View:
    """Return all that is to be shown of an utterance of a corpus.

    Args:
        corpus: its name.
        utterance_id: `<video_id>/<clip_id>`.
        predict: what models make of it.
        shown: which of the corpus's masks.
        root: the folder of the project.

    Raises:
        MitfrnetError: as for `inspect`.
    """
    with gather.gather_utterance(corpus, utterance_id, root) as subject:
        folder = root / "data" / corpus / "masks"
        masks = masking.corpus_masks(subject.tensors, subject.part, folder, shown)
        return _view(subject, masks, *predict(subject.tensors, masks))


def _view(
    subject: gather.Subject,
    masks: ClipMasks,
    predicted: list[ModelPredictions],
    remark: str | None,
) -> View:
    playback = make_playback(
        subject.clip,
        subject.limits,
        fps=None if subject.probe.video_reason else subject.probe.fps,
        duration_s=subject.duration_s,
    )
    return View(
        subject, masks, predicted, remark, _stills(subject), playback, tracks.waveform(subject)
    )


def _stills(subject: gather.Subject) -> list[Still]:
    """Return frames with the face on them, as the settings of the features find it."""
    stated = gather.settings_of(subject, "visual")
    try:
        params = parse_params(VisualParams, stated, where="visual features")
    except ParamsError:  # of another extractor than ours; any detection will do to draw by
        params = RECIPES["mmsa_fet"]
    return make_stills(subject.clip, subject.limits, params, duration_s=subject.duration_s)


def page_name(view: View) -> Path:
    """Return the file in the current folder that the page goes to, if no other is named."""
    stem = view.subject.clip.path.stem
    if view.subject.corpus is not None:
        stem = f"{view.subject.corpus}-{view.subject.name}"
    return Path(re.sub(r"[^\w.-]+", "-", stem).strip(".-") + ".html")


def write_page(view: View, path: Path, *, report: str | None = None) -> None:
    """Write the page, with a link to a report that it belongs to."""
    with replacing(path) as temporary:
        temporary.write_text(render_page(view, report=report), encoding="utf-8", newline="\n")
