import csv
import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import yaml
from typer.testing import CliRunner

from mitfrnet.cli import PublishedCorpus, app, main
from mitfrnet.errors import CorpusError, ParamsError
from mitfrnet.presets import read_preset
from mitfrnet.report.compare import CORPORA, read_published
from tests.helpers.clips import write_small_corpus
from tests.helpers.defects import BLOCK, INGEST, write_defects
from tests.helpers.paths import ROOT


def invoke(*argv):
    return CliRunner().invoke(app, argv)


@pytest.fixture
def run_of_one_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = {"corpora": ["mine"], "models": ["mitfrnet"], "missing_rates": [0.3], "seeds": [1]}
    block = {"layout": "mmsa", "language": "en", "scale": "mosi"}
    params = {"grid": grid, "corpora": {"mine": block}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    path = tmp_path / "metrics/mine/mitfrnet/0.3/1.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"acc2_has0": 0.75, "constant_prediction": False}))


def test_help_names_the_commands():
    result = invoke("--help")
    assert result.exit_code == 0
    assert "--install-completion" in result.stdout
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert {"compare", "preset", "validate", "import-mmsa", "predict", "inspect"} < commands
    for command in commands:
        assert command in result.stdout
        help_of = invoke(command, "--help")
        assert help_of.exit_code == 0
        assert f"Example: mitfrnet {command}" in " ".join(help_of.stdout.split())


@pytest.mark.parametrize("debug", [True, False])
def test_the_traceback_of_a_user_error_is_shown_on_request(tmp_path, debug):
    command = [sys.executable, "-m", "mitfrnet.cli", *["--debug"] * debug, "validate", "nowhere"]
    environment = {k: v for k, v in os.environ.items() if k != "MITFRNET_DEBUG"}
    environment["PYTHONPATH"] = str(ROOT)
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 1
    assert ("Traceback" in process.stderr) == debug
    assert "nowhere: no such folder" in process.stderr.splitlines()[-1]


def test_version():
    assert invoke("--version").stdout == f"mitfrnet {version('mitfrnet')}\n"


def test_the_command_line_itself_is_light():
    code = (
        "import sys, mitfrnet.cli\n"
        "try: mitfrnet.cli.main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'pyarrow', 'pipeline'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_a_wrong_input_is_one_line_and_status_1(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "mitfrnet.cli", "preset", "nope"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == "error: unknown preset 'nope' (expected: mosi, sims, study)\n"


def test_a_wrong_option_is_explained_with_status_2():
    result = invoke("compare", "mine", "--with", "mosei")
    assert result.exit_code == 2
    assert "mosi" in result.stderr


def test_other_errors_are_not_swallowed(monkeypatch, capsys):
    def fail(name):
        raise {"preset": CorpusError("raw/x: odd"), "bug": KeyError("x")}[name]

    monkeypatch.setattr("mitfrnet.presets.read_preset", fail)
    with pytest.raises(SystemExit) as end:
        main(["preset", "preset"])
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: raw/x: odd\n"
    with pytest.raises(KeyError):
        main(["preset", "bug"])


def test_compare_prints_tables_and_writes_rows(run_of_one_cell, tmp_path):
    """Published: 72.97; ours 75.00."""
    out = tmp_path / "rows.csv"
    result = invoke("compare", "mine", "--with", "mosi", "--table", "4", "--csv", str(out))
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["paper", "72.97"] in lines
    assert ["difference", "+2.03"] in lines
    assert "--same-corpus" in result.stdout
    with out.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 440


def test_a_folder_instead_of_a_file_is_one_line(run_of_one_cell, tmp_path):
    result = invoke("compare", "mine", "--with", "mosi", "--csv", str(tmp_path))
    assert result.exit_code == 2
    assert "is a directory" in " ".join(result.stderr.replace("│", "").split())


def test_compare_offers_all_published_corpora_and_tables():
    """The command line repeats them, so that it need not import the comparison."""
    assert [corpus.value for corpus in PublishedCorpus] == list(CORPORA)
    results = {n: invoke("compare", "mine", "--with", "mosi", "--table", str(n)) for n in range(12)}
    offered = {n for n, result in results.items() if result.exit_code != 2}
    assert offered == {p.table for p in read_published()}


def test_compare_accepts_same_corpus_and_a_folder(run_of_one_cell, tmp_path):
    (tmp_path / "metrics").rename(tmp_path / "elsewhere")
    argv = ["compare", "mine", "--with", "mosi", "--same-corpus", "--metrics", "elsewhere"]
    result = invoke(*argv)
    assert result.exit_code == 0, result.output
    assert "--same-corpus" not in result.stdout


def test_compare_without_params_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["compare", "mine", "--with", "mosi"])
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: params.yaml: cannot be read")


def test_preset_is_printed():
    assert invoke("preset", "study").stdout == read_preset("study")


def test_preset_is_written_and_its_changes_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    result = invoke("preset", "study", "--write")
    assert result.exit_code == 0, result.output
    assert "grid.seeds: [1] -> [111, 1111, 11111]" in result.stdout
    *_, count, comments = result.stdout.splitlines()
    assert count == "params.yaml: 3 values changed"
    assert "`mitfrnet preset study` shows the source of each value" in comments
    again = invoke("preset", "study", "--write")
    assert again.stdout == "params.yaml: 0 values changed\n"


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """A folder with `params.yaml`, raw/defects and raw/mine."""
    monkeypatch.chdir(tmp_path)
    write_defects(tmp_path / "raw" / "defects")
    write_small_corpus(tmp_path / "raw" / "mine")
    mine = {"layout": "mmsa", "language": "en", "scale": "mosi"}
    params = {
        "run": {"workers": 2, "timeout_seconds": 60},
        "ingest": INGEST,
        "corpora": {"defects": BLOCK, "mine": mine},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))


