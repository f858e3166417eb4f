"""Files in a corpus folder; those in object storage are in test_storage.py."""

import pytest

from mitfrnet.corpus.clip_files import ClipFiles
from mitfrnet.errors import CorpusError


def refusal(function, *arguments):
    with pytest.raises(CorpusError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_found_in_any_container_but_not_its_sidecar_or_a_folder(tmp_path):
    (tmp_path / "v" / "1").mkdir(parents=True)
    for name in ("1.TXT", "1.webm", "10.mp4", ".1.mp4"):
        (tmp_path / "v" / name).touch()
    files = ClipFiles(tmp_path)
    assert files.by_stem("v/1", "x") == "v/1.webm"
    assert files.by_stem("v/2", "x") is None
    assert files.by_stem("w/1", "x") is None
    assert files.at("v/1.webm", "x") == "v/1.webm"
    assert files.at("v/1", "x") is None
    assert files.at("v/none.mp4", "x") is None


def test_several_files_of_one_clip_are_an_error(tmp_path):
    for name in ("1.mp4", "1.avi"):
        (tmp_path / name).touch()
    assert refusal(ClipFiles(tmp_path).by_stem, "1", "x.csv:2") == (
        "x.csv:2: several files for 1: 1.avi, 1.mp4 (keep one)"
    )


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.mp4", "v/../../secret.mp4", "a\0b.mp4"])
def test_a_path_may_not_lead_out(tmp_path, path):
    (tmp_path / "secret.mp4").touch()
    files = ClipFiles(tmp_path / "corpus")
    assert "leads out of the corpus folder" in refusal(files.at, path, "x.csv:2")
    assert "x.csv:2: " in refusal(files.by_stem, path.removesuffix(".mp4"), "x.csv:2")


def test_a_link_may_lead_to_another_place_inside_but_not_out(tmp_path):
    corpus = tmp_path / "corpus"
    (corpus / "v").mkdir(parents=True)
    (corpus / "v" / "1.mp4").touch()
    (corpus / "v" / "2.mp4").symlink_to("1.mp4")
    (corpus / "w").symlink_to("v")
    (corpus / "out").symlink_to(tmp_path)
    (tmp_path / "3.mp4").touch()
    (corpus / "v" / "3.mp4").symlink_to(tmp_path / "3.mp4")
    (corpus / "v" / "4.mp4").symlink_to("4.mp4")
    (tmp_path / "link").symlink_to(corpus)
    for folder in (corpus, tmp_path / "link"):
        files = ClipFiles(folder)
        assert files.at("v/2.mp4", "x") == "v/2.mp4"
        assert files.by_stem("w/1", "x") == "w/1.mp4"
        assert files.at("v/4.mp4", "x") == "v/4.mp4"  # to itself; the probe gives the reason
        for find, path in [
            (files.at, "v/3.mp4"),
            (files.by_stem, "v/3"),
            (files.at, "out/3.mp4"),
            (files.by_stem, "out/3"),
            (files.table, "out/3.mp4"),
        ]:
            arguments = (path,) if find == files.table else (path, "x.csv:2")
            assert "leads out of the corpus folder" in refusal(find, *arguments)
