"""Hostile media, probed and extracted by the functions of the stages."""

import contextlib
import ctypes
import os
import socket
import time
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.fuzz_media import PARAMS, REAL, fuzz, read_measured, source_clips, unaccounted
from benchmarks.fuzz_media import write_corpus as write_damaged
from mitfrnet.corpus.ingest import IngestParams
from mitfrnet.errors import MediaError
from mitfrnet.media.decode import iter_frames, limit_memory, probe, read_waveform
from mitfrnet.modalities import SPLITS
from mitfrnet.params import load_params
from mitfrnet.workers.local import WorkerFailure, supervised_map
from tests.helpers.clips import RATE, tone, write_clip, write_corpus
from tests.helpers.hostile_clips import (
    DARK,
    NO_MEDIA,
    SAMPLE,
    SILENT,
    TOO_BIG,
    huge_headers,
    long_headers,
    odd_streams,
    redirections,
)
from tests.helpers.running import run_stage, write_params

SAMPLE_S = 1.95
KINDS = ("manifest", "acoustic", "visual")
LIMITS = load_params(IngestParams, section="ingest", path=PARAMS).limits
MEMORY_MB = 1024  # what a worker may have here
IN_OPEN = 0x20


class Trap:
    """Notices when a file is opened, or a connection to `url` is attempted."""

    def __init__(self, file):
        self.file = file
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/x.mp4"
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._libc.inotify_add_watch(self._watch, str(file).encode(), IN_OPEN) > 0

    def sprung(self):
        """Return what was touched since the last call: `file`, `url` or both."""
        touched = []
        try:
            os.read(self._watch, 10_000)
            touched.append("file")
        except BlockingIOError:
            pass
        try:
            self.socket.accept()[0].close()
            touched.append("url")
        except BlockingIOError:
            pass
        return touched

    def close(self):
        self.socket.close()
        os.close(self._watch)


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    """A clip that can be read, outside of every corpus."""
    path = tmp_path_factory.mktemp("elsewhere") / "canary.mp4"
    path.write_bytes(SAMPLE.read_bytes())
    return path


@pytest.fixture
def trap(canary):
    trap = Trap(canary)
    yield trap
    trap.close()


# With these options FFmpeg follows redirections, so the trap is known to work.
UNGUARDED = {
    "hls_file.mp4": ("hls", {"allowed_extensions": "ALL", "extension_picky": "0"}, "file"),
    "hls_url.mp4": ("hls", {"allowed_extensions": "ALL", "extension_picky": "0"}, "url"),
    "concat.mp4": (None, {"safe": "0"}, "file"),
    "alias.mov": (None, {"enable_drefs": "1", "use_absolute_path": "1"}, "file"),
}


@pytest.mark.parametrize("name", UNGUARDED)
def test_the_trap_is_sprung_by_a_reader_without_care(tmp_path, trap, canary, name):
    (tmp_path / name).write_bytes(redirections(canary, trap.url)[name])
    demuxer, options, touched = UNGUARDED[name]
    options = {"protocol_whitelist": "file,http,tcp,crypto", **options}
    with contextlib.suppress(av.FFmpegError):
        av.open(str(tmp_path / name), format=demuxer, options=options, timeout=1).close()
    assert touched in trap.sprung()


