import time

import pytest

from mitfrnet.corpus.clips import LabelledClip, Problems
from mitfrnet.corpus.transcripts.sidecars import complete
from mitfrnet.corpus.transcripts.timed_text import KINDS
from mitfrnet.corpus.transcripts.words import Word
from mitfrnet.errors import CorpusError
from tests.helpers.reading import MOSI
from tests.helpers.timed_text import CTM, SO_FAR

SRT = "1\n00:00:01,000 --> 00:00:02,000\nHello you\n"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def clip(video_id="v", clip_id="1", **fields):
    stem = fields.pop("stem", f"Raw/{video_id}/{clip_id}")
    return LabelledClip(
        where="label.csv:2", video_id=video_id, clip_id=clip_id, stem=stem, **fields
    )


def completed(folder, *clips, **block):
    """Return the clips with their sidecars, none of which has a problem."""
    problems = Problems()
    result = complete(folder, clips, MOSI.model_copy(update=block), problems)
    assert (problems.errors, problems.warnings) == ([], [])
    return result


def test_the_first_kind_that_is_there_gives_the_transcript(tmp_path):
    for kind in KINDS:
        write(tmp_path / f"Raw/v/1{kind}", SO_FAR[kind])
    for kind in KINDS:
        (result,) = completed(tmp_path, clip())
        assert (result.transcript, result.transcript_source) == ("so far", kind.removeprefix("."))
        (tmp_path / f"Raw/v/1{kind}").unlink()
    assert completed(tmp_path, clip()) == [clip()]


def test_a_transcript_of_the_table_is_kept_and_gets_times(tmp_path):
    """The words of the `.ctm` come before those of subtitles; `So, far` has them at 0 and 4."""
    write(tmp_path / "Raw/v/1.txt", b"not this \xff")
    write(tmp_path / "Raw/v/1.srt", SRT)
    write(tmp_path / "Raw/v/1.ctm", CTM)
    (result,) = completed(tmp_path, clip(transcript="So, far!", transcript_source="table"))
    assert (result.transcript, result.transcript_source) == ("So, far!", "table")
    assert result.words == (Word(0, 2, 0.5, 0.75), Word(4, 7, 1.0, 1.5))


def test_transcript_and_times_may_come_from_two_files(tmp_path):
    write(tmp_path / "Raw/v/1.TXT", "So: far.")
    write(tmp_path / "Raw/v/1.Ctm", CTM)
    (result,) = completed(tmp_path, clip())
    assert (result.transcript, result.transcript_source) == ("So: far.", "txt")
    assert [w.char_start for w in result.words] == [0, 4]


def test_an_empty_file_leaves_it_to_the_next(tmp_path):
    write(tmp_path / "Raw/v/1.txt", " \n")
    write(tmp_path / "Raw/v/1.srt", SRT)
    (result,) = completed(tmp_path, clip())
    assert (result.transcript, result.transcript_source) == ("Hello you", "srt")
    assert len(result.words) == 2


def test_a_clip_without_sidecars_stays_as_it_is(tmp_path):
    write(tmp_path / "Raw/v/10.txt", "of another")
    (tmp_path / "Raw/v/1.txt").mkdir()
    clips = [clip(), clip(stem=None), clip(stem="none/here"), clip(stem="nul\0/nul\0")]
    assert completed(tmp_path, *clips) == clips


def test_sidecars_may_lie_elsewhere(tmp_path):
    write(tmp_path / "Alignments/v/1.ctm", CTM)
    (result,) = completed(tmp_path, clip(), sidecars="Alignments/{video_id}/{clip_id}")
    assert result.transcript == "so far"


def test_a_segment_gets_the_words_whose_middle_it_holds(tmp_path):
    """From 0.7 to 1.2 s: `so` has its middle at 0.625, `far` at 1.25; from 0.6 to 1.3 both."""
    write(tmp_path / "full/v.ctm", CTM)
    write(tmp_path / "full/v.txt", "about all of it")
    first, second = completed(
        tmp_path,
        clip(clip_id="1", stem="full/v", start_s=0.7, end_s=1.2),
        clip(clip_id="2", stem="full/v", start_s=0.6, end_s=1.3),
    )
    assert (first.transcript, first.words) == ("", None)
    assert (second.transcript, second.transcript_source) == ("so far", "ctm")
    assert [(w.start_s, w.end_s) for w in second.words] == [
        (0.0, pytest.approx(0.15)),
        (pytest.approx(0.4), pytest.approx(0.7)),
    ]


def test_a_file_for_a_segment_is_its_own(tmp_path):
    write(tmp_path / "Text/v_2.txt", "its own")
    write(tmp_path / "Text/v_2.ctm", "v 1 0.0 0.5 own\n")
    (result,) = completed(
        tmp_path, clip(clip_id="2", start_s=60.0, end_s=61.0), sidecars="Text/{video_id}_{clip_id}"
    )
    assert result.transcript == "its own"
    assert result.words == (Word(4, 7, 0.0, 0.5),)


def test_every_broken_file_is_a_problem_once_and_the_rest_is_read(tmp_path):
    write(tmp_path / "full/v.ctm", "a 1 x 1 so\n")
    write(tmp_path / "Raw/w/1.txt", b"\xff")
    write(tmp_path / "Raw/w/2.txt", "good")
    segments = [clip(clip_id=f"{i}", stem="full/v", start_s=i, end_s=i + 1) for i in range(3)]
    problems = Problems()
    clips = complete(tmp_path, [*segments, clip("w", "1"), clip("w", "2")], MOSI, problems)
    assert [error.split(": ")[0] for error in problems.errors] == [
        f"{tmp_path}/full/v.ctm:1",
        f"{tmp_path}/Raw/w/1.txt:1",
    ]
    assert [c.transcript for c in clips] == ["", "", "", "", "good"]


def test_times_of_other_words_are_warned_of(tmp_path):
    write(tmp_path / "Raw/v/1.ctm", CTM.replace("so", "other").replace("far", "words"))
    problems = Problems()
    (result,) = complete(tmp_path, [clip(transcript="So far.")], MOSI, problems)
    assert result.words is None
    assert problems.warnings == [
        f"{tmp_path}/Raw/v/1.ctm: 0 of 2 words are in the transcript of v/1 "
        "(expected the times of its words)"
    ]


def test_a_link_out_of_the_corpus_is_not_followed(tmp_path):
    secret = write(tmp_path / "secret.txt", "secret")
    folder = tmp_path / "corpus"
    write(folder / "Raw/v/2.txt", "two")
    (folder / "Raw/v/1.txt").symlink_to(secret)
    (folder / "Raw/v/3.txt").symlink_to("2.txt")
    problems = Problems()
    clips = complete(folder, [clip(clip_id=i) for i in "123"], MOSI, problems)
    assert [c.transcript for c in clips] == ["", "two", "two"]
    assert problems.errors == [
        "label.csv:2: Raw/v/1.txt leads out of the corpus folder (expected a file inside it)"
    ]


def test_a_pattern_with_another_name_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"no 'speaker' \(expected one of video_id, clip_id\)"):
        completed(tmp_path, clip(), sidecars="{speaker}/{clip_id}")


def test_many_clips_take_seconds(tmp_path):
    """The folder is listed once: 3,000 listings of 3,000 names would take half a minute."""
    for i in range(3000):
        write(tmp_path / f"Raw/v/{i}.txt", f"clip {i}")
    started = time.process_time()
    clips = completed(tmp_path, *(clip(clip_id=f"{i}") for i in range(3000)))
    assert time.process_time() - started < 10
    assert all(c.transcript == f"clip {c.clip_id}" for c in clips)
