import tracemalloc

from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.corpus.ingest import ProbedClip, build_manifest, summarise
from mitfrnet.corpus.manifest import manifest_rows
from mitfrnet.media.decode import unusable
from tests.corpus.test_ingest import CORPUS
from tests.helpers.reading import INGEST

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
    manifest = build_manifest(clips_of(MANY), CORPUS, INGEST)
    expected = sorted(f"v{i % 100}/{i:05d}" for i in range(MANY))
    assert manifest["utterance_id"].to_pylist() == expected
    assert list(manifest_rows(manifest)) == manifest.to_pylist()
    assert build_manifest([], CORPUS, INGEST).schema == manifest.schema


def test_summing_up_many_clips_does_not_hold_their_rows():
    """A row of 28 values as Python objects takes two kilobytes."""
    manifest = build_manifest(clips_of(MANY), CORPUS, INGEST)
    tracemalloc.start()
    summary = summarise(manifest)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert summary["clips"] == summary["naturally_missing"]["visual"]["no_file"] == MANY
    assert (summary["videos"], summary["videos_on_two_sides"]) == (100, 0)
    assert peak < 500 * MANY
