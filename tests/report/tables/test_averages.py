from mitfrnet.report.tables.averages import average_table, headline_average_table
from tests.helpers.made_results import make_block


def line(table, label, group=None):
    return next(li for li in table.lines if li.label == label and group in (None, li.group))


def test_averages_name_the_rates_they_leave_out(tmp_path):
    def predict(model, rate, seed, label):
        return 0 * label + 0.5 if rate == 0.2 else label + 1

    _, block = make_block(tmp_path, rates=(0.1, 0.2), predict=predict)
    table = average_table(block)
    entry = line(table, "MIT-FRNet", "Plain mean").entries[-1]
    assert (entry.text, entry.flags) == ("1.000", ("without 0.2",))
    assert line(table, "MIT-FRNet").flags == ("constant at 0.2",)
    assert line(table, "Majority class").flags == ("constant at every rate",)
    printed = line(table, "MIT-FRNet", "MWA as the paper prints it").entries[-2]
    assert printed.text == "-"
    corr = next(r for r in table.records if r["metric"] == "corr")
    assert (corr["skipped_rates"], corr["rates"]) == ("0.2", 2)
    headline = headline_average_table(block)
    assert headline.heads[1] == "Acc-2 % ↑"
    assert len(headline.lines) == 4
