import tracemalloc

import pytest

from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.corpus.ingest import ProbedClip, build_manifest, summarise
from mitfrnet.corpus.manifest import manifest_rows, read_manifest, utterance_duration_s
from mitfrnet.errors import FeatureError
from mitfrnet.media.decode import unusable
from tests.helpers.reading import INGEST, MOSI

MANY = 20_000  # more than are Python objects at one time


def clips_of(count):
    return (
        (
            LabelledClip(f"x:{i}", f"v{i % 100}", f"{i:05d}", label=0.5, split="train"),
            ProbedClip(None, unusable("no_file")),
        )
        for i in range(count)
    )


def test_rows_that_are_made_a_few_at_a_time_are_all_there_and_in_order():
    manifest = build_manifest(clips_of(MANY), MOSI, INGEST)
    expected = sorted(f"v{i % 100}/{i:05d}" for i in range(MANY))
    assert manifest["utterance_id"].to_pylist() == expected
    assert list(manifest_rows(manifest)) == manifest.to_pylist()
    assert build_manifest([], MOSI, INGEST).schema == manifest.schema


def test_summing_up_many_clips_does_not_hold_their_rows():
    """A row of 28 values as Python objects takes two kilobytes."""
    manifest = build_manifest(clips_of(MANY), MOSI, INGEST)
    tracemalloc.start()
    summary = summarise(manifest)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert summary["clips"] == summary["naturally_missing"]["visual"]["no_file"] == MANY
    assert (summary["videos"], summary["videos_on_two_sides"]) == (100, 0)
    assert peak < 500 * MANY


def test_a_file_that_is_no_manifest_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    for name in ("none.parquet", "x.parquet"):
        with pytest.raises(FeatureError, match="run the ingest stage"):
            read_manifest(tmp_path / name)


@pytest.mark.parametrize(
    ("start_s", "end_s", "file_s", "lasts_s"),
    [
        (None, None, 3.0, 3.0),
        (1.0, None, 3.0, 2.0),
        (1.0, 2.5, 3.0, 1.5),
        (1.0, 9.0, 3.0, 2.0),  # ends with the file
        (1.5, 4.0, 0.0, 2.5),  # the file's length is unknown
        (5.0, None, 3.0, 0.0),
        (None, None, None, 0.0),
    ],
)
def test_an_utterance_lasts_from_its_start_to_its_end_within_the_file(
    start_s, end_s, file_s, lasts_s
):
    row = {"start_s": start_s, "end_s": end_s, "duration_s": file_s}
    assert utterance_duration_s(row) == lasts_s
