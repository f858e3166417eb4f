from dataclasses import replace
from typing import get_args

import pytest

from mitfrnet.errors import FeatureError
from mitfrnet.inspection.masking import Judged, ShownMasks, corpus_masks, draw
from mitfrnet.inspection.utterance import only
from mitfrnet.missing import Pattern, mask_corpus, mask_steps, write_masks
from mitfrnet.modalities import MODALITIES
from tests.helpers.splits import make_mask_params, make_split

INDEX = 5


def split_of(name):
    """Return a split of 12 utterances with ids and lengths of its own."""
    split = make_split(seed=len(name))
    return replace(split, ids=[f"{name}/{i}" for i in range(12)])


def stored(tmp_path, params, rates=(0.3,)):
    splits = {name: split_of(name).steps for name in ("train", "valid", "test")}
    for rate in rates:
        masks = mask_corpus(splits, rate=rate, params=params)
        write_masks(masks, splits, tmp_path / f"{rate}.parquet")
    return only(split_of("test"), INDEX)


# The draws of `legacy` depend on all clips.
@pytest.mark.parametrize("pattern", [p for p in get_args(Pattern) if p != "legacy"])
def test_a_mask_of_one_clip_is_that_of_its_corpus(pattern):
    params, split = make_mask_params(pattern), make_split(seed=2)
    drawn = draw(only(split, INDEX), "test", params)
    assert [mask.rate for mask in drawn.masks] == pytest.approx([i / 10 for i in range(11)])
    for mask in drawn.masks[1:7]:
        whole = mask_steps(split.steps, rate=mask.rate, split="test", params=params)
        for modality in MODALITIES:
            assert mask.observed[modality].tolist() == whole[modality][INDEX].tolist()


def masks_of(tensors, part, folder, default_params, judged=None):
    """Return the masks of a clip where the grid names all that are stored."""
    conditions = sorted(path.stem for path in folder.glob("*.parquet"))
    return corpus_masks(tensors, part, folder, ShownMasks(conditions, default_params, judged))


def test_stored_masks_stand_among_those_drawn(tmp_path):
    params = make_mask_params()
    tensors = stored(tmp_path, params, (0.3, 0.35))
    masks = masks_of(tensors, "test", tmp_path, make_mask_params(seed=1)).masks
    names = [mask.name for mask in masks]
    assert names[0] == "nothing hidden"
    assert names[3:6] == ["rate 0.3, as stored", "rate 0.35, as stored", "rate 0.4"]
    drawn = draw(tensors, "test", params).masks[3]
    assert all((masks[3].observed[m] == drawn.observed[m]).all() for m in MODALITIES)


@pytest.mark.parametrize(
    ("judged", "name"),
    [
        ((0.3, 7), "rate 0.3, as stored"),
        ((0.4, 7), "rate 0.4"),
        ((0.3, 8), "rate 0.3, mask seed 8"),
        ((0.25, 7), "rate 0.25, mask seed 7"),
        ((0.0, 8), "nothing hidden"),
    ],
)
def test_the_mask_that_was_judged_under_comes_first(tmp_path, judged, name):
    params = make_mask_params(seed=7)
    tensors = stored(tmp_path, params)
    masks = masks_of(tensors, "test", tmp_path, params, Judged(*judged))
    first = masks.masks[masks.opening]
    assert first.name == name
    rate, seed = judged
    again = mask_steps(
        tensors.steps, rate=rate, split="test", params=params.model_copy(update={"seed": seed})
    )
    assert all((first.observed[m] == again[m][0]).all() for m in MODALITIES)


def test_masks_of_a_rate_that_left_the_grid_are_not_read(tmp_path):
    tensors = stored(tmp_path, make_mask_params(), (0.3,))
    (tmp_path / "0.35.parquet").write_bytes(b"of other tensors")
    masks = corpus_masks(tensors, "test", tmp_path, ShownMasks([0.3], make_mask_params())).masks
    assert [m.name for m in masks if "stored" in m.name] == ["rate 0.3, as stored"]


def test_legacy_masks_depend_on_all_clips_and_are_only_read(tmp_path):
    tensors = stored(tmp_path, make_mask_params("legacy"))
    masks = masks_of(tensors, "test", tmp_path, make_mask_params())
    assert [mask.name for mask in masks.masks] == ["nothing hidden", "rate 0.3, as stored"]
    assert masks.params.pattern == "legacy"


@pytest.mark.parametrize(("part", "shown"), [("train", True), ("test", False)])
def test_a_protocol_has_a_mask_where_its_stage_draws_one(tmp_path, part, shown):
    """The test split of a protocol is masked where it is evaluated."""
    stored(tmp_path, make_mask_params(), ("fixed_train",))
    tensors = only(split_of(part), INDEX)
    masks = masks_of(tensors, part, tmp_path, make_mask_params()).masks
    assert (masks[-1].name == "fixed_train, as stored") == shown


def test_without_stored_masks_the_default_settings_are_drawn_with(tmp_path):
    params = make_mask_params("block")
    tensors = only(make_split(), INDEX)
    masks = masks_of(tensors, "test", tmp_path, params)
    assert masks.params is params
    assert len(masks.masks) == 11


def test_masks_of_other_tensors_are_refused(tmp_path):
    tensors = stored(tmp_path, make_mask_params())
    other = only(make_split(n=40, seed=9), 30)
    with pytest.raises(FeatureError, match=r"v/30: drawn for other tensors \(run the mask stage\)"):
        masks_of(other, "test", tmp_path, make_mask_params())
    (tmp_path / "0.3.parquet").write_bytes(b"no")
    with pytest.raises(FeatureError, match=r"0\.3\.parquet: no masks"):
        masks_of(tensors, "test", tmp_path, make_mask_params())
