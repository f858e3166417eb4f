from pathlib import Path

import pytest

from mitfrnet.errors import CorpusError
from mitfrnet.predict.clips import find_clips


def test_clips_come_from_files_folders_and_patterns_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.mp4", "a/1.MKV", "a/notes.txt", "a/b/3.wav", "a/.hidden/4.mp4", "c.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("link.mp4").symlink_to("c.mp4")
    expected = ["a/1.MKV", "a/2.mp4", "a/b/3.wav"]
    assert [str(p) for p in find_clips(["a"])] == expected
    assert [str(p) for p in find_clips(["a", "./a/2.mp4", "a/**/*.wav"])] == expected
    assert [str(p) for p in find_clips(["*.mp4", "c.mp4"])] == ["c.mp4"]
    assert [str(p) for p in find_clips(["gone.mp4"])] == ["gone.mp4"]  # reading it is an error
    Path("empty").mkdir()
    with pytest.raises(CorpusError, match=r"empty: no clips in this folder"):
        find_clips(["c.mp4", "empty"])
    with pytest.raises(CorpusError, match=r"\*\.avi: no file matches"):
        find_clips(["*.avi"])
