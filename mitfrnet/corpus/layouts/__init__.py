"""Layouts: how published corpus folders are read, one file each, registered by name."""

from collections.abc import Callable
from pathlib import Path

from mitfrnet.corpus.clips import LabelledClip, Problems
from mitfrnet.corpus.layouts.cmu import read_cmu
from mitfrnet.corpus.layouts.features import read_features_layout
from mitfrnet.corpus.layouts.media_only import read_media_only
from mitfrnet.corpus.layouts.meld import read_meld
from mitfrnet.corpus.layouts.mmsa import read_mmsa
from mitfrnet.corpus.layouts.table import read_table_layout
from mitfrnet.corpus.params import CorpusParams

LAYOUTS: dict[str, Callable[[Path, CorpusParams, Problems], list[LabelledClip]]] = {
    "mmsa": read_mmsa,
    "table": read_table_layout,
    "cmu": read_cmu,
    "meld": read_meld,
    "media_only": read_media_only,
    "features": read_features_layout,
}
