import ast
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
import torch
import yaml
import zc.lockfile
from typer.testing import CliRunner

from mitfrnet.cli import app
from mitfrnet.doctor import __main__ as command
from mitfrnet.doctor import environment, project
from mitfrnet.doctor.examination import CHECKS, isolated
from mitfrnet.doctor.findings import ERROR, OK, REMARK, Finding, render, to_json
from mitfrnet.features import text_encoder
from mitfrnet.features.face_detection import MODEL_VARIABLE
from tests.helpers.paths import ROOT

FACE_MODEL = ROOT.parent / "shared/models/face_landmarker.task"

# Writes down every look-up of and connection to another machine, in whatever process it is tried.
SPY = """
import os, sys
def listen(event, args):
    called = event == "socket.connect" and isinstance(args[1], tuple)
    if called or event == "socket.getaddrinfo":
        with open(os.environ["SPY_LOG"], "a") as log:
            print(event, *args, file=log)
sys.addaudithook(listen)
"""


@pytest.fixture(autouse=True)
def this_code(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin:/bin"]))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Go to a project like this one, without its code."""
    folder = tmp_path / "project"
    (folder / "raw/sample").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").touch()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    for name in ("mitfrnet", "pipeline"):
        (folder / name).symlink_to(ROOT / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def spied(tmp_path, monkeypatch):
    """Return the file that names each connection of the processes started from here on."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy/sitecustomize.py").write_text(SPY)
    log = tmp_path / "connections.txt"
    monkeypatch.setenv("SPY_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'spy'}{os.pathsep}{ROOT}")
    return log


def make_package(folder, name, code, monkeypatch):
    """Let Python find a package whose import runs `code`."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")


def make_checkout(folder, requirements, *, python=">=3.10", pins=None):
    lines = "".join(f'  "{line}", # why\n' for line in requirements)
    text = f'requires-python = "{python}" # why\ndependencies = [\n{lines}]\n'
    folder.mkdir()
    (folder / "pyproject.toml").write_text(text)
    if pins is not None:
        (folder / "constraints.txt").write_text(pins)
    return folder


def edit(path, change):
    """Change the values of a YAML file by a function."""
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def levels(findings):
    return [finding.level for finding in findings]


def of(findings, level):
    """Return what findings of a level say, as one text."""
    return "\n".join(f"{f.name}: {f.found} -> {f.advice}" for f in findings if f.level == level)


# All of it.


@pytest.mark.slow
def test_this_checkout_can_run_and_nothing_is_downloaded(spied):
    def status():
        words = ["git", "status", "--porcelain", "--ignored"]
        said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        # DVC makes its own folder whenever it is asked something.
        return [line for line in said.splitlines() if line != "!! .dvc/tmp/"]

    before = status()
    words = [sys.executable, "-m", "mitfrnet.doctor", "--json"]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    report = json.loads(process.stdout)
    errors = [f for f in report["findings"] if f["level"] == ERROR]
    assert (process.returncode, errors, report["errors"]) == (0, [], 0)
    assert {f["name"] for f in report["findings"]} >= set(CHECKS)
    assert not spied.exists()
    assert status() == before
    assert process.stderr == ""


def test_where_nothing_is_installed(tmp_path, monkeypatch):
    """Of 25 packages none is there, and what builds on them is not looked at."""
    monkeypatch.delenv("PYTHONPATH")
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False)
    words = [bare / "bin/python", "-m", "mitfrnet.doctor", "--json"]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    findings = [Finding(**finding) for finding in json.loads(process.stdout)["findings"]]
    assert process.returncode == 1
    number = len(environment._declared(ROOT))
    assert f"packages: {number} of {number} not installed: torch, " in of(findings, ERROR)
    assert "which is not the Python of" in of(findings, ERROR)
    assert of(findings, ERROR).count("\n") == 1
    assert "GPU: not looked at: No module named 'torch'" in of(findings, REMARK)
    assert {"Python", "machine", "git", "disk"} <= {f.name for f in findings if f.level == OK}


