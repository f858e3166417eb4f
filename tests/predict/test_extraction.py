from mitfrnet.corpus.ingest import IngestParams
from mitfrnet.params import load_params
from mitfrnet.predict.extraction import LIMITS


def test_limits_are_those_that_are_shipped():
    assert load_params(IngestParams, section="ingest").limits == LIMITS
