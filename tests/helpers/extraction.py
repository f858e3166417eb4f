"""Extraction of small corpora, for tests of the stage and of where it runs."""

import os
from functools import partial

from mitfrnet.corpus.ingest import build_manifest, probe_clips, read_corpus
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.features.acoustic import RECIPES
from mitfrnet.features.extract import _worker, extract_corpus
from mitfrnet.workers.params import RunParams
from tests.helpers.reading import INGEST

CORPUS = CorpusParams(layout="mmsa", language="en", scale="mosi")
MODES = ("train",) * 8 + ("valid", "test")
PARAMS = RECIPES["paper"]


def manifest_of(folder, corpus=CORPUS):
    clips = read_corpus(folder, corpus, INGEST)
    run = RunParams(workers=1, timeout_seconds=60)
    probed = probe_clips(folder, clips, INGEST.limits, run, media_url=corpus.media)
    return build_manifest(probed, corpus, INGEST)


def extract(manifest, raw, out, modality="acoustic", params=PARAMS, **run):
    """Extract a modality, by one local worker unless `run` says otherwise."""
    run = RunParams(**{"workers": 1, "timeout_seconds": 120, **run})
    return extract_corpus(modality, manifest, raw, out, params, run)


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def crash_on(names):
    """Return a stand-in for `_worker` whose decoder aborts on some clips."""
    return partial(_crash_on, names)


def _crash_on(names, *setup):
    function = _worker(*setup)

    def work(clips):
        if clips[0].utterance_id in names:
            os.abort()
        return function(clips)

    return work