def test_no_redirection_is_followed(tmp_path, trap, canary):
    for name, content in redirections(canary, trap.url).items():
        path = tmp_path / name
        path.write_bytes(content)
        probed = probe(path, LIMITS)
        assert probed.video_reason is not None, name
        assert probed.audio_reason is not None, name
        with pytest.raises(MediaError):
            read_waveform(path, sample_rate_hz=RATE, limits=LIMITS)
        with pytest.raises(MediaError):
            list(iter_frames(path, fps=10, limits=LIMITS))
        assert trap.sprung() == [], name


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, canary):
    """Every hostile clip in one corpus, probed and extracted by the functions of the stages."""
    trap = Trap(canary)
    clips = {**huge_headers(), **long_headers(), **odd_streams()}
    for name, content in redirections(canary, trap.url).items():
        # FFmpeg opens some of these as a video without data, or as a broken one.
        clips[name] = (content, {*NO_MEDIA, *DARK, *TOO_BIG}, {*NO_MEDIA, *SILENT})
    folder = tmp_path_factory.mktemp("hostile")
    home = folder / "raw" / "Raw" / "v"
    home.mkdir(parents=True)
    for name, (content, *_) in clips.items():
        (home / name).write_bytes(content)
    os.mkfifo(home / "pipe.mp4")
    (home / "loop.mp4").symlink_to("loop.mp4")
    (home / "fold.mp4").symlink_to(".")
    for name in ("pipe.mp4", "loop.mp4", "fold.mp4"):
        clips[name] = (b"", {"no_file"}, {"no_file"})
    ids = {Path(name).stem + name.rpartition(".")[2]: name for name in clips}
    for unique, name in ids.items():
        (home / name).rename(home / f"{unique}{Path(name).suffix}")
    modes = ("train", "valid", "test")
    write_corpus(folder / "raw", [("v", u, "words", 0, modes[i % 3]) for i, u in enumerate(ids)])
    params = load_params(IngestParams, section="ingest", path=PARAMS).model_copy(
        update={
            "max_bad_fraction": 1.0,
            "limits": LIMITS.model_copy(update={"max_memory_mb": MEMORY_MB}),
        }
    )
    start = time.perf_counter()
    rows, log = read_measured(folder, params, timeout_s=120, fps=2)
    seconds = time.perf_counter() - start
    by_name = {
        kind: {ids[row["utterance_id"][2:]]: row for row in of_kind}
        for kind, of_kind in rows.items()
    }
    for line in log:
        line["name"] = ids[line["clip"][2:]]
    yield {"clips": clips, "rows": by_name, "log": log, "trap": trap.sprung(), "s": seconds}
    trap.close()


@pytest.mark.slow
def test_every_hostile_clip_is_accounted_for(outcome):
    wrong = []
    for name, (_, seen, heard) in outcome["clips"].items():
        for modality, expected in (("visual", seen), ("acoustic", heard)):
            row = outcome["rows"][modality][name]
            # A grey picture without a face counts as read.
            reason = None if row["reason"] == "no_face" and None in expected else row["reason"]
            if reason not in expected or (reason is None and not row["values"]):
                wrong.append((name, modality, row["reason"], expected))
    assert wrong == []


@pytest.mark.slow
def test_no_hostile_clip_leads_elsewhere(outcome):
    assert outcome["trap"] == []


@pytest.mark.slow
def test_a_clip_is_as_long_as_what_is_decoded(outcome):
    for name in long_headers():
        seconds = SAMPLE_S if "real" in name else 1.0
        manifest, heard, seen = (outcome["rows"][k][name] for k in KINDS)
        assert manifest["duration_s"] == pytest.approx(seconds, abs=0.1), name
        if manifest["acoustic_reason"] is None:
            assert len(heard["values"]) == pytest.approx(31.25 * seconds, abs=4), name
        if manifest["visual_reason"] is None:
            assert len(seen["values"]) == pytest.approx(2 * seconds, abs=1), name


@pytest.mark.slow
def test_no_hostile_clip_takes_more_memory_than_it_may(outcome):
    """Headers of huge pictures cost nothing; libraries and models take 350 MB."""
    for line in outcome["log"]:
        most = 450 if line["name"].startswith("huge_") else MEMORY_MB + 200
        assert line["mb"] < most, line


@pytest.mark.slow
def test_damaged_clips_are_all_accounted_for(tmp_path):
    """`python -m benchmarks.fuzz_media` does more of this."""
    report = fuzz(tmp_path, source_clips(REAL), mutations=40, seed=7, timeout_s=120, fps=1)
    assert report.unaccounted == []
    assert all(sum(counts.values()) == 40 for counts in report.outcomes.values())
    assert all(2 < counts["features"] < 38 for counts in report.outcomes.values())
    assert max(report.peak_mb.values()) < LIMITS.max_memory_mb


