import shutil

import numpy as np
import pytest

from mitfrnet.corpus.manifest import (
    make_manifest,
    manifest_settings,
    read_manifest,
    write_manifest,
)
from mitfrnet.errors import CorpusError, FeatureError
from mitfrnet.inspection.inspect import inspect
from mitfrnet.inspection.page import render_page
from mitfrnet.inspection.utterance import gather_utterance, only
from tests.helpers.inspected_project import UTTERANCE, VIDEO
from tests.helpers.splits import make_split


def gathered(utterance_id, root):
    with gather_utterance("mine", utterance_id, root) as subject:
        return subject


@pytest.mark.slow
def test_an_unknown_utterance_names_close_ones(project):
    with pytest.raises(CorpusError, match=r"mine: no utterance 'quiet/1'.*quiet/01"):
        gathered("quiet/1", project)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("manifest.parquet", "run the ingest stage"),
        ("features/visual", r"no features of quiet/01 \(run the extract stage\)"),
        ("tensors/test.safetensors", "run the tensors stage"),
    ],
)
def test_a_stage_that_has_not_run_is_named(project, tmp_path, absent, message):
    shutil.copytree(project / "data", tmp_path / "data")
    path = tmp_path / "data/mine" / absent
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FeatureError, match=message):
        gathered("quiet/01", tmp_path)


@pytest.mark.slow
def test_a_clip_in_object_storage_is_shown_as_one_in_a_folder(view, project, tmp_path, s3):
    (tmp_path / "models").symlink_to(project / "models")
    shutil.copy(project / "params.yaml", tmp_path)
    shutil.copytree(project / "data", tmp_path / "data")
    manifest = read_manifest(tmp_path / "data/mine/manifest.parquet")
    settings = manifest_settings(manifest) | {"media": "s3://clips/mine"}
    there = make_manifest(manifest.to_pylist(), settings)
    write_manifest(there, tmp_path / "data/mine/manifest.parquet")
    s3.upload(project / "raw/mine/Raw", "clips", "mine/Raw")
    shown = inspect(f"mine/{UTTERANCE}", root=tmp_path)
    assert not shown.subject.clip.path.exists()
    assert render_page(shown) == render_page(view)
    assert shown.subject.file == "01.mp4"
    s3.client.put_object(Bucket="clips", Key=f"mine/Raw/{VIDEO}/01.mp4", Body=b"x")
    with pytest.raises(CorpusError, match="changed or removed since the corpus was ingested"):
        inspect(f"mine/{UTTERANCE}", root=tmp_path)


def test_only_takes_one_utterance():
    split = make_split(n=4, without=(1,))
    for i in range(4):
        one = only(split, i)
        assert one.ids == [split.ids[i]]
        for modality, ragged in split.modalities.items():
            np.testing.assert_array_equal(
                one.modalities[modality].values, ragged.rows(ragged.values)[i]
            )
        assert one.token_ids.tolist() == split.modalities["text"].rows(split.token_ids)[i].tolist()
