import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.corpus.transcripts import asr
from mitfrnet.corpus.transcripts.asr import transcribe
from mitfrnet.errors import CorpusError
from mitfrnet.files import sha256_of
from mitfrnet.media.decode import MediaLimits
from mitfrnet.workers.params import RunParams
from tests.helpers.clips import tone, write_clip
from tests.helpers.tiny_whisper import write_whisper

LIMITS = MediaLimits(max_duration_s=60, max_pixels=10**6, max_bytes=10**8, max_streams=8)
pytestmark = pytest.mark.slow  # every run starts a process that loads the model

RUN = RunParams(workers=1, timeout_seconds=120)


@pytest.fixture(scope="session")
def whisper(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def corpus(tmp_path):
    """Return a folder with three clips of sound and a video without sound."""
    for i, hz in enumerate((300, 800, 2000)):
        write_clip(tmp_path / f"{i}.mkv", (), tone(1.5, hz))
    write_clip(tmp_path / "mute.mkv", [0, 0.1])
    return tmp_path


def clips(folder, *names, **fields):
    return [
        (LabelledClip("label.csv:2", "v", name, path=f"{name}.mkv", **fields),
         sha256_of(folder / f"{name}.mkv"))
        for name in names
    ]  # fmt: skip


def run(folder, todo, model, **changes):
    """Return the transcripts of the clips in `todo`."""
    options = {"language": "en", "limits": LIMITS, "store": folder / "transcripts.parquet"}
    return transcribe(folder, todo, model=str(model), run=RUN, **options | changes)


@pytest.fixture
def transcribed(monkeypatch):
    """Return a list that collects the ids of clips sent to worker processes."""
    ids = []

    def counted(setup, tasks, *args, **options):
        ids.extend(clip.clip_id for clip in tasks)
        return map_in_processes(setup, tasks, *args, **options)

    map_in_processes = asr.spread_map
    monkeypatch.setattr(asr, "spread_map", counted)
    return ids


def test_clips_in_object_storage_are_heard_as_those_in_a_folder(corpus, whisper, s3):
    todo = clips(corpus, "0", "1")
    here = run(corpus, todo, whisper, store=corpus / "here.parquet")
    s3.upload(corpus, "clips", "mine")
    (corpus / "0.mkv").unlink()
    there = run(corpus, todo, whisper, media_url="s3://clips/mine")
    assert there == here
    assert len(there) == 2
    s3.client.put_object(Bucket="clips", Key="mine/1.mkv", Body=b"another")
    with pytest.raises(CorpusError, match=r"mine/1.mkv: changed or removed since"):
        run(corpus, todo, whisper, store=corpus / "anew.parquet", media_url="s3://clips/mine")


def test_words_have_places_and_times_and_are_kept(corpus, whisper, transcribed):
    (corpus / "transcripts.parquet").write_bytes(b"PAR1 damaged")
    transcripts = run(corpus, clips(corpus, "0", "1"), whisper)
    assert list(transcripts) == ["v/0", "v/1"]
    assert transcripts["v/0"].text != transcripts["v/1"].text  # it did listen
    for transcript in transcripts.values():
        assert transcript.words
        end = 0
        for word in transcript.words:
            assert 0 <= word.start_s <= word.end_s <= 1.5
            assert end <= word.char_start < word.char_end
            assert transcript.text[word.char_start : word.char_end].isalpha()
            end = word.char_end
        assert transcript.text.strip() == transcript.text
        assert end == len(transcript.text)

    before = (corpus / "transcripts.parquet").read_bytes()
    transcribed.clear()
    assert run(corpus, clips(corpus, "1", "0"), whisper) == transcripts
    assert transcribed == []
    assert (corpus / "transcripts.parquet").read_bytes() == before


def test_only_what_changed_is_transcribed_again(corpus, whisper, transcribed):
    """One clip has other bytes, one another end, one is new; then the language changes."""
    write_clip(corpus / "3.mkv", (), tone(1.0, 900))
    run(corpus, clips(corpus, "0", "1", "2"), whisper)
    transcribed.clear()
    write_clip(corpus / "1.mkv", (), tone(1.2, 500))
    changed = [*clips(corpus, "0", "1", "3"), *clips(corpus, "2", end_s=1.0)]
    run(corpus, changed, whisper)
    assert transcribed == ["1", "3", "2"]
    transcribed.clear()
    run(corpus, changed, whisper, language="de")
    assert transcribed == ["0", "1", "3", "2"]


def test_a_killed_run_keeps_what_it_had_and_leaves_no_trace(
    corpus, whisper, monkeypatch, transcribed
):
    """The store is the same as after a single run, even with a clip that has been removed."""
    run(corpus, clips(corpus, "0", "1"), whisper, store=corpus / "at_once.parquet")

    def broken_off(results, **_):
        yield next(iter(results))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(asr, "_SAVE_EVERY_S", 0)
        patch.setattr(asr, "track", broken_off)
        with pytest.raises(KeyboardInterrupt):
            run(corpus, clips(corpus, "0", "2"), whisper)
    transcribed.clear()
    run(corpus, clips(corpus, "0", "1"), whisper)
    assert transcribed == ["1"]
    at_once, by_and_by = (corpus / f"{n}.parquet" for n in ("at_once", "transcripts"))
    assert at_once.read_bytes() == by_and_by.read_bytes()
    assert pq.read_table(at_once)["utterance_id"].to_pylist() == ["v/0", "v/1"]


def test_without_a_model_or_clips_the_store_is_empty(corpus):
    for todo, model in ((clips(corpus, "0"), None), ([], "not/looked-for")):
        store = corpus / "empty.parquet"
        options = {"language": "en", "limits": LIMITS, "run": RUN}
        assert transcribe(corpus, todo, model=model, store=store, **options) == {}
        table = pq.read_table(store)
        assert (table.num_rows, table.schema) == (0, asr.SCHEMA)


def test_what_was_heard_outlives_a_run_without_the_model(corpus, whisper, transcribed):
    todo = clips(corpus, "0")
    store = corpus / "kept.parquet"
    options = {"language": "en", "limits": LIMITS, "store": store, "run": RUN}
    heard = transcribe(corpus, todo, model=str(whisper), **options)
    before = store.read_bytes()
    assert transcribe(corpus, todo, model=None, **options) == {}
    assert store.read_bytes() == before
    assert transcribe(corpus, todo, model=str(whisper), **options) == heard
    assert len(transcribed) == 1


def test_a_clip_without_sound_is_left_out_and_silence_is_empty(corpus, whisper):
    write_clip(corpus / "silent.mkv", (), np.zeros(16_000))
    (corpus / "broken.mkv").write_bytes(b"no media")
    transcripts = run(corpus, clips(corpus, "mute", "silent", "broken"), whisper)
    assert transcripts == {"v/silent": asr.Transcript("", ())}


@pytest.mark.parametrize("seconds", [0.005, 32.0])
def test_sound_of_any_length_is_transcribed(corpus, whisper, seconds):
    """Less than a frame of the model, and more than its 30 seconds."""
    write_clip(corpus / "odd.mkv", (), tone(seconds, 700))
    words = run(corpus, clips(corpus, "odd"), whisper)["v/odd"].words
    assert all(0 <= w.start_s <= w.end_s <= seconds + 0.01 for w in words)
    assert seconds < 30 or max(w.end_s for w in words) > 30


def changed_copy(folder, to, file, **changes):
    """Return a copy of a model with changed values in one of its files; None removes a key."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    values = json.loads((to / file).read_text()) | changes
    kept = {key: value for key, value in values.items() if value is not None}
    (to / file).write_text(json.dumps(kept))
    return to


def test_a_model_without_alignment_heads_gives_times_of_phrases(corpus, whisper, tmp_path):
    model = changed_copy(whisper, tmp_path / "m", "generation_config.json", alignment_heads=None)
    assert run(corpus, clips(corpus, "0"), model)["v/0"].words


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "bert"}, r"type bert \(expected a Whisper type\)"),
        ("generation_config.json", {"no_timestamps_token_id": None}, "gives no times"),
        ("generation_config.json", {"is_multilingual": False}, "'de' .expected one of en"),
    ],
)
def test_a_model_that_cannot_do_it_is_refused(corpus, whisper, tmp_path, file, changes, message):
    model = changed_copy(whisper, tmp_path / "m", file, **changes)
    with pytest.raises(CorpusError, match=message):
        run(corpus, clips(corpus, "0"), model, language="de")


def test_a_language_that_the_model_does_not_know_is_refused(corpus, whisper):
    with pytest.raises(CorpusError, match=r"language 'fr' \(expected one of de, en\)"):
        run(corpus, clips(corpus, "0"), whisper, language="fr")


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "all"])
def test_a_model_that_is_not_there_is_one_clear_line(corpus, whisper, tmp_path, lacking):
    """Pickled weights do not count."""
    model = changed_copy(whisper, tmp_path / "m", "config.json")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    for path in list(model.iterdir()):
        if lacking in (path.name, "all"):
            path.unlink()
    with pytest.raises(CorpusError, match=r"asr model .*no complete Whisper model"):
        run(corpus, clips(corpus, "0"), model)
