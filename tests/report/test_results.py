import json

import pytest

from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.grid import GridParams
from mitfrnet.params import parse_params
from mitfrnet.report.results import read_scores
from tests.helpers.made_results import make_results, read, write_results


def test_cells_come_in_the_order_of_the_grid(tmp_path):
    cells = make_results(
        tmp_path, corpora={"b": "mosi", "a": "sims"}, models=("tfn", "mitfrnet"), rates=(0.5, 0.1)
    ).cells
    assert [(c.corpus, c.condition, c.model) for c in cells] == [
        (corpus, rate, model)
        for corpus in ("b", "a")
        for rate in (0.5, 0.1)
        for model in ("tfn", "mitfrnet")
    ]
    assert [c.scale.family for c in cells] == ["mosi"] * 4 + ["sims"] * 4


def test_curves_are_by_epoch_also_those_that_start_later(tmp_path):
    """The training loss of epoch e (from 0) is 0.8 * 0.9 ** e + 0.2 + 0.06 + 0.01."""
    (cell,) = make_results(tmp_path).cells
    assert [epoch for epoch, _ in cell.losses["train/task"]] == list(range(1, 21))
    assert cell.losses["train/task"][0] == (1, pytest.approx(1.07))
    assert cell.losses["train/task"][1] == (2, pytest.approx(0.99))
    assert cell.losses["train/invariance"][0] == (2, pytest.approx(3 * 0.99))


@pytest.mark.parametrize(
    "path",
    [
        "metrics/one/quality.json",
        "metrics/one/features.json",
        "metrics/one/masks/0.3.json",
        "metrics/one/mitfrnet/0.3/1.json",
        "predictions/one/mitfrnet/0.3/1.parquet",
        "models/one/mitfrnet/0.3/1/config.json",
        "timings/one/mitfrnet/0.3/1.json",
        "models/one/mitfrnet/0.3/1/curves/plots/metrics/valid/task.tsv",
    ],
)
def test_an_absent_file_of_a_cell_is_named(tmp_path, path):
    grid = write_results(tmp_path)
    (tmp_path / path).unlink()
    with pytest.raises(FeatureError, match=r"absent, though the grid asks for it") as error:
        read(tmp_path, grid)
    assert str(tmp_path / path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_file_is_named(tmp_path):
    grid = write_results(tmp_path)
    (tmp_path / "metrics/one/quality.json").write_text("{")
    with pytest.raises(FeatureError, match=r"quality\.json: not valid JSON"):
        read(tmp_path, grid)
    (tmp_path / "metrics/one/quality.json").write_text(json.dumps({}))
    (tmp_path / "predictions/one/mitfrnet/0.3/1.parquet").write_text("no parquet")
    with pytest.raises(FeatureError, match=r"1\.parquet: not valid Parquet"):
        read(tmp_path, grid)


def test_rates_name_folders_as_they_are_written(tmp_path):
    """DVC writes 1 as `1` and 1.0 as `1.0`, so the report must look there too."""
    for rate, name in ((1, "1"), (1.0, "1.0")):
        grid = write_results(tmp_path / name, rates=(rate,))
        assert (tmp_path / name / f"metrics/one/mitfrnet/{name}/1.json").exists()
        assert read(tmp_path / name, grid).cells[0].path == f"one/mitfrnet/{name}/1"


def test_a_grid_without_models_is_an_error():
    values = {"corpora": ["a"], "models": [], "missing_rates": [0.1], "seeds": [1]}
    with pytest.raises(ParamsError, match=r"grid\.models: List should have at least 1 item"):
        parse_params(GridParams, values, where="params.yaml: grid")


def test_one_model_tested_at_several_rates_with_several_masks(tmp_path):
    (cell,) = make_results(
        tmp_path, rates=("random_train",), tested=(0.0, 0.5), mask_seeds=(1, 2), clips=3
    ).cells
    assert cell.path == "one/mitfrnet/random_train/1"
    assert {rate: list(runs) for rate, runs in cell.scores.items()} == {0.0: [1, 2], 0.5: [1, 2]}
    assert cell.tested_at(0.5, 2)["mask_seed"].to_pylist() == [2, 2, 2]
    assert cell.tested_at(0.5)["mask_seed"].to_pylist() == [1, 1, 1]


def test_a_file_with_one_set_of_scores_belongs_to_the_one_mask_of_its_predictions(tmp_path):
    (cell,) = make_results(tmp_path, rates=(0.4,), mask_seeds=(7,)).cells
    assert list(cell.scores) == [0.4]
    assert list(cell.scores[0.4]) == [7]


@pytest.mark.parametrize(
    "content", ["[]", "5", "{}", '{"by_rate": []}', '{"by_rate": {"0.3": {}}}', '{"by_rate": 1}']
)
def test_a_file_without_scores_is_named(tmp_path, content):
    path = tmp_path / "1.json"
    path.write_text(content)
    with pytest.raises(FeatureError, match=r"1\.json: not the scores of a run"):
        read_scores(path, 0.3, mask_seed=1)
