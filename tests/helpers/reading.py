"""How tests of layouts read a corpus: through the same door as the ingest stage."""

import pytest

from mitfrnet.corpus.clips import Problems
from mitfrnet.corpus.ingest import IngestParams, read_corpus
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.errors import CorpusError
from mitfrnet.params import parse_params

INGEST = IngestParams.model_validate(
    {
        "max_bad_fraction": 0.1,
        "split": {"train": 0.6, "valid": 0.2, "test": 0.2, "seed": 1},
        "limits": {
            "max_duration_s": 60, "max_pixels": 10**6, "max_bytes": 10**7, "max_streams": 8
        },
    }
)  # fmt: skip

# A block for each layout, without its language.
BLOCKS = {
    "mmsa": {"layout": "mmsa", "scale": "mosi"},
    "table": {
        "layout": "table",
        "scale": "mosi",
        "table": {"file": "a.csv", "columns": {"label": "y", "path": "file"}},
    },
    "cmu": {"layout": "cmu", "scale": "mosi"},
    "meld": {
        "layout": "meld",
        "label": "sentiment",
        "classes": ["negative", "neutral", "positive"],
    },
    "media_only": {"layout": "media_only"},
    "features": {"layout": "features", "scale": "mosi"},
}


def parse(block):
    return parse_params(CorpusParams, {"language": "en"} | block, where="corpora.x")


MOSI = parse(BLOCKS["mmsa"])


def read(folder, block):
    """Return the clips of a corpus, its errors and its warnings; without the folder's path.

    Empty splits are no error here: few of these corpora have clips in all three.
    """
    problems = Problems()
    clips = read_corpus(folder, parse(block), INGEST, problems)
    lines = (problems.errors, problems.warnings)
    errors, warnings = ([line.replace(f"{folder}/", "") for line in group] for group in lines)
    return clips, [e for e in errors if not e.startswith(f"{folder}: split")], warnings


def refusal(folder, block):
    """Return the line with which a corpus is refused, without the folder's path."""
    with pytest.raises(CorpusError) as error:
        read_corpus(folder, parse(block), INGEST)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folder}/", "")
