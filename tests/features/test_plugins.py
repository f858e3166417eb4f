"""Extractors from other packages, laid out on the path as pip installs them."""

import configparser
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mitfrnet.corpus.manifest import make_manifest
from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.features.extract import _worker, build_extractor, extract_corpus, extractor_params
from mitfrnet.features.extractor import Clip
from mitfrnet.features.imported import ImportedExtractor
from mitfrnet.features.shards import description_of, extractor_digest, read_features
from mitfrnet.media.storage import ClipStore
from mitfrnet.workers.params import RunParams
from tests.helpers.clips import write_small_corpus
from tests.helpers.paths import ROOT
from tests.helpers.running import command_of, write_params

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = (ROOT / "docs" / "extractors.md").read_text(encoding="utf-8")
LIMITS = {"max_duration_s": 60, "max_pixels": 10**6, "max_bytes": 10**8, "max_streams": 8}
SETTINGS = {"limits": LIMITS, "max_bad_fraction": 0.1, "text_encoder": None}
WHERE = "params.yaml: extract.acoustic"

# Fails as its setting says; works without one.
FAULTY = """
import numpy as np
from mitfrnet.errors import MediaError
from mitfrnet.features.extractor import Features

class Faulty:
    modality = "acoustic"
    version = "1"
    feature_names = ("a", "b")
    units = ("1", "1")
    identity = {}

    def __init__(self, limits, *, fault=""):
        self.fault = fault
        if fault == "built":
            raise ValueError("no such\\nluck")
        if fault == "version":
            self.version = 2
        if fault == "units":
            self.units = ("1",)
        if fault == "twice":
            self.feature_names = ("a", "a")
        if fault == "identity":
            self.identity = {"model": object()}

    def extract(self, clip):
        values = np.array([[0, 1], [np.nan, np.nan], [4, 5]], np.float32)
        detected = np.array([True, False, True])
        start_s = np.array([0, 1, 2], np.float32)
        columns = {}
        if self.fault == "raises":
            return values[7]
        if self.fault == "silent":
            raise MediaError("no_voice")
        if self.fault == "tuple":
            return values, detected, start_s
        if self.fault == "list":
            values = values.tolist()
        if self.fault == "kind":
            values = values.astype(np.float64)
        if self.fault == "dim":
            values = values[:, :1]
        if self.fault == "detected":
            detected = detected.astype(np.float32)
        if self.fault == "times":
            start_s = start_s[:2]
        if self.fault == "order":
            start_s = start_s[::-1]
        if self.fault == "endless":
            start_s[-1] = np.inf
        if self.fault == "infinite":
            values[2, 1] = np.inf
        if self.fault == "zero":
            values[1] = 0
        if self.fault == "columns":
            columns = {"extra": start_s}
        return Features(values, detected, start_s, columns)
"""


