"""The command `inspect`: which clip is meant, and what its page shows."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from mitfrnet.data.masked_text import FrozenText
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import CorpusError, FeatureError
from mitfrnet.grid import GridParams
from mitfrnet.inspection.clip import inspect_clip
from mitfrnet.inspection.masking import ClipMasks, ShownMasks, corpus_masks
from mitfrnet.inspection.predictions import (
    MAX_MODELS,
    ModelPredictions,
    predict_all,
    text_encoder_of,
)
from mitfrnet.inspection.utterance import gather_utterance
from mitfrnet.inspection.view import View, make_view
from mitfrnet.missing import MaskParams
from mitfrnet.params import PARAMS_FILE, check_name, load_params
from mitfrnet.predict.hub import model_folder
from mitfrnet.trained.model import TrainedModel


def inspect(
    target: str,
    *,
    corpus: str | None = None,
    models: Sequence[Path | str] = (),
    transcript: str = "",
    root: Path = Path(),
) -> View:
    """Return what the page of a clip shows.

    Args:
        target: a file, `<corpus>/<utterance id>`, or, with `corpus`, an utterance id.
        corpus: of the utterance.
        models: folders of trained models, or their names on the hub; for an utterance the default
            is the models of the grid.
        transcript: of a clip outside any corpus; empty: what a file beside it holds.
        root: the folder of the project.

    Raises:
        MitfrnetError: there is nothing to show, and why.
    """
    corpus, name = find(target, corpus, root)
    if corpus is None:
        return inspect_clip(Path(name), models, transcript, root)
    params = root / PARAMS_FILE
    grid = load_params(GridParams, section="grid", path=params)
    shown = ShownMasks(grid.missing_rates, load_params(MaskParams, section="mask", path=params))
    folders = [model_folder(model) for model in models]
    with gather_utterance(corpus, name, root) as subject:
        tensors = subject.tensors
        masks = corpus_masks(tensors, subject.part, root / "data" / corpus / "masks", shown)
        text = text_encoder_of(tensors)
        if not folders:
            trained = _trained_in_grid(grid, root / "models" / corpus)
            return make_view(subject, masks, *_grid_predictions(trained, text, tensors, masks))
        loaded = [(folder, TrainedModel.load(folder)) for folder in folders]
        return make_view(subject, masks, predict_all(loaded, text, tensors, masks))


def find(target: str, corpus: str | None, root: Path = Path()) -> tuple[str | None, str]:
    """Return the corpus and the utterance that `target` names; None and a path for a clip.

    Args:
        target: a file, `<corpus>/<utterance id>`, or, with `corpus`, an utterance id.
        corpus: if it is named by an option.
        root: the folder of the project.

    Raises:
        CorpusError: `target` is neither a file nor an utterance.
        ParamsError: `corpus` cannot be the name of a corpus.
    """
    if corpus is not None:
        return check_name(corpus, "--corpus"), target
    if Path(target).is_file():
        return None, target
    first, _, rest = target.partition("/")
    ingested = sorted(path.parent.name for path in (root / "data").glob("*/manifest.parquet"))
    if rest and (first in ingested or (root / "raw" / first).is_dir()):
        return check_name(first, target), rest
    raise CorpusError(
        f"{target}: neither a file nor an utterance of a corpus (expected a clip, or "
        f"<corpus>/<video_id>/<clip_id>; corpora with a manifest: {', '.join(ingested) or 'none'})"
    )


def _trained_in_grid(grid: GridParams, models: Path) -> list[Path]:
    """Return the folders of the grid's models: the first seed of each model and condition."""
    cells = product(grid.models, grid.missing_rates)
    folders = [models / model / str(rate) / str(grid.seeds[0]) for model, rate in cells]
    return [folder for folder in folders if (folder / "config.json").exists()]


def _grid_predictions(
    folders: Sequence[Path], text: FrozenText, tensors: SplitTensors, masks: ClipMasks
) -> tuple[list[ModelPredictions], str | None]:
    """Return what the models of the grid predict, and a remark on those that are left out."""
    if not folders:
        return [], "No model of the grid is trained: run dvc repro, or name one with --model."
    predictions, remarks = [], []
    for folder in folders[:MAX_MODELS]:
        try:
            model = TrainedModel.load(folder)
            predictions += predict_all([(folder, model)], text, tensors, masks)
        except FeatureError as error:
            remarks.append(f"Left out: {error}.")
    more = len(folders) - MAX_MODELS
    if more > 0:
        remarks.append(f"{more} more models of the grid are not shown: name one with --model.")
    return predictions, " ".join(remarks) or None


def default_page(view: View) -> Path:
    """Return the file in the current folder that the page is written to by default."""
    stem = view.subject.clip.path.stem
    if view.subject.corpus is not None:
        stem = f"{view.subject.corpus}-{view.subject.name}"
    return Path(re.sub(r"[^\w.-]+", "-", stem).strip(".-") + ".html")
