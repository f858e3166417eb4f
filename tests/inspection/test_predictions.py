import numpy as np
import pyarrow.parquet as pq
import pytest

from mitfrnet.inspection.inspect import inspect
from mitfrnet.inspection.predictions import modalities_in
from tests.helpers.inspected_project import UTTERANCE

pytestmark = pytest.mark.slow


def test_predictions_are_those_of_the_evaluate_stage(view, project):
    rows = pq.read_table(project / "predictions/mine/mitfrnet/0.3/1.parquet").to_pylist()
    expected = next(r["prediction"] for r in rows if r["utterance_id"] == UTTERANCE)
    stored = [mask.name for mask in view.masks.masks].index("rate 0.3, as stored")
    assert view.models[0].values[stored][7] == pytest.approx(expected, abs=1e-5)


def test_a_modality_that_is_taken_away_was_never_there(project):
    """`quiet/01` has no transcript, so taking its words away changes nothing."""
    values = np.array(inspect("mine/quiet/01", root=project).models[0].values)
    assert modalities_in(0b110) == ["acoustic", "visual"]
    np.testing.assert_allclose(values[:, 0b111], values[:, 0b110], atol=1e-6)
    assert np.ptp(values[0]) > 1e-4
    assert np.ptp(values[:, 0]) < 1e-6  # with nothing given, no mask hides anything