def test_the_standard_library_is_enough_to_start():
    code = "import sys, mitfrnet.doctor.__main__; print(mitfrnet.__file__, *sys.path)"
    words = [sys.executable, "-S", "-E", "-c", code]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert str(ROOT) in process.stdout
    assert "site-packages" not in process.stdout


def test_an_old_python_can_read_the_code():
    """It must, to say that it is too old."""
    files = [ROOT / "mitfrnet/__init__.py", *(ROOT / "mitfrnet/doctor").glob("*.py")]
    assert len(files) > 5
    for file in files:
        tree = ast.parse(file.read_text(), feature_version=(3, 8))
        lazy = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
        assert lazy or file.name == "__init__.py", file


@pytest.mark.parametrize(("level", "status"), [(OK, 0), (REMARK, 0), (ERROR, 1)])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_status_says_whether_dvc_repro_would_stop(monkeypatch, level, status, as_json):
    asked = {}

    def examine(**options):
        asked.update(options)
        yield Finding("disk", level, "what is there", "what to do")

    monkeypatch.setattr(command, "examine", examine)
    result = CliRunner().invoke(app, ["doctor", "--free", "3", *["--json"] * as_json])
    assert (result.exit_code, asked) == (status, {"free_gib": 3})
    if as_json:
        listed = json.loads(result.stdout)["findings"]
        assert [Finding(**finding) for finding in listed] == [
            Finding("disk", level, "what is there", "what to do")
        ]
    else:
        end = {OK: "no errors, no remarks", REMARK: "no errors, 1 remark", ERROR: "1 error, no"}
        assert f"\n{end[level]}" in result.stdout
        assert ("would stop" in result.stdout) == bool(status)


# How it looks, and what it keeps to itself.


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal(width):
    found = "several words that are " * 20 + "followed by /a/path/that/is/long"
    finding = Finding("face detector", ERROR, found, "do " + "this and that " * 20)
    lines = render(finding, width=width, colour=False).splitlines()
    assert width - 20 < max(map(len, lines)) <= width
    assert lines[0].startswith("error   face detector several")
    assert all(line.startswith(" " * 22) for line in lines[1:])
    words = " ".join(" ".join(lines).split())
    assert words == f"error face detector {found} -> {finding.advice.strip()}"


def test_a_long_name_has_a_line_of_its_own():
    finding = Finding("opencv-python, mediapipe", ERROR, "cannot be imported")
    assert render(finding, width=80, colour=False).splitlines() == [
        "error   opencv-python, mediapipe",
        " " * 22 + "cannot be imported",
    ]


def test_a_bug_report_names_no_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("MY_REGISTRY_TOKEN", "s3cr3t-value")
    texts = {
        "3.11 of /home/ada/.venv": "3.11 of ~/.venv",
        "/data/ada/mosi: not a folder": "/data/<user>/mosi: not a folder",
        "adapter of /data/ada_2": "adapter of /data/ada_2",
        "https://ada:pw@host/x failed": "https://***@host/x failed",
        "sent s3cr3t-value": "sent ***",
        "Bearer hf_abcdefghijklmnopqrst": "Bearer ***",
    }
    findings = [Finding("x", REMARK, text, text) for text in texts]
    listed = json.loads(to_json(findings))["findings"]
    assert [f["found"] for f in listed] == list(texts.values())
    assert [f["advice"] for f in listed] == list(texts.values())