def install(folder, project, code):
    """Write a package as pip installs it: its module, and its metadata in `.dist-info`."""
    name, version = project["name"], project["version"]
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = configparser.ConfigParser()
    points.read_dict(project["entry-points"])
    with (metadata / "entry_points.txt").open("w") as file:
        points.write(file)
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that installs a package with one extractor, first on the path."""

    def add(code, *, name="faulty", package="faulty", version="1.0"):
        points = {"mitfrnet.extractors": {name: f"{package}:Faulty"}}
        project = {"name": package, "version": version, "entry-points": points}
        folder = tmp_path / "site" / f"{package}-{version}"
        install(folder, project, code)
        monkeypatch.syspath_prepend(str(folder))

    yield add
    for name in [n for n, module in sys.modules.items() if str(tmp_path) in str(module)]:
        del sys.modules[name]


def params_of(section, modality="acoustic"):
    return extractor_params(modality, section, where=f"params.yaml: extract.{modality}")


def build(section):
    return build_extractor("acoustic", params_of(section), SETTINGS)


HERE = ClipStore(Path(), None, max_bytes=10**8, timeout_s=60)


def extracted(section, clip=None):
    """Return features and reason of one clip, extracted as in a worker process."""
    params, settings = pickle.loads(pickle.dumps((params_of(section), SETTINGS)))
    return _worker("acoustic", params, settings, HERE)([clip or Clip("v/1", Path("unread"))])[0]


def example():
    """Return the package in the documentation: its project table and its module."""
    _, page = DOCS.split("## An extractor of your own")
    (toml,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return tomllib.loads(toml)["project"], code


@pytest.mark.slow
def test_the_example_of_the_documentation(tmp_path):
    """The stages run as DVC runs them, with the example's defaults and with 0.1 s a step.

    The tone has amplitude 0.5, so its power is 0.125: -9.03 dB. 0.6 s are 12 steps of 0.05 s.
    """
    project, code = example()
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    install(tmp_path / "site", project, code)
    folder = tmp_path / "run"
    write_small_corpus(folder / "raw" / "sample")
    paths = os.pathsep.join([str(ROOT), str(tmp_path / "site")])

    def run(stage, **item):
        return subprocess.run(
            [sys.executable, "-m", *command_of(stage, corpus="sample", **item)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=200,
        )

    write_params(folder, extract__acoustic="loudness", run__workers=2)
    for stage, item in (("ingest", {}), ("extract", {"modality": "acoustic"})):
        process = run(stage, **item)
        assert process.returncode == 0, process.stderr
    table = read_features(folder / "data" / "sample" / "features" / "acoustic")
    assert description_of(table)["feature_names"] == ["level"]
    assert description_of(table)["identity"]["package"] == ["loudness", "1.0"]
    assert len(table) == 4
    for row in table.to_pylist():
        np.testing.assert_allclose(np.array(row["values"]), 10 * np.log10(0.125), atol=0.05)
        np.testing.assert_allclose(row["start_s"], np.arange(12) * 0.05, atol=1e-6)

    write_params(folder, extract__acoustic={"extractor": "loudness", "window_s": 0.1})
    process = run("extract", modality="acoustic")
    assert "acoustic: 4 of 4 clips extracted" in process.stdout, process.stderr
    table = read_features(folder / "data" / "sample" / "features" / "acoustic")
    assert [len(steps) for steps in table["values"].to_pylist()] == [6] * 4

    write_params(folder, extract__acoustic={"extractor": "loudness", "windw_s": 0.1})
    process = run("extract", modality="acoustic")
    assert process.returncode == 1
    assert process.stderr == (
        "error: params.yaml: extract.acoustic: extractor 'loudness': got an unexpected keyword "
        "argument 'windw_s' (its settings: window_s)\n"
    )


def test_the_error_for_an_unknown_name_lists_the_known_ones(installed):
    expected = "no recipe or installed extractor is called 'opensmile' (expected ch_sims, paper, "
    with pytest.raises(ParamsError) as error:
        params_of("opensmile")
    assert str(error.value) == f"{WHERE}: {expected}or settings one by one)"
    installed(FAULTY)
    with pytest.raises(ParamsError) as error:
        params_of("opensmile")
    assert str(error.value) == f"{WHERE}: {expected}faulty, or settings one by one)"
    with pytest.raises(ParamsError) as error:
        params_of({"extractor": "opensmile"})
    assert str(error.value) == (
        f"{WHERE}: no installed extractor is called 'opensmile' (installed: faulty)"
    )


def test_an_installed_extractor_runs_in_workers(installed, tmp_path):
    """One of two clips lacks the modality, for a reason that the extractor gives."""
    code = FAULTY.replace('== "silent"', '== "" and clip.utterance_id == "v/2"')
    installed(code)
    rows = [
        {"utterance_id": f"v/{i}", "video_id": "v", "clip_id": i, "split": "train",
         "transcript": "", "path": "unread", "digest": i}
        for i in "12"
    ]  # fmt: skip
    manifest = make_manifest(rows, SETTINGS)
    run = RunParams(workers=1, timeout_seconds=100)
    arguments = ("acoustic", manifest, tmp_path, tmp_path / "out", params_of("faulty"), run)
    assert extract_corpus(*arguments) == 2
    first, second = read_features(tmp_path / "out").to_pylist()
    np.testing.assert_array_equal(first["values"], [[0, 1], [np.nan, np.nan], [4, 5]])
    assert first["detected"] == [True, False, True]
    assert second["reason"] == "no_voice"
    assert extract_corpus(*arguments) == 0
    wrong = params_of({"extractor": "faulty", "fault": "kind"})
    with pytest.raises(FeatureError, match=r"^v/\d: extractor 'faulty': values is float64"):
        extract_corpus("acoustic", manifest, tmp_path, tmp_path / "out", wrong, run)


def test_the_digest_depends_on_the_package_and_the_settings(installed):
    def digest(section):
        return extractor_digest(build(section))

    installed(FAULTY)
    first = digest("faulty")
    assert digest({"extractor": "faulty"}) == first
    assert digest({"extractor": "faulty", "fault": "times"}) != first
    installed(FAULTY, version="1.1")  # first on the path, like an upgrade
    assert digest("faulty") != first


def test_a_recipe_wins_over_an_extractor_of_the_same_name(installed):
    installed(FAULTY, name="paper")
    assert build("paper").feature_names[0] == "zero_crossing_rate"
    assert build({"extractor": "paper"}).feature_names == ["a", "b"]


def test_text_takes_neither_recipes_nor_extractors(installed):
    installed(FAULTY)
    for section in ("faulty", {"extractor": "faulty"}):
        with pytest.raises(ParamsError, match=r"^params.yaml: extract.text"):
            params_of(section, "text")


@pytest.mark.parametrize(
    ("code", "section", "message"),
    [
        (
            FAULTY.replace('"acoustic"', '"visual"'),
            {},
            f"{WHERE}: extractor 'faulty' has modality 'visual' (expected 'acoustic')",
        ),
        (
            FAULTY.replace('modality = "acoustic"', ""),
            {},
            f"{WHERE}: extractor 'faulty' has modality None (expected 'acoustic')",
        ),
        (
            FAULTY,
            {"falt": ""},
            f"{WHERE}: extractor 'faulty': got an unexpected keyword argument 'falt' "
            "(its settings: fault)",
        ),
        (
            FAULTY.replace('fault=""', "fault"),
            {},
            f"{WHERE}: extractor 'faulty': missing a required argument: 'fault' "
            "(its settings: fault)",
        ),
        (
            "import absent_library",
            {},
            "extractor 'faulty' cannot be loaded from faulty:Faulty (faulty.py, line 1: "
            "ModuleNotFoundError: No module named 'absent_library')",
        ),
        (
            "Faulty = 3",
            {},
            "extractor 'faulty': faulty:Faulty is not a class with a method `extract`",
        ),
        (
            FAULTY.replace("def extract", "def extracts"),
            {},
            "extractor 'faulty': faulty:Faulty is not a class with a method `extract`",
        ),
        (
            FAULTY,
            {"fault": "built"},
            "extractor 'faulty' cannot be built (faulty.py, line 16: ValueError: no such luck)",
        ),
        (
            FAULTY.replace('version = "1"', ""),
            {},
            "extractor 'faulty': Faulty.version: key is absent, and required",
        ),
        (
            FAULTY,
            {"fault": "version"},
            "extractor 'faulty': Faulty.version: Input should be a valid string (found: 2)",
        ),
        (FAULTY, {"fault": "units"}, "1 units for 2 feature_names, must be one each"),
        (FAULTY, {"fault": "twice"}, "feature_names has a name twice"),
        (FAULTY, {"fault": "identity"}, "extractor 'faulty': Faulty.identity.model"),
    ],
)
def test_an_extractor_that_cannot_be_used(installed, code, section, message):
    installed(code)
    with pytest.raises((ParamsError, FeatureError)) as error:
        build({"extractor": "faulty", **section})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_two_packages_with_one_name(installed):
    installed(FAULTY, package="mine")
    installed(FAULTY, package="yours")
    with pytest.raises(ParamsError, match=r"several packages: yours, mine \(uninstall all but"):
        params_of("faulty")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("tuple", "extractor 'faulty' returned tuple (expected Features)"),
        ("list", "values is list (expected float32[steps, 2])"),
        ("kind", "values is float64[3, 2] (expected float32[3, 2])"),
        ("dim", "values is float32[3, 1] (expected float32[3, 2])"),
        ("detected", "detected is float32[3] (expected bool[3])"),
        ("times", "start_s is float32[2] (expected float32[3])"),
        ("order", "start_s decreases or is infinite"),
        ("endless", "start_s decreases or is infinite"),
        ("infinite", "b is inf at step 2 (expected a finite number)"),
        ("zero", "a is 0.0 at step 1 (expected NaN: nothing is detected there)"),
        ("columns", "columns are ['extra'] (expected [])"),
        ("raises", "'faulty' failed (faulty.py, line 32: IndexError: index 7 is out of bounds"),
    ],
)
def test_features_that_break_the_contract(installed, fault, message):
    installed(FAULTY)
    with pytest.raises(FeatureError) as error:
        extracted({"extractor": "faulty", "fault": fault})
    assert str(error.value).startswith("v/1: extractor 'faulty'")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_features_that_keep_the_contract(installed):
    installed(FAULTY)
    features, reason = extracted("faulty")
    assert (len(features.values), reason) == (3, None)
    assert extracted({"extractor": "faulty", "fault": "silent"}) == (None, "no_voice")


def test_imported_features_need_no_extractor():
    """The manifest decides, whatever extractor `params.yaml` names."""
    description = {"version": "1", "feature_names": ["x"], "units": ["1"], "identity": {}}
    settings = {**SETTINGS, "stored": {"acoustic": description}}
    extractor = build_extractor("acoustic", params_of("ch_sims"), settings)
    assert isinstance(extractor, ImportedExtractor)
    assert extractor.feature_names == ["x"]
    own = build_extractor("acoustic", params_of("ch_sims"), {**SETTINGS, "stored": None})
    assert not isinstance(own, ImportedExtractor)
