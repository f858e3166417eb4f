"""Imported features are read as they were written, and errors name what is wrong with a file."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from mitfrnet.errors import FeatureError, MediaError
from mitfrnet.features.extractor import Clip, Features
from mitfrnet.features.imported import ROWS_PER_GROUP, ImportedExtractor
from mitfrnet.features.shards import FeatureRow, feature_schema, to_table


def description(dim=3):
    return {
        "version": "1",
        "feature_names": [f"audio_{i:03d}" for i in range(dim)],
        "units": ["unknown"] * dim,
        "identity": {"source": "abc"},
    }


def features(steps, seed=0, dim=3):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(steps, dim)).astype(np.float32)
    detected = rng.random(steps) > 0.3
    values[~detected] = np.nan
    return Features(values, detected, np.full(steps, np.nan, np.float32))


def write(folder, modality, rows, extractor):
    table = to_table(rows, feature_schema(extractor))
    pq.write_table(table, folder / f"{modality}.parquet", row_group_size=ROWS_PER_GROUP)


@pytest.fixture
def extractor():
    return ImportedExtractor("acoustic", description())


def test_rows_come_back_in_any_order(tmp_path, extractor):
    """Twenty rows are in three row groups."""
    rows = [FeatureRow(f"v/{i:02d}", features(i + 1, i), None, "d", "e") for i in range(20)]
    write(tmp_path, "acoustic", rows, extractor)
    for i in np.random.default_rng(1).permutation(20):
        loaded = extractor.extract(Clip(f"v/{i:02d}", tmp_path))
        assert np.array_equal(loaded.values, rows[i].features.values, equal_nan=True)
        assert loaded.values.dtype == np.float32
        assert np.array_equal(loaded.detected, rows[i].features.detected)
        assert np.isnan(loaded.start_s).all()
        assert loaded.columns == {}


def test_text_has_the_columns_of_its_extractor(tmp_path):
    from mitfrnet.features.text import TextExtractor

    extractor = ImportedExtractor("text", description())
    assert extractor.columns == TextExtractor.columns
    columns = {
        "input_ids": np.array([101, 7, 102], np.int32),
        "special": np.array([True, False, True]),
        "char_start": np.array([0, 0, 0], np.int32),
        "char_end": np.array([0, 4, 0], np.int32),
    }
    values = features(3)
    stored = Features(values.values, values.detected, values.start_s, columns)
    write(tmp_path, "text", [FeatureRow("v/1", stored, None, "d", "e")], extractor)
    loaded = extractor.extract(Clip("v/1", tmp_path))
    assert loaded.columns.keys() == columns.keys()
    for name, array in columns.items():
        assert np.array_equal(loaded.columns[name], array)
        assert loaded.columns[name].dtype == array.dtype


def test_a_missing_modality_gives_its_reason(tmp_path, extractor):
    write(tmp_path, "acoustic", [FeatureRow("v/1", None, "nothing_measured", "d", "e")], extractor)
    with pytest.raises(MediaError, match=r"^nothing_measured$"):
        extractor.extract(Clip("v/1", tmp_path))


def test_a_file_that_changes_is_opened_again(tmp_path, extractor):
    for seed in (1, 2):
        row = FeatureRow("v/1", features(2, seed), None, "d", "e")
        write(tmp_path, "acoustic", [row], extractor)
        loaded = extractor.extract(Clip("v/1", tmp_path)).values
        assert np.array_equal(loaded, row.features.values, equal_nan=True)


def test_errors_say_what_is_wrong_with_the_file(tmp_path, extractor):
    clip = Clip("v/1", tmp_path)
    path = tmp_path / "acoustic.parquet"
    with pytest.raises(FeatureError, match=r"acoustic\.parquet: cannot be read .*import the"):
        extractor.extract(clip)
    path.write_bytes(b"no Parquet")
    with pytest.raises(FeatureError, match=r"acoustic\.parquet: cannot be read"):
        extractor.extract(clip)
    write(tmp_path, "acoustic", [FeatureRow("v/2", features(2), None, "d", "e")], extractor)
    with pytest.raises(FeatureError, match=r"acoustic\.parquet: no row for v/1"):
        extractor.extract(clip)
    wider = ImportedExtractor("acoustic", description(4))
    with pytest.raises(FeatureError, match="columns differ from the manifest's"):
        wider.extract(clip)
    size = path.stat().st_size
    path.write_bytes(b"PAR1" + b"\xff" * 40 + path.read_bytes()[44:size])
    with pytest.raises(FeatureError, match=r"acoustic\.parquet: .*cannot be read"):
        extractor.extract(Clip("v/2", tmp_path))