# A check that breaks.


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os; os.abort()", "the check broke off: SIGABRT"),
        ("import os; os._exit(0)", "the check broke off: status 0"),
        ("import time; time.sleep(60)", "the check broke off: no end after 3 s"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_whatever_breaks_is_a_finding(tmp_path, monkeypatch, code, found):
    make_package(tmp_path, "torch", code, monkeypatch)
    (finding,) = isolated("GPU", timeout_s=3)
    assert (finding.name, finding.level, finding.found) == ("GPU", ERROR, found)


def test_what_is_found_before_a_check_breaks_is_kept(here, tmp_path, monkeypatch):
    make_package(tmp_path / "x", "psutil", "import os; os.abort()", monkeypatch)
    findings = isolated("DVC", "0")
    assert levels(findings)[-1] == ERROR
    assert "broke off" in findings[-1].found


def test_an_error_in_this_package_is_not_taken_for_a_package_that_is_absent(tmp_path, monkeypatch):
    """An absent package is told once, by the check of the packages."""
    code = "import not_installed"
    make_package(tmp_path / "absent", "torch", code, monkeypatch)
    assert levels(isolated("GPU")) == [REMARK]
    make_package(tmp_path / "ours", "torch", "import mitfrnet.not_there", monkeypatch)
    assert levels(isolated("GPU")) == [ERROR]


# Python and packages.


def test_the_version_of_python(tmp_path):
    assert environment._within((3, 10), ">=3.10,<3.13")
    assert environment._within((3, 12), ">=3.10,<3.13")
    assert not environment._within((3, 13), ">=3.10,<3.13")
    assert not environment._within((3, 9), ">=3.10,<3.13")
    assert environment._requires_python(ROOT) == ">=3.10,<3.13"
    finding, *_ = environment.python(make_checkout(tmp_path / "new", [], python=">=3.99"))
    assert finding.level == ERROR
    assert "(expected >=3.99)" in finding.found


def test_the_declared_packages_are_those_of_pyproject():
    tomllib = pytest.importorskip("tomllib", reason="this Python reads no TOML")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert list(environment._declared(ROOT).values()) == listed


def test_without_a_checkout_the_installed_metadata_say_what_is_needed(tmp_path):
    declared = environment._declared(tmp_path)
    assert {"torch", "pydantic"} <= set(declared)
    assert "pytest" not in declared  # of an extra


@pytest.mark.parametrize(
    ("code", "found", "advice"),
    [
        ("import os; os.abort()", "the import ends the process: SIGABRT", "force-reinstall"),
        ("import os; os._exit(0)", "the import ends the process: status 0", "force-reinstall"),
        ("import time; time.sleep(60)", "no end after", "force-reinstall"),
        ("raise SystemExit('no')", "(SystemExit: no)", "constraints.txt dvclive"),
        (
            "raise ImportError('libGL.so.1: cannot open shared object file: No such file')",
            "(ImportError: libGL.so.1: cannot",
            "apt-get install libgl1 libglib2.0-0",
        ),
        (
            "raise OSError('libsndfile.so: cannot open shared object file: No such file')",
            "(OSError: libsndfile.so: cannot",
            "install the system package that holds libsndfile.so",
        ),
    ],
)
def test_a_package_whose_import_breaks(tmp_path, monkeypatch, code, found, advice):
    make_package(tmp_path / "x", "dvclive", code, monkeypatch)
    root = make_checkout(tmp_path / "root", ["rich", "dvclive", "pyyaml"])
    findings = list(environment.packages(root, timeout_s=4))
    (broken,) = [f for f in findings if f.level == ERROR]
    assert broken.name == "dvclive"
    assert found in broken.found
    assert advice in broken.advice
    (good,) = [f for f in findings if f.level == OK]
    assert good.found.startswith("rich ")
    assert ("pyyaml" in good.found) == ("sleep" not in code)  # no time was left for it


def test_one_cause_is_told_once(tmp_path, monkeypatch):
    for name in ("dvclive", "rich"):
        make_package(tmp_path / "x", name, "raise ImportError('same')", monkeypatch)
    root = make_checkout(tmp_path / "root", ["rich", "dvclive"])
    (finding,) = environment.packages(root)
    assert finding.name == "rich, dvclive"


def test_versions_that_do_not_fit(tmp_path):
    root = make_checkout(
        tmp_path / "root",
        ["pyyaml>=99", "rich", "jinja2", "no-such-package-1", "typer"],
        pins='rich==1.0 # old\njinja2==1; python_version < "3"\n\nPyYAML==1\n# end\n',
    )
    findings = list(environment.packages(root))
    errors, remarks = of(findings, ERROR), of(findings, REMARK)
    assert "packages: 1 of 5 not installed: no-such-package-1" in errors
    assert "pyyaml: " in errors
    assert "(expected >=99)" in errors
    assert "(pinned: ==1.0)" in remarks
    assert "jinja2" not in remarks  # pinned for another Python
    (good,) = [f for f in findings if f.level == OK]
    assert [word.split()[0] for word in good.found.split(", ")] == ["rich", "jinja2", "typer"]


# What decodes, detects and computes.


def test_decoders(monkeypatch):
    (finding,) = environment.decoders()
    assert finding.level == OK
    assert "h264" in finding.found
    monkeypatch.setitem(environment._DECODERS, "sound", ("aac", "no_such_codec"))
    lacking, _ = environment.decoders()
    assert (lacking.level, "none for no_such_codec:" in lacking.found) == (REMARK, True)


def test_a_clip_that_is_read_wrongly_is_an_error(monkeypatch):
    monkeypatch.setattr("mitfrnet.media.decode.iter_frames", lambda *a, **k: iter([(0.0, 0)]))
    (finding,) = environment.decoders()
    assert finding.level == ERROR
    assert "1 frames of brightness 0" in finding.found


def test_opencv_without_its_system_library(tmp_path, monkeypatch):
    assert levels(isolated("libGL")) == [OK]
    code = "raise ImportError('libGL.so.1: cannot open shared object file: No such file')"
    make_package(tmp_path, "cv2", code, monkeypatch)
    (finding,) = isolated("libGL")
    assert (finding.level, finding.advice) == (
        ERROR,
        "on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0",
    )


@pytest.mark.slow
def test_the_face_detector_really_looks(here, monkeypatch):
    (finding,) = isolated("face detector")
    assert (finding.level, "face_mesh: finds a drawn face" in finding.found) == (OK, True)
    monkeypatch.setattr(environment, "_drawn_face", lambda: torch.zeros(64, 64, 3).byte().numpy())
    (finding,) = environment.face_detector()
    assert (finding.level, "in 0 of 5 frames" in finding.found) == (ERROR, True)


def test_no_gpu_is_a_remark(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (finding,) = environment.gpu()
    assert finding.level == REMARK


def test_little_memory_is_a_remark(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(environment, "_memory_gib", lambda: 4.0)
    (finding,) = environment.machine()
    assert (finding.level, finding.advice) == (REMARK, "set run.workers in params.yaml to 6")
    monkeypatch.setattr(environment, "_memory_gib", lambda: 5.0)
    assert levels(environment.machine()) == [OK]


def test_commands_of_another_environment(tmp_path, monkeypatch):
    assert levels(project.commands()) == [OK]
    other = tmp_path / "bin"
    other.mkdir()
    (other / "python").write_text("#!/bin/sh\necho /elsewhere\n")
    (other / "python").chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    findings = list(project.commands())
    assert levels(findings) == [ERROR, ERROR]
    assert "which is not the Python of" in findings[0].found
    assert findings[1].found == "no `dvc` on the PATH"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no `python` on the PATH" in of(project.commands(), ERROR)


# Parameters and models.


def test_every_section_that_a_stage_loads_is_looked_at():
    """The others are looked at one by one: their names or types depend on the grid."""
    loaded = set()
    for script in (ROOT / "pipeline").glob("*.py"):
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "load_params":
                kind, section = node.args[0].id, node.keywords[0].value
                if isinstance(section, ast.Constant) and "." not in section.value:
                    loaded.add((section.value, kind))
    assert loaded == {(s, name.rpartition(".")[2]) for s, name in project.SECTIONS.items()}


def set_(section, key, value):
    def change(values):
        *path, last = f"{section}.{key}".split(".")
        for part in path:
            values = values[part]
        values[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda v: v.update(maks={}), "maks: unknown section (expected: mask)"),
        (set_("mask", "sed", 1), "mask.sed: unknown key (expected: seed)"),
        (set_("extract", "visual.backend", "dlib"), "extract.visual.backend: "),
        (set_("grid", "corpora", ["other"]), "corpora.other: no such section"),
        (set_("corpora", "sample.language", "fr"), "none for language 'fr'"),
        (set_("grid", "models", ["tnf"]), "model.tnf: no such section"),
        (set_("grid", "missing_rates", [1.5]), "1.5"),
        (set_("grid", "seeds", [-1]), "grid.seeds: -1"),
        (set_("run", "devices", 9999), "run.devices: 9999 (expected at most "),
    ],
)
def test_parameters_that_a_stage_refuses(here, change, found):
    assert levels(project.parameters()) == [OK]
    edit(here / "params.yaml", change)
    (finding,) = project.parameters()
    assert finding.level == ERROR
    assert found in finding.found


def test_all_faults_of_the_parameters_are_told(here):
    edit(here / "params.yaml", set_("mask", "seed", "x"))
    edit(here / "params.yaml", set_("extract", "text.batch_size", 0))
    assert levels(project.parameters()) == [ERROR, ERROR]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_not_there(here):
    edit(here / "params.yaml", set_("extract", "text.device", "cuda"))
    assert "extract.text.device: cuda (expected cpu" in of(project.parameters(), ERROR)


@pytest.mark.parametrize("content", [None, "grid: [", b"\xff\xfe\x00"])
def test_no_parameters_at_all(here, content):
    """All other checks of the project bear it."""
    if content is None:
        (here / "params.yaml").unlink()
    elif isinstance(content, str):
        (here / "params.yaml").write_text(content)
    else:
        (here / "params.yaml").write_bytes(content)
    assert levels(project.parameters()) == [ERROR]
    assert levels(project.models()) == [OK]
    assert levels(project.dvc("0")) == [ERROR]
    assert project.visual_backend() == "face_mesh"


def test_the_embedded_encoder_is_checked_by_its_digest(here, monkeypatch):
    first, second = project.models()
    assert (first.level, "text encoder embedded" in first.found) == (OK, True)
    assert (second.level, "no corpus of the grid needs it" in second.found) == (OK, True)
    monkeypatch.setitem(text_encoder._EMBEDDED_SHA256, "tokenizer.json", "0" * 64)
    first, _ = project.models()
    assert first.level == ERROR
    assert "SHA-256 differs" in first.found


@pytest.mark.slow
def test_what_would_be_downloaded_is_a_remark(here, spied, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    edit(here / "params.yaml", set_("extract", "text.encoders", {"en": "nobody/no-encoder"}))
    edit(here / "params.yaml", set_("extract", "visual.backend", "face_landmarker"))
    edit(here / "params.yaml", set_("corpora", "sample.asr", "nobody/no-whisper"))
    findings = isolated("models")
    assert levels(findings) == [REMARK, REMARK, REMARK]
    for name in ("nobody/no-encoder", "nobody/no-whisper", "face_landmarker.task"):
        assert name in of(findings, REMARK)
    assert levels(isolated("face detector")) == [REMARK]
    assert not spied.exists()
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_is_no_encoder_is_an_error(here):
    (here / "encoder").mkdir()
    edit(here / "params.yaml", set_("extract", "text.encoders", {"en": "encoder"}))
    (finding,) = project.models()
    assert finding.level == ERROR
    assert "text encoder 'encoder'" in finding.found


def test_another_file_in_place_of_the_face_landmarker(here, monkeypatch):
    (here / "face.task").write_bytes(b"x")
    monkeypatch.setenv(MODEL_VARIABLE, "face.task")
    assert levels(project.models()) == [OK, OK]  # face_mesh does not need it
    edit(here / "params.yaml", set_("extract", "visual.backend", "face_landmarker"))
    *_, finding = project.models()
    assert finding.level == ERROR
    assert "not the face landmarker this version knows" in finding.found


@pytest.mark.slow
@pytest.mark.skipif(not FACE_MODEL.exists(), reason=f"no ../shared/models/{FACE_MODEL.name}")
def test_the_face_landmarker(here, monkeypatch):
    monkeypatch.setenv(MODEL_VARIABLE, str(FACE_MODEL))
    edit(here / "params.yaml", set_("extract", "visual.backend", "face_landmarker"))
    *_, finding = project.models()
    assert (finding.level, "with the expected SHA-256" in finding.found) == (OK, True)
    (finding,) = isolated("face detector")
    assert (finding.level, "face_landmarker: finds a drawn face" in finding.found) == (OK, True)


# git, DVC and disk.


def test_a_project_that_dvc_can_run(here):
    findings = list(project.dvc("0"))
    assert levels(findings) == [OK, OK, OK]
    assert findings[0].found.endswith("10 stages")


def test_git_is_no_error_of_its_own(here, monkeypatch):
    """DVC says itself whether it can do without."""
    assert "Needed a single revision" in of(project.git(), REMARK)
    shutil.rmtree(".git")
    assert "not a git repository" in of(project.git(), REMARK)
    assert "is not a git repository" in of(project.dvc("0"), ERROR)
    monkeypatch.setenv("PATH", "/nowhere")
    assert levels(project.git()) == [REMARK]


def test_dvc_is_not_initialised(here):
    shutil.rmtree(".dvc")
    (finding,) = project.dvc("0")
    assert finding.level == ERROR
    assert "not inside of a DVC repository" in finding.found
    assert "dvc init" in finding.advice


@pytest.mark.parametrize("content", [None, "stages: [", "stages: {x: {cmd: a, dep: b}}"])
def test_stages_that_dvc_cannot_read(here, content):
    (here / "dvc.yaml").unlink()
    if content is not None:
        (here / "dvc.yaml").write_text(content)
    assert levels(project.dvc("0")) == [ERROR]


def test_a_corpus_that_is_not_there(here):
    shutil.rmtree("raw")
    findings = list(project.dvc("0"))
    assert "stages need what is not here: raw/sample" in of(findings, ERROR)


@pytest.mark.slow
def test_another_dvc_holds_the_lock(here):
    Path(".dvc/tmp").mkdir()
    held = zc.lockfile.LockFile(".dvc/tmp/lock")
    try:
        assert "DVC lock: held by another DVC" in of(project.dvc("0"), ERROR)
    finally:
        held.close()
    assert levels(project.dvc("0")) == [OK, OK, OK]


def test_a_stage_of_another_dvc_is_at_work(here):
    with subprocess.Popen(["sleep", "60"]) as other:
        info = {"pid": other.pid, "cmd": "dvc repro"}
        Path(".dvc/tmp").mkdir()
        lock = Path(".dvc/tmp/rwlock")
        lock.write_text(json.dumps({"write": {"data": info}, "read": {"raw": [info]}}))
        running = of(project.dvc("0"), ERROR)
        other.kill()
    assert f"DVC lock: at work: dvc repro (process {other.pid}) " in running
    assert levels(project.dvc("0")) == [OK, OK, OK]
    lock.write_text("{")
    assert "rwlock is damaged" in of(project.dvc("0"), ERROR)


@pytest.mark.parametrize("out", ["data", "models/sample", ".dvc/cache"])
def test_a_file_where_a_folder_must_be(here, out):
    (here / out).parent.mkdir(exist_ok=True)
    (here / out).write_text("x")
    findings = list(project.dvc("0"))
    assert f"{out}: not a folder" in of(findings, ERROR)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no folder that refuses root too")
def test_a_folder_that_refuses_to_be_written_to(here, monkeypatch):
    Path("models").symlink_to("/sys/kernel")
    findings = list(project.dvc("0"))
    (finding,) = [f for f in findings if f.level == ERROR]
    assert (finding.name, finding.found.partition(":")[0]) == ("write access", "models")
    assert levels(project.write_access()) == [OK]
    assert os.listdir() == os.listdir(here)
    monkeypatch.chdir("/sys/kernel")
    assert levels(project.write_access()) == [ERROR]


def test_a_disk_that_is_nearly_full(here):
    assert levels(project.disk("0")) == [OK, OK]
    findings = list(project.disk("1e9"))
    assert levels(findings) == [ERROR, OK]  # little is written to the temporary folder
    assert "(expected 1e+09)" in findings[0].found
    assert "the DVC cache: " in of(project.dvc("1e9"), ERROR)


def test_a_check_that_is_given_up_ends(tmp_path, monkeypatch):
    make_package(tmp_path, "torch", "import time; time.sleep(60)", monkeypatch)
    start = time.monotonic()
    isolated("GPU", timeout_s=1)
    assert time.monotonic() - start < 30
