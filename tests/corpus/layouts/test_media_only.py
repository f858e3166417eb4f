import os

from tests.helpers.reading import read, refusal

BLOCK = {"layout": "media_only"}


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_each_media_file_is_an_unlabelled_clip_of_the_test_split(tmp_path):
    folder = touch(tmp_path / "mine", "b.MP4", "ann/1.wav", "ann/2020/1.webm")
    clips, errors, warnings = read(folder, BLOCK)
    assert [(c.utterance_id, c.path, c.stem) for c in clips] == [
        ("ann-2020/1", "ann/2020/1.webm", "ann/2020/1"),
        ("ann/1", "ann/1.wav", "ann/1"),
        ("mine/b", "b.MP4", "b"),
    ]
    assert {(c.split, c.label, c.transcript) for c in clips} == {("test", None, "")}
    assert errors == warnings == []


def test_sidecars_and_hidden_files_are_passed_over_and_others_named(tmp_path):
    touch(tmp_path, "1.mp4", "1.txt", "1.CSV", "._1.mp4", ".git/2.mp4", "readme.pdf")
    clips, errors, warnings = read(tmp_path, BLOCK)
    assert [c.path for c in clips] == ["1.mp4"]
    assert errors == []
    assert warnings == ["readme.pdf: skipped, not a media file by its ending"]


def test_two_files_with_the_same_ids_are_an_error(tmp_path):
    touch(tmp_path, "v/1.mp4", "v/1.wav")
    _, (error,), _ = read(tmp_path, BLOCK)
    assert error == (
        "v/1.wav: duplicate id 'v/1', first used in v/1.mp4 "
        "(every video_id, clip_id pair must be unique)"
    )


def test_a_linked_folder_is_named_and_a_link_that_leads_out_is_an_error(tmp_path):
    folder = touch(tmp_path / "corpus", "v/1.mp4")
    touch(tmp_path, "secret.mp4")
    (folder / "again").symlink_to("v")
    (folder / "2.mp4").symlink_to(tmp_path / "secret.mp4")
    clips, errors, warnings = read(folder, BLOCK)
    assert [c.path for c in clips] == ["v/1.mp4"]
    assert errors == ["2.mp4: 2.mp4 leads out of the corpus folder (expected a file inside it)"]
    assert warnings == ["again: skipped, a link to a folder (expected the folder itself)"]


def test_a_name_that_can_be_no_id_is_an_error(tmp_path):
    touch(tmp_path, "v/a\nb.mp4", "v/2.mp4")
    clips, (error,), _ = read(tmp_path, BLOCK)
    assert [c.clip_id for c in clips] == ["2"]
    assert "clip_id is 'a\\nb' (expected a file name" in error


def test_a_folder_without_clips_is_an_error(tmp_path):
    assert refusal(tmp_path, BLOCK) == (
        f"{tmp_path}: no clips (expected media files in it or in its folders)"
    )
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_no_utf_8_is_refused_in_one_line(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.wav"), "wb"):
        pass
    assert "UTF-8" in refusal(tmp_path, BLOCK)
