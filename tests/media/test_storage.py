"""Clips in object storage, on a real S3 server."""

import functools
import json
import os
import signal
import sys
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mitfrnet.corpus.ingest import _prober, build_manifest, probe_clips, read_corpus
from mitfrnet.corpus.manifest import manifest_settings
from mitfrnet.errors import CorpusError, MediaError, StorageError
from mitfrnet.media.storage import ClipStore, RemoteFolder
from mitfrnet.validate.report import check_corpus
from mitfrnet.workers.local import supervised_map
from mitfrnet.workers.params import RunParams
from tests.helpers.clips import write_corpus, write_small_corpus
from tests.helpers.reading import INGEST, MOSI, parse

MEDIA = "s3://clips/mine"
REMOTE = MOSI.model_copy(update={"media": MEDIA})
TABLE = {
    "layout": "table", "scale": "mosi", "media": MEDIA,
    "table": {"file": "t.csv", "columns": {"path": "path", "label": "label", "split": "split"}},
}  # fmt: skip


@pytest.fixture
def raw(s3, tmp_path):
    """Return the folder of a corpus whose four clips lie only in the bucket."""
    folder = write_small_corpus(tmp_path / "raw" / "mine")
    s3.upload(folder / "Raw", "clips", "mine/Raw")
    (folder / "Raw").rename(tmp_path / "Raw")
    return folder


def probed(raw, corpus=REMOTE, workers=1):
    clips = read_corpus(raw, corpus, INGEST)
    run = RunParams(workers=workers, timeout_seconds=60)
    return list(probe_clips(raw, clips, INGEST.limits, run, media_url=corpus.media))


def probed_here(raw, clips, limits=INGEST.limits, timeout_s=60):
    """Return what a worker process would return, without starting one."""
    probe = _prober(ClipStore(raw, MEDIA, limits.max_bytes, timeout_s), limits)
    return [(clip, *probe([clip])) for clip in clips if clip.path is not None]


def reasons(results):
    return {clip.utterance_id: file.probe.video_reason for clip, file in results}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_manifest_is_that_of_the_same_clips_in_a_folder(raw, s3, tmp_path, workers):
    remote = build_manifest(probed(raw, workers=workers), REMOTE, INGEST)
    (tmp_path / "Raw").rename(raw / "Raw")
    local = build_manifest(probed(raw, MOSI), MOSI, INGEST)
    assert remote.equals(local)
    assert None not in remote["digest"].to_pylist()
    assert manifest_settings(remote) == manifest_settings(local) | {"media": MEDIA}
    asked = Counter(line for line in s3.asked if line.startswith("GET /clips/mine/"))
    assert set(asked.values()) == {1}
    assert len(asked) == 4


def test_each_folder_is_listed_once(raw, s3):
    s3.asked.clear()
    read_corpus(raw, REMOTE, INGEST)
    assert Counter(s3.asked) == {"HEAD /clips/mine": 1, "GET /clips": 5}  # the first is a look


def test_a_clip_too_large_is_not_fetched(raw, s3):
    limits = INGEST.limits.model_copy(update={"max_bytes": 1000})
    results = probed_here(raw, read_corpus(raw, REMOTE, INGEST), limits)
    assert list(reasons(results).values()) == ["too_large"] * 4
    assert {file.digest for _, file in results} == {None}
    assert s3.served == 0


def test_an_absent_clip_has_no_file(raw, s3, tmp_path):
    s3.client.delete_object(Bucket="clips", Key="mine/Raw/v1/01.mkv")
    clips = read_corpus(raw, REMOTE, INGEST)
    assert [c.utterance_id for c in clips if c.path is None] == ["v1/01"]
    s3.client.delete_object(Bucket="clips", Key="mine/Raw/v2/01.mkv")  # after it was listed
    results = probed_here(raw, clips)
    assert reasons(results) == {"v0/01": None, "v2/01": "no_file", "v3/01": None}


def test_a_folder_that_goes_is_no_fault_of_its_clips(raw, s3):
    clips = read_corpus(raw, REMOTE, INGEST)
    for i in range(4):
        s3.client.delete_object(Bucket="clips", Key=f"mine/Raw/v{i}/01.mkv")
    s3.client.delete_bucket(Bucket="clips")
    with pytest.raises(StorageError, match=r"^s3://clips/mine: no such folder, or nothing in it"):
        probed_here(raw, clips)


@pytest.mark.parametrize("media", ["s3://none/mine", "s3://clips/other"])
def test_a_folder_that_is_not_there_is_named(raw, media):
    with pytest.raises(StorageError, match=rf"^{media}: no such folder, or nothing in it"):
        read_corpus(raw, MOSI.model_copy(update={"media": media}), INGEST)