def test_a_lost_clip_is_noticed():
    rows = [
        {"utterance_id": "fuzz/0", "values": [[1.0]], "reason": None},
        {"utterance_id": "fuzz/1", "values": None, "reason": "too_long"},
        {"utterance_id": "fuzz/2", "values": None, "reason": None},
        {"utterance_id": "fuzz/3", "values": None, "reason": "bad luck"},
    ]
    lost = list(unaccounted("visual", dict.fromkeys((f"fuzz/{i}" for i in range(5)), "flip"), rows))
    assert [line.split(": ")[1] for line in lost] == ["fuzz/4", "fuzz/2", "fuzz/3"]


def test_damage_depends_on_the_seed_alone(tmp_path):
    corpora = [
        write_damaged(tmp_path / str(i), [SAMPLE], 8, seed) for i, seed in enumerate((1, 1, 2))
    ]
    assert corpora[0] == corpora[1]
    assert corpora[0][1] != corpora[2][1]


def test_a_clip_may_shrink_grow_or_go_while_it_is_read(tmp_path):
    path = tmp_path / "x.avi"
    content = write_clip(path, np.arange(100) / 10, tone(10)).read_bytes()
    changes = {
        "shrink": lambda: os.truncate(path, len(content) // 3),
        "grow": lambda: path.write_bytes(content + content),
        "empty": lambda: os.truncate(path, 0),
        "other": lambda: path.write_bytes(SAMPLE.read_bytes()),
        "go": lambda: path.unlink(),
    }
    for change in changes.values():
        path.write_bytes(content)
        frames = iter_frames(path, fps=10, limits=LIMITS)
        times = [next(frames)[0]]
        change()
        times += [time for time, _ in frames]
        assert times == [k / 10 for k in range(len(times))]
        assert len(times) <= 100


@pytest.mark.parametrize("kind", ["device", "socket", "pipe"])
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    """Reading a pipe would wait forever, and a device would never end."""
    path = tmp_path / kind
    if kind == "device":
        path = Path("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        socket.socket(socket.AF_UNIX).bind(str(path))
    assert probe(path, LIMITS).video_reason == "no_file"
    with pytest.raises(MediaError, match=r"^no_file$"):
        read_waveform(path, sample_rate_hz=RATE, limits=LIMITS)


def test_a_name_gives_no_orders_to_the_terminal(tmp_path):
    """Line breaks and escape codes in a file's name are escaped in the one-line error."""
    name = "a\nerror: b\x1b[31m\x9b2J.mp4"
    folder = tmp_path / "raw" / "mine"
    folder.mkdir(parents=True)
    (folder / name).write_text("no film")
    rows = [("v", str(i), name, "words", 0, split) for i, split in enumerate(SPLITS)]
    write_corpus(folder, rows, ("video_id", "clip_id", "file", "text", "label", "split"))
    columns = {c: c for c in ("video_id", "clip_id", "text", "label", "split")}
    block = {"layout": "table", "language": "en", "scale": "mosi"}
    block["table"] = {"file": "label.csv", "path": "{file}", "columns": columns}
    write_params(tmp_path, grid__corpora=["mine"], corpora={"mine": block})
    process = run_stage(tmp_path, "ingest", corpus="mine")
    assert process.returncode == 1
    (line,) = [line for line in process.stderr.splitlines() if "error" in line]
    assert r"a\nerror: b\x1b[31m\x9b2J.mp4: not_media" in line
    assert "\x1b[31m" not in process.stderr


def count_frames(limits):
    """Return a stand-in for an extractor with a memory limit."""
    limit_memory(limits)
    return lambda path: sum(1 for _ in iter_frames(path, fps=10, limits=limits))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory_mb", "outcome"), [(4096, 6), (250, WorkerFailure("out_of_memory"))]
)
def test_a_decoder_that_gets_no_memory_has_met_no_damage(tmp_path, memory_mb, outcome):
    """A frame of 5600 x 5600 takes 47 MB, and the decoder needs several."""
    path = tmp_path / "large.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width = stream.height = 5600
        grey = np.full((8400, 5600), 128, np.uint8)
        for i in range(6):
            frame = av.VideoFrame.from_ndarray(grey, format="yuv420p")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    limits = LIMITS.model_copy(update={"max_memory_mb": memory_mb})
    counting = supervised_map(partial(count_frames, limits), [path], workers=1, timeout_s=60)
    assert list(counting) == [(path, outcome)]
