"""Many clips scored: decoded in worker processes while the model loads."""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mitfrnet.errors import MitfrnetError
from mitfrnet.features.extract import build_extractor
from mitfrnet.features.extractor import Extractor
from mitfrnet.features.plugins import PluginParams
from mitfrnet.media import decode
from mitfrnet.params import StageParams
from mitfrnet.predict.clips import ClipFeatures, observe
from mitfrnet.predict.extraction import LIMITS, MEDIA, TIMEOUT_S, FeatureSettings
from mitfrnet.predict.predictor import Prediction, Predictor
from mitfrnet.predict.transcripts import find_transcripts
from mitfrnet.workers.local import WorkerFailure, supervised_map, track


def score_clips(
    model: Path,
    clips: Sequence[Path],
    texts: Mapping[Path, str],
    *,
    asr: str | None = None,
    limits: decode.MediaLimits = LIMITS,
    other_versions: bool = False,
    workers: int,
) -> list[tuple[Path, Prediction | MitfrnetError]]:
    """Return each clip with its score, or with why it has none; in the order given.

    Unlike `Predictor.predict_many` it decodes in worker processes: sound and face of a clip side
    by side, and beside the loading of the model; and a decoder that crashes or hangs costs one
    modality of one clip.

    Args:
        model: its folder.
        clips: media files, each once.
        texts: what is said in some of them.
        asr: as of `Predictor.predict`.
        limits: what a clip may cost.
        other_versions: as of `Predictor`.
        workers: how many processes.

    Raises:
        FeatureError: as for `Predictor`.
        CorpusError: there is no such ASR model.
    """
    recipe = FeatureSettings(model, limits)
    transcripts = find_transcripts(clips, texts, recipe, asr=asr)
    tasks = [(clip, modality) for clip in clips for modality in MEDIA]
    # Without those of text, whose module loads torch.
    setup = partial(_Observer, {m: recipe.params(m) for m in MEDIA}, recipe.settings, limits)
    observing = supervised_map(setup, tasks, workers=workers, timeout_s=TIMEOUT_S)
    if len(clips) > 1 and sys.stderr.isatty():
        observing = track(observing, total=len(tasks), size=lambda _: 1, description="read clips")
    observed: dict[Path, dict[str, ClipFeatures]] = {clip: {} for clip in clips}
    scored: dict[Path, Prediction | MitfrnetError] = {}
    with ThreadPoolExecutor(1) as background:
        loading = background.submit(Predictor, model, limits=limits, other_versions=other_versions)
        for (clip, modality), result in observing:
            if isinstance(result, WorkerFailure):
                result = ClipFeatures(0.0, None, result.reason)
            observed[clip][modality] = result
            if len(observed[clip]) == len(MEDIA):
                scored[clip] = loading.result().score(clip, observed.pop(clip), transcripts[clip])
    return [(clip, scored[clip]) for clip in clips]


class _Observer:
    """Observes clips in a worker process; an extractor is built when its modality comes first."""

    def __init__(
        self,
        params: Mapping[str, StageParams],
        settings: dict[str, Any],
        limits: decode.MediaLimits,
    ) -> None:
        # Those of others may hold models of any size, on a GPU perhaps.
        if not any(isinstance(one, PluginParams) for one in params.values()):
            decode.limit_memory(limits)
        self._params, self._settings, self._limits = params, settings, limits
        self._extractors: dict[str, Extractor] = {}

    def __call__(self, task: tuple[Path, str]) -> ClipFeatures:
        path, modality = task
        if modality not in self._extractors:
            self._extractors[modality] = build_extractor(
                modality, self._params[modality], self._settings
            )
        return observe(self._extractors[modality], self._limits, modality, path)
