"""Score many clips: worker processes decode them while the model loads."""

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
from mitfrnet.predict.extraction import (
    LIMITS,
    MEDIA,
    TIMEOUT_S,
    ClipFeatures,
    FeatureSettings,
    extract_medium,
)
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

    Sound and face of a clip are extracted side by side. A decoder that crashes or hangs costs one
    modality of one clip.

    Args:
        model: its folder.
        clips: media files, each once.
        texts: what is said in some of them.
        asr: as for `Predictor.predict`.
        limits: what a clip may cost.
        other_versions: as for `Predictor`.
        workers: how many processes.

    Raises:
        FeatureError: as for `Predictor`.
        CorpusError: there is no such ASR model.
    """
    settings = FeatureSettings.of_model(model, limits)
    transcripts = find_transcripts(clips, texts, settings, asr=asr)
    tasks = [(clip, modality) for clip in clips for modality in MEDIA]
    # Not the settings of text, whose module loads torch.
    params = {m: settings.params(m) for m in MEDIA}
    setup = partial(_Extraction, params, settings.corpus_settings, limits)
    results = supervised_map(setup, tasks, workers=workers, timeout_s=TIMEOUT_S)
    if len(clips) > 1 and sys.stderr.isatty():
        results = track(results, total=len(tasks), size=lambda _: 1, description="read clips")
    media: dict[Path, dict[str, ClipFeatures]] = {clip: {} for clip in clips}
    scores: dict[Path, Prediction | MitfrnetError] = {}
    with ThreadPoolExecutor(1) as background:
        loading = background.submit(Predictor, model, limits=limits, other_versions=other_versions)
        if len(clips) > 1 and not isinstance(params["acoustic"], PluginParams):
            # Before workers start, which must not compile at the same time: see its constructor.
            build_extractor("acoustic", params["acoustic"], settings.corpus_settings)
        for (clip, modality), result in results:
            if isinstance(result, WorkerFailure):
                result = ClipFeatures(0.0, None, result.reason)
            media[clip][modality] = result
            if len(media[clip]) == len(MEDIA):
                scores[clip] = loading.result().score(clip, media.pop(clip), transcripts[clip])
    return [(clip, scores[clip]) for clip in clips]


class _Extraction:
    """Extracts features in a worker process; builds an extractor when it is first needed."""

    def __init__(
        self,
        params: Mapping[str, StageParams],
        corpus_settings: dict[str, Any],
        limits: decode.MediaLimits,
    ) -> None:
        # A plug-in may hold a model of any size, perhaps on a GPU.
        if not any(isinstance(one, PluginParams) for one in params.values()):
            decode.limit_memory(limits)
        self._params, self._corpus_settings, self._limits = params, corpus_settings, limits
        self._extractors: dict[str, Extractor] = {}

    def __call__(self, task: tuple[Path, str]) -> ClipFeatures:
        path, modality = task
        if modality not in self._extractors:
            self._extractors[modality] = build_extractor(
                modality, self._params[modality], self._corpus_settings
            )
        return extract_medium(modality, self._extractors[modality], path, self._limits)
