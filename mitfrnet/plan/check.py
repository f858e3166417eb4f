"""Check the whole of `params.yaml`, before anything runs."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mitfrnet.corpus.params import CorpusParams
from mitfrnet.data.alignment import TensorParams
from mitfrnet.errors import MitfrnetError, ParamsError
from mitfrnet.evaluation.params import EvaluateParams
from mitfrnet.features.text_params import encoder_for
from mitfrnet.grid import GridParams
from mitfrnet.labels import ClassScale
from mitfrnet.metrics import metric_names
from mitfrnet.missing import MaskParams, parse_protocol
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.variants import resolve
from mitfrnet.params import PARAMS_FILE, SECTIONS, check_name, closest, parse_params, read_file
from mitfrnet.report.params import ReportParams
from mitfrnet.training.settings import TrainParams, check_seed, parse_model_params
from mitfrnet.workers.params import RunParams

_KINDS = {
    "grid": GridParams,
    "run": RunParams,
    "tensors": TensorParams,
    "mask": MaskParams,
    "train": TrainParams,
    "evaluate": EvaluateParams,
    "report": ReportParams,
}


def check_params(path: Path = PARAMS_FILE) -> list[str]:
    """Return every mistake in the parameter file, one line each; none if it is valid.

    Each section is checked against its type, then all against each other: corpora and models
    that the grid names, rates, seeds, text encoders, and the scores of the paired test.
    """
    try:
        values = read_file(path)
    except ParamsError as error:
        return list(error.problems)
    return _Check(path, values).problems()


class _Check:
    """One pass over a parameter file, which collects mistakes instead of stopping at the first."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path, self._values = path, values
        self._problems: list[str] = []

    def problems(self) -> list[str]:
        absent = sorted(SECTIONS - self._values.keys())
        self._problems += [f"{self._path}: {name}: section is absent" for name in absent]
        parsed = {name: self._section(name, kind) for name, kind in _KINDS.items()}
        self._ingest()
        corpora = self._each("corpora", lambda name, block, where: parse_params(
            CorpusParams, block, where=where))  # fmt: skip
        extract = self._each("extract", self._extractor)
        for modality in MODALITIES:
            if "extract" in self._values and modality not in extract:
                self._problems.append(f"{self._path}: extract.{modality}: section is absent")
        models = self._models()
        if (grid := parsed["grid"]) is not None:
            self._grid(grid, corpora, models, extract.get("text"), parsed["report"])
        return list(dict.fromkeys(self._problems))

    def _try(
        self, function: Callable[..., Any], *arguments: Any, prefix: str = "", **options: Any
    ) -> Any:
        """Return the result of a call; None if it raises, and note why, after `prefix`."""
        try:
            return function(*arguments, **options)
        except ParamsError as error:
            self._problems += [prefix + problem for problem in error.problems]
        except MitfrnetError as error:
            self._problems.append(str(error))
        return None

    def _section(self, name: str, kind: Any) -> Any:
        if name not in self._values:
            return None
        return self._try(parse_params, kind, self._values[name], where=f"{self._path}: {name}")

    def _each(self, section: str, parse: Callable[[str, Any, str], Any]) -> dict[str, Any]:
        """Return the parsed entries of a section, by name."""
        entries = self._values.get(section, {})
        where = f"{self._path}: {section}"
        if not isinstance(entries, dict):
            self._problems.append(f"{where}: {entries!r} (expected a section)")
            return {}
        for name in entries:
            if not _is_name(name):
                self._problems.append(f"{where}: {name!r} (expected a name; put it in quotes)")
        names = sorted(filter(_is_name, entries), key=lambda name: _ancestors(name, entries))
        for name in names:  # bases before their variants
            self._try(check_name, name, where)
        return {n: self._try(parse, n, entries[n], f"{where}.{n}") for n in names}

    def _models(self) -> dict[str, Any]:
        """Check all models, and return their sections; report a mistake in a base only once."""
        models = self._values.get("model")
        wrong: set[str] = set()

        def parse(name: str, section: Any, where: str) -> Any:
            base = section.get("base") if isinstance(section, dict) else None
            before = len(self._problems)
            if not (isinstance(base, str) and base in wrong):
                resolved = self._try(resolve, name, models, where=f"{self._path}: model")
                if resolved is not None:
                    self._try(parse_model_params, resolved, where=where)
            if len(self._problems) > before or (isinstance(base, str) and base in wrong):
                wrong.add(name)
            return section

        return self._each("model", parse)

    # A machine that trains from tensors may lack the packages that read clips. These two sections
    # are then not checked: their stages cannot run there either.

    def _ingest(self) -> None:
        with suppress(ImportError):
            from mitfrnet.corpus.ingest import IngestParams

            self._section("ingest", IngestParams)

    def _extractor(self, modality: str, section: Any, where: str) -> Any:
        if modality not in MODALITIES:
            raise ParamsError(f"{where}: unknown modality ({closest(modality, MODALITIES)})")
        with suppress(ImportError):
            from mitfrnet.features.extract import extractor_params

            return extractor_params(modality, section, where=where)

    def _grid(
        self, grid: GridParams, corpora: Mapping[str, Any], models: Any, text: Any, report: Any
    ) -> None:
        """Check the axes of the grid against the other sections."""
        where = f"{self._path}: grid"
        for name in grid.corpora:
            if name not in corpora:
                line = f"{where}.corpora: unknown corpus {name!r} ({closest(name, corpora)})"
                self._problems.append(line)
                continue
            if (corpus := corpora[name]) is not None:
                self._corpus(corpus, text, report)
        for name in grid.models:
            if name not in models:
                line = f"{where}.models: unknown model {name!r} ({closest(name, models)})"
                self._problems.append(line)
        for rate in grid.missing_rates:
            self._try(parse_protocol, rate, prefix=f"{where}.missing_rates: ")
            if isinstance(rate, int):
                self._problems.append(
                    f"{where}.missing_rates: {rate} (write {rate}.0: DVC takes them for two cells)"
                )
        for seed in grid.seeds:
            self._try(check_seed, str(seed))

    def _corpus(self, corpus: CorpusParams, text: Any, report: Any) -> None:
        """Check what other sections say about a corpus of the grid."""
        if text is not None and corpus.layout != "features":  # which brings its text encoded
            self._try(encoder_for, text, corpus.language, corpus.text_encoder)
        scale = corpus.resolved_scale
        if report is None or scale is None:
            return
        key = "classes" if isinstance(scale, ClassScale) else "scores"
        score, names = getattr(report.paired_test, key), metric_names(scale)
        if score not in names:
            self._problems.append(
                f"{self._path}: report.paired_test.{key}: unknown score {score!r} "
                f"({closest(score, names)})"
            )


def _is_name(key: Any) -> bool:
    return isinstance(key, str)


def _ancestors(name: str, entries: Mapping[str, Any]) -> int:
    """Return how many bases a model has, one above the other; at most as many as there are."""
    count, entry = 0, entries[name]
    while isinstance(entry, dict) and _is_name(entry.get("base")) and count < len(entries):
        count, entry = count + 1, entries.get(entry["base"])
    return count