@pytest.mark.slow
def test_a_server_that_is_down_is_no_fault_of_the_clips(raw, s3):
    clips = read_corpus(raw, REMOTE, INGEST)
    s3.stop()
    run = RunParams(workers=2, timeout_seconds=60)
    with pytest.raises(StorageError, match=r"^s3://clips/mine/Raw/v\d/01.mkv: cannot be read: Co"):
        list(probe_clips(raw, clips, INGEST.limits, run, media_url=MEDIA))
    with pytest.raises(StorageError, match=r"^s3://clips/mine: cannot be read: Could not connect"):
        read_corpus(raw, REMOTE, INGEST)


def test_a_server_that_falters_is_asked_again_but_not_for_ever(raw, s3, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    clips = read_corpus(raw, REMOTE, INGEST)
    s3.forget_connections()
    s3.broken = 1
    assert list(reasons(probed_here(raw, clips)).values()) == [None] * 4
    s3.broken = 10**6
    with pytest.raises(StorageError, match=r"01.mkv: cannot be read: .*Service Unavailable"):
        probed_here(raw, clips)
    assert 10**6 - s3.broken < 30


def test_a_silent_server_is_no_clip_that_hangs(raw, s3):
    """A worker killed for waiting would leave `timed_out` as the clip's reason."""
    clips = read_corpus(raw, REMOTE, INGEST)
    s3.silent_s = 30
    with pytest.raises(StorageError, match=r"not fetched within 1 s, half of run\.timeout"):
        probed_here(raw, clips, timeout_s=2)


def test_refused_credentials_stop_and_are_not_printed(raw, s3):
    clips = read_corpus(raw, REMOTE, INGEST)
    s3.check_credentials(True)
    try:
        asks = (lambda: read_corpus(raw, REMOTE, INGEST), lambda: probed_here(raw, clips))
        for ask in asks:
            with pytest.raises(StorageError, match=r"^s3://clips/mine\S*: access refused") as e:
                ask()
            assert not any(value in str(e.value) for value in s3.key.values())
            assert "\n" not in str(e.value)
    finally:
        s3.check_credentials(False)


def test_without_credentials_it_says_what_is_expected(raw, s3, monkeypatch):
    for name in s3.key:
        monkeypatch.delenv(name)
    with pytest.raises(StorageError, match=r"Unable to locate credentials \(expected .*credential"):
        read_corpus(raw, REMOTE, INGEST)


def read_table(folder, *paths, **block):
    """Return the clips of a table with these paths, and what is wrong with it."""
    splits = ("train", "valid", "test")
    rows = [(path, 0.5, splits[i % 3]) for i, path in enumerate(paths)]
    write_corpus(folder, rows, ("path", "label", "split"))
    (folder / "label.csv").rename(folder / "t.csv")
    return read_corpus(folder, parse(TABLE | block), INGEST)


def test_a_url_in_a_table_is_taken_if_it_lies_in_media(raw, s3):
    paths = ["Raw/v0/01.mkv", f"{MEDIA}/Raw/v1/01.mkv", "./Raw//v2/01.mkv"]
    clips = read_table(raw, *paths)
    assert {c.path for c in clips} == {"Raw/v0/01.mkv", "Raw/v1/01.mkv", "./Raw//v2/01.mkv"}
    assert list(reasons(probed_here(raw, clips)).values()) == [None] * 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://other/x.mkv", r"t.csv:2: s3://other/x.mkv is not in s3://clips/mine/ \(expected"),
        ("s3://clips/mine2/x.mkv", "is not in s3://clips/mine/"),
        ("http://127.0.0.1:9/x.mkv", "is not in s3://clips/mine/"),
        ("file:///etc/passwd", "is not in s3://clips/mine/"),
        (f"{MEDIA}/../other/x.mkv", "leads out of the corpus folder"),
        (f"{MEDIA}//etc/passwd", "leads out of the corpus folder"),
        ("../other/x.mkv", "leads out of the corpus folder"),
    ],
)
def test_a_table_opens_nothing_outside_media(raw, s3, path, message):
    s3.asked.clear()
    with pytest.raises(CorpusError, match=message):
        read_table(raw, path, "Raw/v1/01.mkv", "Raw/v2/01.mkv")
    assert not [line for line in s3.asked if "other" in line or "passwd" in line]


def test_a_path_is_a_name_and_nothing_else(raw, s3):
    """Elsewhere fsspec reads these as URLs inside URLs, versions and patterns."""
    paths = ["x::file:///etc/passwd", "Raw/v0/01.mkv?versionId=1", "Raw/*/01.mkv"]
    assert [c.path for c in read_table(raw, *paths)] == [None] * 3


def test_a_url_without_media_is_not_opened(tmp_path, s3):
    message = r"t.csv:2: s3://clips/mine/1.mkv is a URL \(expected .* `media` of the corpus"
    with pytest.raises(CorpusError, match=message):
        read_table(tmp_path, f"{MEDIA}/1.mkv", "2.mkv", "3.mkv", media=None)
    assert s3.asked == []


