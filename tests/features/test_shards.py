from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mitfrnet.errors import FeatureError
from mitfrnet.features.extractor import Features
from mitfrnet.features.shards import (
    FeatureRow,
    ShardFolder,
    extractor_digest,
    feature_schema,
    read_features,
    shard_count,
    shard_of,
    to_table,
)


class TwoColumns:
    """Describes an extractor, whose features `row` makes."""

    version = "1"
    feature_names = ("a", "b")
    units = ("1", "rad")
    columns = {"token": np.int32}  # noqa: RUF012
    identity = {"setting": 3}  # noqa: RUF012


EXTRACTOR = TwoColumns()
SCHEMA = feature_schema(EXTRACTOR)
VALID = extractor_digest(EXTRACTOR)
IDS = [f"v{i}/{i:02d}" for i in range(50)]


def row(utterance_id, input_digest="i", extractor=VALID):
    """Clip v<i>/<i> has i % 4 steps, the first undetected; every fifth clip lacks the modality."""
    i = int(utterance_id.split("/")[1])
    if i % 5 == 0:
        return FeatureRow(utterance_id, None, "no_file", input_digest, extractor)
    steps = i % 4
    values = np.full((steps, 2), i, dtype=np.float32)
    values[:1] = np.nan
    detected = np.arange(steps) > 0
    starts = np.arange(steps, dtype=np.float32)
    tokens = {"token": np.arange(steps, dtype=np.int32)}
    return FeatureRow(
        utterance_id, Features(values, detected, starts, tokens), None, "i", extractor
    )


def digests(ids, value="i"):
    return {u: (value, VALID) for u in ids}


def fill(folder, ids=IDS, shards=1):
    folder.mkdir(exist_ok=True)
    store = ShardFolder(folder, SCHEMA, shards)
    for shard in range(shards):
        here = [u for u in ids if shard_of(u, shards) == shard]
        store.write(shard, digests(here), [row(u) for u in here])
    return store


def test_rows_come_back_sorted_with_their_values(tmp_path):
    fill(tmp_path, IDS[::-1], shards=4)
    table = read_features(tmp_path)
    rows = {r["utterance_id"]: r for r in table.to_pylist()}
    assert list(rows) == sorted(IDS)
    seven = rows["v7/07"]
    assert np.array_equal(np.array(seven["values"]), [[np.nan] * 2, [7, 7], [7, 7]], equal_nan=True)
    assert seven["detected"] == [False, True, True]
    assert seven["start_s"] == [0, 1, 2]
    assert seven["token"] == [0, 1, 2]
    assert (seven["status"], seven["reason"]) == ("ok", None)
    assert rows["v5/05"]["status"] == "missing"
    assert rows["v5/05"]["reason"] == "no_file"
    assert rows["v5/05"]["values"] == []
    assert table.schema.field("values").type == pa.list_(pa.list_(pa.float32(), 2))


def test_bytes_do_not_depend_on_history(tmp_path):
    """One shard is written at once, the other in two halves."""
    fill(tmp_path / "clean")
    store = fill(tmp_path / "grown", IDS[::2])
    assert store.outdated(0, digests(IDS)) == set(IDS[1::2])
    store.write(0, digests(IDS), [row(u) for u in IDS[1::2]])
    (clean,), (grown,) = ((tmp_path / n).glob("*.parquet") for n in ("clean", "grown"))
    assert clean.read_bytes() == grown.read_bytes()


def test_a_removed_utterance_leaves_the_shard(tmp_path):
    store = fill(tmp_path)
    assert store.is_current(0, digests(IDS))
    assert not store.is_current(0, digests(IDS[1:]))
    assert store.outdated(0, digests(IDS[1:])) == set()
    store.write(0, digests(IDS[1:]), [])
    assert len(read_features(tmp_path)) == len(IDS) - 1


def test_rows_of_other_input_or_settings_are_outdated(tmp_path):
    store = fill(tmp_path)
    asked = digests(IDS) | {IDS[3]: ("changed", VALID)}
    assert store.outdated(0, asked) == {IDS[3]}
    other = TwoColumns()
    other.identity = {"setting": 4}
    changed = ShardFolder(tmp_path, feature_schema(other), 1)
    assert changed.outdated(0, digests(IDS)) == set(IDS)


def test_a_failed_row_is_tried_again(tmp_path):
    store = ShardFolder(tmp_path, SCHEMA, 1)
    store.write(0, digests(IDS[:1]), [FeatureRow(IDS[0], None, "timed_out", "i", "")])
    assert store.outdated(0, digests(IDS[:1])) == {IDS[0]}


def test_a_damaged_shard_is_outdated_and_cannot_be_read(tmp_path):
    store = fill(tmp_path)
    (path,) = tmp_path.glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert store.outdated(0, digests(IDS)) == set(IDS)
    with pytest.raises(FeatureError, match="run the extract stage"):
        read_features(tmp_path)


@pytest.mark.parametrize(("before", "after"), [(2, 8), (8, 2)])
def test_rows_are_kept_when_a_corpus_outgrows_its_shards_or_shrinks(tmp_path, before, after):
    fill(tmp_path, shards=before)
    store = ShardFolder(tmp_path, SCHEMA, after)
    for shard in range(after):
        here = digests([u for u in IDS if shard_of(u, after) == shard])
        assert store.outdated(shard, here) == set()
        store.write(shard, here, [])
    store.remove_others()
    assert len(list(tmp_path.iterdir())) == after
    assert len(read_features(tmp_path)) == len(IDS)


def test_the_folder_is_listed_once_however_many_shards_it_has(tmp_path, monkeypatch):
    fill(tmp_path, shards=8)
    listed, glob = [], Path.glob
    monkeypatch.setattr(Path, "glob", lambda *args: listed.append(args) or glob(*args))
    store = ShardFolder(tmp_path, SCHEMA, 8)
    for shard in range(8):
        here = digests([u for u in IDS if shard_of(u, 8) == shard])
        assert store.outdated(shard, here) == set()
    assert len(listed) == 1


def test_shards_of_different_settings_are_not_mixed(tmp_path):
    fill(tmp_path, shards=2)
    first = sorted(tmp_path.iterdir())[0]
    table = pq.read_table(first)
    pq.write_table(table.replace_schema_metadata({b"mitfrnet": b"{}"}), first)
    with pytest.raises(FeatureError, match="other settings than in"):
        read_features(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FeatureError, match="no features"):
        read_features(tmp_path)


@pytest.mark.parametrize(("utterances", "shards"), [(1, 8), (240, 8), (2049, 16), (10**6, 4096)])
def test_shards_grow_with_the_corpus_by_powers_of_two(utterances, shards):
    assert shard_count(utterances) == shards


def test_an_empty_table_has_the_schema():
    assert to_table([], SCHEMA).schema.equals(SCHEMA, check_metadata=True)
