from dataclasses import replace

import numpy as np
import pytest
import torch

from mitfrnet.data.masked import MaskedUtterances
from mitfrnet.data.scaling import SCALED, Scaling, fit_scaling
from mitfrnet.errors import FeatureError
from tests.helpers.splits import make_split, observe, text_vectors, with_value


def test_scaling_comes_from_observed_steps_alone():
    """Values at hidden steps are replaced by garbage: the statistics stay as they are."""
    split = make_split()
    observed = observe(split, 0.5)
    scaling = fit_scaling(split, observed)
    acoustic = split.modalities["acoustic"]
    kept = np.concatenate(observed["acoustic"])
    assert np.allclose(scaling.mean["acoustic"], acoustic.values[kept].mean(0), atol=1e-6)
    assert np.allclose(scaling.scale["acoustic"], acoustic.values[kept].std(0), atol=1e-6)

    garbage = replace(acoustic, values=np.where(kept[:, None], acoustic.values, 1e6))
    changed = replace(split, modalities={**split.modalities, "acoustic": garbage})
    again = fit_scaling(changed, observed)
    assert torch.equal(again.mean["acoustic"], scaling.mean["acoustic"])
    assert torch.equal(again.scale["acoustic"], scaling.scale["acoustic"])


def test_constant_and_rarely_seen_columns_are_left_as_they_are():
    split = make_split()
    split.modalities["acoustic"].values[:, 1] = 4
    scaling = fit_scaling(split, observe(split, 0.0))
    assert scaling.scale["acoustic"][1] == 1
    few = make_split(n=2)  # fewer than 32 faces
    scaling = fit_scaling(few, observe(few, 0.0))
    assert scaling.mean["visual"].tolist() == [0] * 4
    assert scaling.scale["visual"].tolist() == [1] * 4


def test_a_modality_never_observed_in_training_leaves_the_reconstruction_loss():
    """At rate 1 there is nothing to scale by: unscaled targets would outweigh all else."""
    split = make_split()
    observed = observe(split, 1.0)
    scaling = fit_scaling(split, observed)
    assert scaling.unscored == ("acoustic", "visual")
    # Hidden steps still count as real ones, which the invariance loss compares.
    for u in MaskedUtterances(split, observed, text_vectors(split), scaling):
        assert u.hidden["acoustic"].all()


def test_scaling_is_stored_and_read_back():
    scaling = fit_scaling(make_split(), observe(make_split(), 0.0))
    again = Scaling.from_tensors(scaling.tensors())
    for modality in SCALED:
        assert torch.equal(again.mean[modality], scaling.mean[modality])
        assert torch.equal(again.scale[modality], scaling.scale[modality])


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_corrupt_observed_value_is_named(value):
    split = with_value(make_split(), "acoustic", 5, value)
    with pytest.raises(FeatureError, match=rf"acoustic features: column 1 of v/05 is {value}"):
        fit_scaling(split, observe(split, 0.0))
