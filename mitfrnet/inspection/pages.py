"""Pages of several utterances, for a report to link to."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitfrnet.errors import FeatureError, MediaError, printable
from mitfrnet.inspection.masking import ShownMasks, corpus_masks
from mitfrnet.report.worst import WorstClip, page_name
from mitfrnet.workers.local import WorkerFailure, supervised_map

# The pages are in `inspect/<corpus>/` beside the report.
_REPORT = "../../index.html#predictions"


def write_pages(
    clips: Sequence[WorstClip],
    folders: Sequence[Path],
    out: Path,
    *,
    shown: ShownMasks,
    timeout_s: float,
    root: Path = Path(),
) -> set[str]:
    """Write a page of each clip with its predictions; return the ids of clips that have one.

    A worker process decodes the clips: one that breaks the decoder, or takes too long, costs its
    own page alone, with a warning.

    Args:
        clips: test clips.
        folders: of trained models; the first `MAX_MODELS` are shown.
        out: folder of the pages, named by `page_name`.
        shown: masks of the corpus, and the one that the pages open with.
        timeout_s: how long one page may take.
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
    """Loads models once, and returns a function that writes the page of a clip."""

    folders: tuple[Path, ...]
    out: Path
    shown: ShownMasks
    root: Path

    def __call__(self) -> Callable[[WorstClip], str | None]:
        try:  # imported here, because the main process decodes nothing
            from mitfrnet.data.masked_text import FrozenText
            from mitfrnet.inspection.page import write_page
            from mitfrnet.inspection.predictions import MAX_MODELS, predict_all
            from mitfrnet.inspection.utterance import gather_utterance
            from mitfrnet.inspection.view import make_view
            from mitfrnet.trained.model import TrainedModel
        except ImportError as error:
            raise FeatureError(
                f"pages of the worst clips: {error} (install what decodes clips, or set "
                "report.worst.pages: false)"
            ) from error
        models = [(folder, TrainedModel.load(folder)) for folder in self.folders[:MAX_MODELS]]
        text = FrozenText(models[0][1].config["features"]["text"]["identity"])

        def write(clip: WorstClip) -> str | None:
            masks_folder = self.root / "data" / clip.corpus / "masks"
            try:
                with gather_utterance(clip.corpus, clip.utterance_id, self.root) as subject:
                    tensors = subject.tensors
                    masks = corpus_masks(tensors, subject.part, masks_folder, self.shown)
                    view = make_view(subject, masks, predict_all(models, text, tensors, masks))
                write_page(view, self.out / page_name(clip.utterance_id), report=_REPORT)
            except MediaError as error:
                return str(error)
            return None

        return write
