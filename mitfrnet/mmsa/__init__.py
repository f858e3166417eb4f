"""Feature files of MMSA and MMSA-FET: read, import, export."""

from mitfrnet.mmsa.importing import ImportSummary, import_corpus
from mitfrnet.mmsa.reading import MmsaFile, MmsaUtterance, read
from mitfrnet.mmsa.writing import write

__all__ = ["ImportSummary", "MmsaFile", "MmsaUtterance", "import_corpus", "read", "write"]
