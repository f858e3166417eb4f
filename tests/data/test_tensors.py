from pathlib import Path

import numpy as np
import pytest

from mitfrnet.data.tensors import read_steps, read_tensors, write_tensors
from mitfrnet.errors import FeatureError
from mitfrnet.modalities import MODALITIES, SPLITS
from tests.helpers.splits import DIMS, make_split


@pytest.fixture
def splits():
    return {name: make_split(5 + i, seed=i, without=[2]) for i, name in enumerate(SPLITS)}


def test_tensors_are_read_back_as_written(tmp_path, splits):
    write_tensors(splits, tmp_path)
    read = read_tensors(tmp_path)
    for name, split in splits.items():
        assert read[name].ids == split.ids
        assert read[name].metadata == split.metadata
        assert read[name].dims == DIMS
        assert np.array_equal(read[name].label, split.label)
        assert np.array_equal(read[name].token_ids, split.token_ids)
        for modality in MODALITIES:
            for part in ("values", "detected", "time_s", "offsets"):
                ours, theirs = (getattr(s.modalities[modality], part) for s in (read[name], split))
                assert ours.dtype == theirs.dtype
                assert np.array_equal(ours, theirs)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of mapped files")
def test_features_are_mapped_and_not_read(tmp_path, splits):
    write_tensors(splits, tmp_path)
    train = read_tensors(tmp_path, ["train"])["train"]
    address = train.modalities["acoustic"].values.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, end = (int(x, 16) for x in line.split()[0].split("-"))
        if first <= address < end:
            assert line.endswith("train.safetensors")
            return
    raise AssertionError("the address of the array is not in the list")


def test_the_same_tensors_give_the_same_bytes(tmp_path, splits):
    for folder in ("a", "b"):
        write_tensors(splits, tmp_path / folder)
    for name in SPLITS:
        paths = [tmp_path / folder / f"{name}.safetensors" for folder in ("a", "b")]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_steps_are_read_without_the_features(tmp_path, splits):
    write_tensors(splits, tmp_path)
    for name, steps in read_steps(tmp_path).items():
        expected = splits[name].steps
        assert steps.ids == expected.ids
        for modality in MODALITIES:
            for part in ("detected", "times"):
                ours, theirs = getattr(steps, part)[modality], getattr(expected, part)[modality]
                for a, b, utterance in zip(ours, theirs, steps.ids, strict=True):
                    assert np.array_equal(a, b), utterance
        for a, b in zip(steps.special, expected.special, strict=True):
            assert np.array_equal(a, b)
        assert [len(d) for d in steps.detected["text"]][2] == 0


@pytest.mark.parametrize("content", [None, b"", b"not tensors" * 9])
def test_a_file_that_holds_no_tensors_is_refused(tmp_path, splits, content):
    write_tensors(splits, tmp_path)
    path = tmp_path / "valid.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    for read in (read_tensors, read_steps):
        with pytest.raises(FeatureError, match=r"valid\.safetensors: .*run the tensors stage"):
            read(tmp_path)
