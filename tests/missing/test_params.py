from typing import get_args

import numpy as np
import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.missing import PROTOCOLS, MaskParams, Pattern, Protocol, parse_protocol
from mitfrnet.modalities import SPLITS
from mitfrnet.params import load_params, parse_params
from tests.helpers.paths import ROOT
from tests.helpers.splits import make_mask_params


@pytest.mark.parametrize("entry", ["0.3", 0.3])
def test_a_number_is_a_rate_of_all_splits(entry):
    protocol = parse_protocol(entry)
    assert protocol == Protocol("matched", 0.3)
    assert [protocol.rate_of(s, 0.5) for s in SPLITS] == [0.3] * 3
    assert not any(protocol.drawn_later(s) for s in SPLITS)


# The rate of each split if `fixed_rate` is 0.5; None: each clip has its own. Masks of the splits
# in the second list are not stored, but drawn where they are used.
OF_PROTOCOL = {
    "complete_train": ([0, 0, 0], ["test"]),
    "fixed_train": ([0.5, 0.5, 0], ["test"]),
    "random_train": ([0, None, 0], ["train", "test"]),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_hide_in_training_and_leave_the_test_split_to_evaluation(name):
    protocol = parse_protocol(name)
    assert protocol == Protocol(name)
    rates, drawn_later = OF_PROTOCOL[name]
    assert [protocol.rate_of(s, 0.5) for s in SPLITS] == rates
    assert [s for s in SPLITS if protocol.drawn_later(s)] == drawn_later


@pytest.mark.parametrize("entry", ["random_trian", "matched", "", "1.1", -0.1, "nan"])
def test_an_entry_that_is_neither_rate_nor_protocol_is_refused(entry):
    expected = rf"\(expected a number in \[0, 1\], or {', '.join(PROTOCOLS)}\)"
    with pytest.raises(ParamsError, match=f"missing rate is {entry} {expected}"):
        parse_protocol(entry)


def test_a_scale_factor_multiplies_the_rate_up_to_1():
    """0.5 times 0, 0.5 and 3: 0, 0.25 and 1."""
    factors = {"text": 0, "acoustic": 0.5, "visual": 3}
    params = make_mask_params(scale_factors=factors)
    assert params.effective(0.5) == {"text": 0, "acoustic": 0.25, "visual": 1}
    assert np.array_equal(params.effective([0.1, 0.2])["acoustic"], [0.05, 0.1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": "blok"}, "mask.pattern: .*'structured', 'block'.*found: 'blok'"),
        ({"pattern": "modality", "modalities": []}, "mask.modalities: pattern modality hides none"),
        ({"modalities": ["audio"]}, "mask.modalities.0: .*'text', 'acoustic' or 'visual'"),
        ({"scale_factors": {"text": 1, "acoustic": 1}}, "scale_factors.visual: key is absent"),
        ({"scale_factors": {"text": -1, "acoustic": 1, "visual": 1}}, "scale_factors.text: "),
        ({"fixed_rate": 1.5}, "mask.fixed_rate: "),
        ({"cell_seconds": 0}, "mask.cell_seconds: "),
        ({"sed": 1}, r"mask.sed: unknown key \(expected: seed\)"),
    ],
)
def test_wrong_parameters_are_answered_with_one_line(change, message):
    values = make_mask_params().model_dump() | change
    with pytest.raises(ParamsError, match=message) as caught:
        parse_params(MaskParams, values, where="params.yaml: mask")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", get_args(Pattern))
def test_the_shipped_parameters_hold_for_every_pattern(pattern):
    shipped = load_params(MaskParams, section="mask", path=ROOT / "params.yaml")
    parse_params(MaskParams, shipped.model_dump() | {"pattern": pattern}, where="mask")
