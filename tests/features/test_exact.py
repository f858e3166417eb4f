"""The bytes of all modalities do not depend on workers, order, time or place."""

import os
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from mitfrnet.corpus.manifest import read_manifest
from mitfrnet.features.extract import extract_corpus, extractor_params
from mitfrnet.modalities import MODALITIES
from mitfrnet.workers import cluster
from mitfrnet.workers.local import supervised_map
from mitfrnet.workers.params import RunParams
from tests.helpers.extraction import contents
from tests.helpers.faces import BACKEND
from tests.helpers.paths import ROOT
from tests.helpers.running import (
    REAL_CLIPS,
    command_of,
    ingest_real_clips,
    needs_real_clips,
    write_params,
)

pytestmark = [pytest.mark.slow, needs_real_clips]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The real clips, ingested."""
    folder = tmp_path_factory.mktemp("exact")
    ingest_real_clips(folder)
    return folder


@pytest.fixture(scope="module", params=MODALITIES)
def extracted(request, corpus):
    """A modality, and the folder into which two workers extracted it."""
    out = corpus / "two" / request.param
    extract(corpus, request.param, out, workers=2)
    return request.param, out


def extract(corpus, modality, out, workers):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["extract"][modality]
    if modality == "visual":
        params["backend"] = BACKEND
    manifest = read_manifest(corpus / "data" / "sample" / "manifest.parquet")
    done = extract_corpus(
        modality,
        manifest,
        corpus / "raw" / "sample",
        out,
        extractor_params(modality, params, where=""),
        RunParams(workers=workers, timeout_seconds=280),
    )
    assert done > 6


@pytest.mark.parametrize(("workers", "seed"), [(1, 1), (8, 2)])
def test_neither_workers_nor_order_change_a_byte(
    corpus, extracted, tmp_path, monkeypatch, workers, seed
):
    modality, out = extracted
    orders = []

    def shuffled(setup, tasks, **options):
        again = random.Random(seed).sample(tasks, len(tasks))
        orders.append((tasks, again))
        return supervised_map(setup, again, **options)

    monkeypatch.setattr(cluster, "supervised_map", shuffled)
    extract(corpus, modality, tmp_path / "out", workers)
    ((before, after),) = orders
    assert before != after
    assert contents(tmp_path / "out") == contents(out)


def test_neither_time_nor_machine_nor_place_is_in_a_shard(corpus, extracted, tmp_path):
    """Extraction later, elsewhere and by another user gives the same bytes.

    The host has another name too, if the system allows that. Compressed parts of a shard are
    searched as well.
    """
    modality, out = extracted
    folder = tmp_path / "somewhere" / "else"
    (folder / "data" / "sample").mkdir(parents=True)
    (folder / "raw").mkdir()
    shutil.copytree(REAL_CLIPS, folder / "raw" / "sample")
    shutil.copy(corpus / "data/sample/manifest.parquet", folder / "data/sample")
    write_params(folder, extract__visual__backend=BACKEND)
    words = [sys.executable, "-m", *command_of("extract", corpus="sample", modality=modality)]
    other = ["unshare", "--user", "--map-root-user", "--uts", "sh", "-c"]
    other += ['hostname elsewhere && exec "$@"', "sh"]
    if shutil.which("unshare") and not subprocess.run([*other, "true"], check=False).returncode:
        words = [*other, *words]
    user = {"USER": "somebody", "LOGNAME": "somebody", "HOME": str(tmp_path), "TZ": "Asia/Tokyo"}
    user |= {"TMPDIR": str(tmp_path)}  # or PyTorch makes a folder of that name in /tmp
    env = {**os.environ, "PYTHONPATH": str(ROOT), **user}
    subprocess.run(words, cwd=folder, env=env, check=True)
    assert contents(folder / "data/sample/features" / modality) == contents(out)

    for path in out.iterdir():
        file = pq.ParquetFile(path)
        packed = [str(file.metadata.metadata), file.metadata.created_by]
        for column in ("utterance_id", "status", "reason", "input_digest", "extractor_digest"):
            packed += [str(value) for value in file.read([column])[column].to_pylist()]
        for name in (ROOT, corpus, REAL_CLIPS, Path.home(), socket.gethostname()):
            word = rf"(?<!\w){re.escape(str(name))}(?!\w)"
            assert not [text for text in packed if re.search(word, text)], name
