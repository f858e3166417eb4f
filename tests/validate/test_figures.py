import pytest

from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.labels import ClassScale, Scale, parse_scale
from mitfrnet.validate import figures


def test_scores_of_mosi_are_counted_by_the_nearest_whole_number():
    """-2.6 is nearest to -3; -0.4, 0 and 0.4 to 0; 0.5 is counted upwards; 3 is the last bar."""
    counts = figures.histogram([-2.6, -0.4, 0, 0.4, 0.5, 3], parse_scale("mosi"))
    assert counts == {"-3": 1, "-2": 0, "-1": 0, "0": 3, "1": 1, "2": 0, "3": 1}


def test_scores_of_sims_are_counted_by_their_own_steps():
    counts = figures.histogram([-1, -0.8, -0.2, 0, 0.2, 0.6, 0.6, 1], parse_scale("sims"))
    assert " ".join(counts) == "-1 -0.8 -0.6 -0.4 -0.2 0 0.2 0.4 0.6 0.8 1"
    assert list(counts.values()) == [1, 1, 0, 0, 1, 1, 1, 0, 2, 0, 1]


@pytest.mark.parametrize(
    ("low", "high", "first", "bars"),
    [(1, 5, ["1", "1.5"], 9), (0, 100, ["0", "10"], 11), (0.5, 3.2, ["0.5", "1"], 6)],
)
def test_bars_are_round_and_few_whatever_the_scale(low, high, first, bars):
    scale = Scale(low=low, high=high, neutral=2, neutral_is="positive", clip=True, cuts={})
    counts = figures.histogram([low, high], scale)
    assert list(counts)[:2] == first
    assert len(counts) == bars
    assert sum(counts.values()) == 2


def test_classes_are_counted_by_name_also_where_there_are_none():
    scale = ClassScale(classes=("anger", "joy", "fear"))
    assert figures.histogram([1.0, 1.0, 0.0], scale) == {"anger": 1, "joy": 2, "fear": 0}


def test_the_size_is_that_of_each_file_once(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"123")
    (tmp_path / "b.parquet").write_bytes(b"12345")
    segments = [LabelledClip(f"t:{i}", "v", str(i), path="a.mp4") for i in range(3)]
    gone = LabelledClip("t:9", "w", "1", path="c.mp4")
    assert figures.size_of(tmp_path, [*segments, gone]) == 3
    assert figures.size_of(tmp_path, [LabelledClip("t:1", "v", "1", digest="0")]) == 5
