"""Pages of several utterances, which a report links to."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mitfrnet.errors import FeatureError, MediaError, printable
from mitfrnet.report.worst import WorstClip, page_name
from mitfrnet.workers.local import WorkerFailure, supervised_map

if TYPE_CHECKING:  # loaded in the worker alone, with all that decodes
    from mitfrnet.data.tensors import SplitTensors
    from mitfrnet.inspection.masking import ClipMasks, ShownMasks
    from mitfrnet.inspection.predictions import ModelPredictions

# The pages stand in `inspect/<corpus>/` below the report.
_REPORT = "../../index.html#predictions"


def write_pages(
    clips: Sequence[WorstClip],
    folders: Sequence[Path],
    out: Path,
    *,
    shown: "ShownMasks",
    timeout_s: float,
    root: Path = Path(),
) -> set[str]:
    """Write a page of each clip, with what models make of it, and return whose there are.

    Clips are decoded in a process of its own: one that breaks the decoder, or takes too long,
    costs its page alone, with a warning.

    Args:
        clips: which.
        folders: of trained models, of which the first `MAX_MODELS` are shown.
        out: folder of the pages, named by `page_name`.
        shown: masks of the corpus, and which of them the pages open with.
        timeout_s: that one page may take.
        root: the folder of the project.

    Raises:
        FeatureError: a stage has not run, or a model or a library cannot be loaded.
    """
    setup = _Writer(tuple(folders), out, shown, root)
    written = set()
    for clip, failure in supervised_map(setup, clips, workers=1, timeout_s=timeout_s):
        if failure is None:
            written.add(clip.utterance_id)
        else:
            reason = failure.reason if isinstance(failure, WorkerFailure) else failure
            line = f"warning: {clip.corpus}/{clip.utterance_id}: no page ({reason})"
            print(printable(line), file=sys.stderr)
    return written


@dataclass(frozen=True)
class _Writer:
    """Loads models once, and returns what writes the page of a clip."""

    folders: tuple[Path, ...]
    out: Path
    shown: "ShownMasks"
    root: Path

    def __call__(self) -> Callable[[WorstClip], str | None]:
        try:
            from mitfrnet.data.masked_text import FrozenText
            from mitfrnet.inspection.inspect import inspect_utterance, write_page
            from mitfrnet.inspection.predictions import MAX_MODELS, of_model
            from mitfrnet.trained.model import TrainedModel
        except ImportError as error:
            raise FeatureError(
                f"pages of the worst clips: {error} (install what decodes clips, or set "
                "report.worst.pages: false)"
            ) from error
        models = [TrainedModel.load(folder) for folder in self.folders[:MAX_MODELS]]
        text = FrozenText(models[0].config["features"]["text"]["identity"])

        def predict(
            tensors: "SplitTensors", masks: "ClipMasks"
        ) -> "tuple[list[ModelPredictions], str | None]":
            return [of_model(model, text, tensors, masks) for model in models], None

        def write(clip: WorstClip) -> str | None:
            try:
                view = inspect_utterance(
                    clip.corpus, clip.utterance_id, predict, self.shown, self.root
                )
                write_page(view, self.out / page_name(clip.utterance_id), report=_REPORT)
            except MediaError as error:
                return str(error)
            return None

        return write