def test_a_folder_of_clips_needs_no_table(raw, s3):
    s3.client.put_object(Bucket="clips", Key="mine/.hidden/1.mkv", Body=b"x")
    s3.client.put_object(Bucket="clips", Key="mine/notes.txt", Body=b"x")
    corpus = parse({"layout": "media_only", "media": MEDIA})
    clips = read_corpus(raw, corpus, INGEST)
    assert [c.utterance_id for c in clips] == [f"Raw-v{i}/01" for i in range(4)]
    assert clips[0].where == f"{MEDIA}/Raw/v0/01.mkv"


@pytest.mark.slow
def test_validate_finds_the_same(raw, s3, tmp_path):
    run = RunParams(workers=1, timeout_seconds=60)
    s3.client.put_object(Bucket="clips", Key="mine/Raw/v1/01.mkv", Body=b"no film")
    remote = check_corpus(raw, REMOTE, INGEST, run)
    (tmp_path / "Raw").rename(raw / "Raw")
    (raw / "Raw/v1/01.mkv").write_text("no film")
    assert remote == check_corpus(raw, MOSI, INGEST, run)
    assert remote.bytes > 3000


def test_a_fetched_clip_is_removed_and_keeps_its_ending(raw):
    store = ClipStore(raw, MEDIA, 10**9, 60)
    with store.at_hand(raw / "Raw/v0/01.mkv") as path:
        assert path.suffix == ".mkv"
        assert path.stat().st_size > 1000
    assert not path.parent.exists()
    assert not (raw / "Raw").exists()


def test_a_clip_must_be_that_of_its_digest(raw, s3):
    store = ClipStore(raw, MEDIA, 10**9, 60)
    message = (
        r"^s3://clips/mine/Raw/v0/01.mkv: changed or removed since the corpus was ingested "
        r"\(expected .*: dvc repro -f ingest@mine\)$"
    )
    with pytest.raises(CorpusError, match=message), store.at_hand(raw / "Raw/v0/01.mkv", "0" * 64):
        pass
    s3.client.delete_object(Bucket="clips", Key="mine/Raw/v0/01.mkv")
    with pytest.raises(CorpusError, match=message), store.at_hand(raw / "Raw/v0/01.mkv", "0" * 64):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_fault_of_the_clip(raw):
    with pytest.raises(StorageError, match=r"^/dev: cannot be written: No space left .*TMPDIR"):
        RemoteFolder(MEDIA).fetch("Raw/v0/01.mkv", Path("/dev/full"), max_bytes=10**9)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(StorageError, match=r"s3fs.*\(expected: pip install 'mitfrnet\[s3\]'\)$"):
        RemoteFolder(MEDIA)
    with pytest.raises(StorageError, match=r"^nope://x/y: Protocol not known: nope$"):
        RemoteFolder("nope://x/y")


def test_a_password_is_refused_and_not_printed():
    with pytest.raises(StorageError, match="contains a password") as error:
        RemoteFolder("sftp://me:geheim@host/clips")
    assert "geheim" not in str(error.value)


@pytest.fixture
def web(tmp_path, monkeypatch):
    """Return the URL of a folder on a web server that does not send sizes."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(SimpleHTTPRequestHandler):
        def send_header(self, name, value):
            if name != "Content-Length":
                super().send_header(name, value)

        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_other_protocols_work_and_an_unknown_size_is_counted(web, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mkv").write_bytes(os.urandom(2**20))
    (tmp_path / "a" / "2.mkv").write_bytes(os.urandom(2**25))
    folder = RemoteFolder(f"{web}/a")
    folder.check()
    assert set(folder.sizes("")) == {"1.mkv", "2.mkv"}
    folder.fetch("1.mkv", tmp_path / "out", max_bytes=2**22)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "a" / "1.mkv").read_bytes()
    with pytest.raises(MediaError, match="too_large"):
        folder.fetch("2.mkv", tmp_path / "out", max_bytes=2**22)
    assert (tmp_path / "out").stat().st_size <= 2**24
    with pytest.raises(MediaError, match="no_file"):
        folder.fetch("3.mkv", tmp_path / "out", max_bytes=2**22)


def fetching_and_dying(store):
    return functools.partial(_fetch_and_die, store)


def _fetch_and_die(store, path):
    with store.at_hand(path) as file:
        Path(os.environ["SEEN"]).write_text(json.dumps([str(file), file.exists()]))
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_leaves_no_clip_behind(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    store = ClipStore(raw, MEDIA, 10**9, 60)
    setup = functools.partial(fetching_and_dying, store)
    ((_, failure),) = supervised_map(setup, [raw / "Raw/v0/01.mkv"], workers=1, timeout_s=60)
    assert failure.reason == "worker_crashed"
    path, existed = json.loads((tmp_path / "seen").read_text())
    assert existed
    assert not Path(path).parent.parent.exists()
