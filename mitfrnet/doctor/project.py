"""Checks of the project in the current folder: DVC, parameters, corpora, extraction, GPU."""

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mitfrnet.corpus.params import CorpusParams
from mitfrnet.doctor.environment import HERE
from mitfrnet.doctor.findings import ERROR, OK, REMARK, Finding
from mitfrnet.errors import FeatureError
from mitfrnet.features.extract import build_extractor, extractor_params
from mitfrnet.features.extractor import Clip
from mitfrnet.features.face_detection import MODEL_URL, MODEL_VARIABLE, model_path
from mitfrnet.grid import GridParams
from mitfrnet.params import check_name, load_params, read_section

# Checks import torch where they need it: the others run beside them in another process.


def stages() -> Iterator[Finding]:
    """Check that DVC can load the stages."""
    from dvc.repo import Repo

    count = len(Repo().index.stages)
    yield Finding("DVC", OK if count else ERROR, f"{count} stages", "" if count else HERE)


def parameters() -> Iterator[Finding]:
    """Check params.yaml as stage `plan` does."""
    from mitfrnet.plan.check import check_params

    problems = check_params()
    for problem in problems:
        yield Finding("parameters", ERROR, problem, HERE)
    if not problems:
        yield Finding("parameters", OK, "params.yaml: all sections are valid")


def _extractor_params(modality: str) -> Any:
    section = f"extract.{modality}"
    return extractor_params(modality, read_section(section), where=f"params.yaml: {section}")


def _corpus_params(name: str) -> CorpusParams:
    check_name(name, "params.yaml: grid.corpora")
    return load_params(CorpusParams, section=f"corpora.{name}")


def corpora() -> Iterator[Finding]:
    """Check that each corpus has its raw folder and its text encoder."""
    from mitfrnet.features.text import TextExtractor
    from mitfrnet.features.text_encoder import EMBEDDED
    from mitfrnet.features.text_params import encoder_for

    text = _extractor_params("text")
    for name in load_params(GridParams, section="grid").corpora:
        if not Path("raw", name).is_dir():
            advice = "put the corpus there, or take it out of grid.corpora in params.yaml"
            yield Finding("corpora", ERROR, f"raw/{name}: no such folder", advice)
        corpus = _corpus_params(name)
        encoder = encoder_for(text, corpus.language, corpus.text_encoder)
        try:
            TextExtractor(text, encoder)
        except FeatureError:
            if encoder == EMBEDDED or Path(encoder).exists():
                raise
            message = f"{name}: text encoder {encoder} is absent, and would be downloaded"
            yield Finding("corpora", REMARK, message, f"to download it now: hf download {encoder}")
        else:
            yield Finding("corpora", OK, f"{name}: text encoder {encoder}")


def extraction() -> Iterator[Finding]:
    """Check that a sample clip gives sound and face features, with the settings of params.yaml."""
    clip = min(Path("raw/sample/Raw").glob("*/*"), default=None)
    if clip is None:
        yield Finding("extraction", REMARK, "not tried: no clip in raw/sample/Raw")
        return
    for modality in ("acoustic", "visual"):
        params = _extractor_params(modality)
        landmarker = getattr(params, "backend", None) == "face_landmarker"
        if landmarker and MODEL_VARIABLE not in os.environ and not model_path().exists():
            message = f"{model_path()} is absent, and would be downloaded"
            yield Finding(modality, REMARK, message, f"without network, put {MODEL_URL} there")
            continue
        extractor = build_extractor(modality, params, {"limits": read_section("ingest.limits")})
        detected = extractor.extract(Clip("sample", clip)).detected
        advice = "" if detected.all() else "reinstall av, librosa and mediapipe"
        message = f"{detected.sum()} of {len(detected)} steps extracted from {clip}"
        yield Finding(modality, ERROR if advice else OK, message, advice)


def gpu() -> Iterator[Finding]:
    """Check which GPUs PyTorch can use; none is fine."""
    import torch

    with warnings.catch_warnings(record=True) as caught:  # such as a driver that is too old
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        torch.ones(8, device="cuda").sum().item()  # fails if PyTorch was built for other GPUs
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
        yield Finding("GPU", OK, f"{names}, CUDA {torch.version.cuda or torch.version.hip}")
    else:
        advice = "install a PyTorch for the CUDA that `nvidia-smi` names"
        advice = advice if shutil.which("nvidia-smi") else ""
        message = "; ".join(
            [f"PyTorch {torch.__version__} finds none", *(str(w.message) for w in caught)]
        )
        yield Finding("GPU", REMARK, message, advice)
