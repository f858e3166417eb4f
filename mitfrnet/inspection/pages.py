"""Pages of several utterances, which a report links to."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mitfrnet.data.tensors import SplitTensors
from mitfrnet.data.utterances import FrozenText
from mitfrnet.inspection.inspect import inspect_utterance, write_page
from mitfrnet.inspection.masking import ClipMasks
from mitfrnet.inspection.predictions import MAX_MODELS, ModelPredictions, of_model
from mitfrnet.report.worst import WorstClip, page_name
from mitfrnet.trained import TrainedModel

# The pages stand in `inspect/<corpus>/` below the report.
_REPORT = "../../index.html#predictions"


def write_pages(
    clips: Sequence[WorstClip],
    folders: Sequence[Path],
    out: Path,
    *,
    rate: float,
    root: Path = Path(),
) -> None:
    """Write a page of each clip, with what models make of it.

    Args:
        clips: which.
        folders: of trained models, of which the first `MAX_MODELS` are shown.
        out: folder of the pages, named by `page_name`.
        rate: missing rate of the mask that they open with.
        root: the folder of the project.

    Raises:
        FeatureError: a stage has not run, or its files cannot be used.
    """
    # Loaded once, for all clips.
    models = [TrainedModel.load(folder) for folder in folders[:MAX_MODELS]]
    text = FrozenText(models[0].config["features"]["text"]["identity"])

    def predict(
        tensors: SplitTensors, masks: ClipMasks
    ) -> tuple[list[ModelPredictions], str | None]:
        return [of_model(model, text, tensors, masks) for model in models], None

    for clip in clips:
        view = inspect_utterance(clip.corpus, clip.utterance_id, predict, root)
        rates = [mask.rate for mask in view.masks.masks]
        view = replace(view, opening=rates.index(rate) if rate in rates else 0)
        write_page(view, out / page_name(clip.utterance_id), report=_REPORT)