def test_validate_lists_the_worst_and_ends_with_1(corpora):
    result = invoke("validate", "raw/defects")
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "error raw/defects/clips.csv:24: label is 7, out of scale" in text
    assert "error raw/defects/clips.csv:25: split is '[red]dev'" in text
    assert "gone/1.*: no file" in text
    assert "and 14 more: one class: 2; " in text
    assert "\x1b" not in result.stdout


def test_validate_lists_as_many_problems_as_asked(corpora):
    every = " ".join(invoke("validate", "raw/defects", "--problems", "99").stdout.split())
    assert "\\x1b[7;1~" in every
    assert " more:" not in every
    none = invoke("validate", "raw/defects", "--problems", "0").stdout
    assert "and 24 more:" in none
    assert "gone/1" not in none


def test_warnings_alone_end_with_0(corpora):
    result = invoke("validate", "raw/mine/")
    assert result.exit_code == 0, result.output
    assert "0 errors, 2 warnings" in result.stdout  # one clip in valid, one in test


def test_only_json_is_on_stdout(corpora):
    result = invoke("validate", "raw/defects", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["clips"], report["errors"], report["warnings"]) == (21, 6, 18)
    assert "probe" in result.stderr


def test_without_probing_no_clip_is_opened(corpora):
    result = invoke("validate", "raw/defects", "--no-probe", "--json")
    report = json.loads(result.stdout)
    assert not report["probed"]
    assert report["missing"]["visual"] == {"no_file": 1}
    assert result.stderr == ""


def test_another_block_is_named(corpora, tmp_path):
    (tmp_path / "raw" / "mine").rename(tmp_path / "elsewhere")
    assert invoke("validate", "elsewhere", "--corpus", "mine").exit_code == 0
    with pytest.raises(ParamsError, match=r"corpora.elsewhere: no such block.*layout: mmsa"):
        main_raising("validate", "elsewhere")


def main_raising(*argv):
    raise invoke(*argv).exception


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_can_show_any_corpus(corpora, encoding):
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mitfrnet.cli",
            "validate",
            "raw/defects",
            "--no-probe",
            "--problems=99",
        ],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 1
    assert run.stderr == b""
    text = " ".join(run.stdout.decode(encoding).split())
    dots = "…" if encoding == "utf-8" else r"\u2026"
    assert rf"transcript '?! {dots} \x1b[7;1~'" in text
