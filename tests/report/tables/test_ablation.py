from mitfrnet.report.tables.ablation import ablation_table
from tests.helpers.made_results import make_block


def off_by(offsets):
    """Return predictions that are `offsets[model]` too high."""
    return lambda model, rate, seed, label: label + offsets[model]


def test_ablation_shows_the_difference_and_its_side(tmp_path):
    """Without MMR the MAE is 0.75, 0.25 more than the whole: worse. Without MITR 0.25: better."""
    offsets = {"mitfrnet": 0.5, "mitfrnet_no_mmr": 0.75, "mitfrnet_no_mitr": 0.25}
    results, block = make_block(tmp_path, models=tuple(offsets), predict=off_by(offsets))
    table = ablation_table(results, block)
    mae = table.heads.index("MAE ↓") - 1
    assert [li.entries[mae].text for li in table.lines] == [
        "0.500",
        "0.750 (+0.250 ↓)",
        "0.250 (-0.250 ↑)",
    ]
    assert [li.group for li in table.lines][1:] == [
        "MIT-FRNet without MMR",
        "MIT-FRNet without MITR",
    ]
    corr = table.heads.index("Corr ↑") - 1
    assert table.lines[1].entries[corr].text == "1.000 (0.000)"


def test_a_variant_is_compared_with_the_model_of_its_other_settings(tmp_path):
    """A wider model stands first in the grid; without MMR is 0.25 worse than the plain one."""
    offsets = {"mitfrnet_wide": 3.0, "mitfrnet": 0.5, "mitfrnet_no_mmr": 0.75}
    results, block = make_block(tmp_path, models=tuple(offsets), predict=off_by(offsets))
    for cell in results.select("one", "mitfrnet_wide"):
        cell.config["settings"]["dim"] = 60
    table = ablation_table(results, block)
    mae = table.heads.index("MAE ↓") - 1
    assert [li.entries[mae].text for li in table.lines] == ["0.500", "0.750 (+0.250 ↓)"]


def test_no_ablation_without_a_whole_or_a_part(tmp_path):
    for i, models in enumerate([("mitfrnet",), ("mitfrnet_no_mmr",)]):
        results, block = make_block(tmp_path / str(i), models=(*models, "tfn"))
        assert ablation_table(results, block) is None
