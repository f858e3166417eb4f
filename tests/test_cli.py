import csv
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mitfrnet.cli import PublishedCorpus, app, main
from mitfrnet.errors import CorpusError
from mitfrnet.presets import read_preset
from mitfrnet.report.compare import CORPORA, read_published

ROOT = Path(__file__).parents[1]


def invoke(*argv):
    return CliRunner().invoke(app, argv)


@pytest.fixture
def run_of_one_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = {"corpora": ["mine"], "models": ["mitfrnet"], "missing_rates": [0.3], "seeds": [1]}
    params = {"grid": grid | {"baselines": []}, "corpora": {"mine": {"scale": "mosi"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    path = tmp_path / "metrics/mine/mitfrnet/0.3/1.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"acc2_has0": 0.75, "constant_prediction": False}))


def test_help_names_the_commands():
    result = invoke("--help")
    assert result.exit_code == 0
    for command in ("compare", "preset"):
        assert command in result.stdout
        assert invoke(command, "--help").exit_code == 0
    assert "--install-completion" not in result.stdout


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


def test_a_folder_in_the_place_of_a_file_is_one_line(run_of_one_cell, tmp_path):
    result = invoke("compare", "mine", "--with", "mosi", "--csv", str(tmp_path))
    assert result.exit_code == 2
    assert "is a directory" in " ".join(result.stderr.replace("│", "").split())


def test_compare_offers_the_corpora_and_tables_there_are():
    """The command line repeats them, so that it need not import the comparison."""
    assert [corpus.value for corpus in PublishedCorpus] == list(CORPORA)
    results = {n: invoke("compare", "mine", "--with", "mosi", "--table", str(n)) for n in range(12)}
    offered = {n for n, result in results.items() if result.exit_code != 2}
    assert offered == {p.table for p in read_published()}


def test_compare_takes_the_users_word_and_folder(run_of_one_cell, tmp_path):
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


def test_preset_is_printed_as_it_stands():
    assert invoke("preset", "study").stdout == read_preset("study")


def test_preset_is_written_and_its_changes_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    result = invoke("preset", "study", "--write")
    assert result.exit_code == 0, result.output
    assert "grid.seeds: [1] -> [111, 1111, 11111]" in result.stdout
    *_, count, comments = result.stdout.splitlines()
    assert count == "params.yaml: 4 values changed"
    assert comments.startswith("Comments are still those of the file: `mitfrnet preset study`")
    again = invoke("preset", "study", "--write")
    assert again.stdout == "params.yaml: 0 values changed\n"
