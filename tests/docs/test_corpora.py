"""The pipeline accepts what docs/corpora.md tells users to write."""

import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from mitfrnet.corpus.clips import Problems
from mitfrnet.corpus.ingest import IngestParams, build_manifest, probe_clips, read_corpus
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.params import load_params, parse_params
from mitfrnet.workers.params import RunParams
from tests.helpers.clips import tone, write_clip
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")
INGEST = load_params(IngestParams, section="ingest", path=ROOT / "params.yaml")


def blocks(language):
    """Return the code blocks of the page in a language, without indentation."""
    matches = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", PAGE, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in matches]


CORPORA = [
    pytest.param(name, block, id=f"{i}-{name}")
    for i, text in enumerate(blocks("yaml"))
    for name, block in (yaml.safe_load(text).get("corpora") or {}).items()
]


def corpus_named(name):
    (block,) = (p.values[1] for p in CORPORA if p.values[0] == name)
    return parse_params(CorpusParams, block, where=f"corpora.{name}")


def test_the_page_has_a_block_for_each_published_corpus():
    names = {p.values[0] for p in CORPORA}
    assert {"mosi", "mosei", "sims", "simsv2", "meld", "iemocap", "interviews"} <= names


@pytest.mark.parametrize(("name", "block"), CORPORA)
def test_each_block_is_taken(name, block):
    parse_params(CorpusParams, block, where=f"corpora.{name}")


def test_the_interviews_are_read_as_the_page_says(tmp_path):
    """Four answers from three videos, one transcript from subtitles, word times of two people."""
    folder = tmp_path / "interviews"
    (folder / "camera").mkdir(parents=True)
    (folder / "words").mkdir()
    for name in ("anna", "bela", "cora"):
        write_clip(folder / "camera" / f"{name}.mkv", np.arange(40) / 10, tone(4.0))
        (folder / "camera" / f"{name}.mkv").rename(folder / "camera" / f"{name}.mp4")
    (folder / "answers.csv").write_text(blocks("csv")[0])
    (folder / "words" / "bela.srt").write_text(
        "1\n00:00:00,600 --> 00:00:02,000\nNever again.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye.\n"
    )
    intervals = [(0.0, 0.2, "i"), (0.2, 0.6, "would"), (0.6, 0.9, "go"), (0.9, 1.4, "again")]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "4", "<exists>", "1"]
    lines += ['"IntervalTier"', '"words"', "0", "4", str(len(intervals) + 1)]
    for start, end, word in [*intervals, (1.4, 4, "")]:
        lines += [str(start), str(end), f'"{word}"']
    (folder / "words" / "anna.TextGrid").write_text("\n".join(lines) + "\n")

    corpus = corpus_named("interviews")
    clips = read_corpus(folder, corpus, INGEST)
    probed = probe_clips(folder, clips, INGEST.limits, RunParams(workers=1, timeout_seconds=60))
    rows = {r["utterance_id"]: r for r in build_manifest(probed, corpus, INGEST).to_pylist()}
    assert set(rows) == {"anna/1", "anna/2", "bela/1", "cora/1"}
    assert rows["bela/1"]["transcript"] == "Never again."
    assert rows["bela/1"]["transcript_source"] == "srt"
    assert rows["anna/1"]["transcript_source"] == "table"
    first = rows["anna/1"]
    assert [first["transcript"][w["char_start"] : w["char_end"]] for w in first["words"]] == [
        *("I", "would", "go", "again")
    ]
    assert [w["end_s"] for w in first["words"]] == pytest.approx([0.2, 0.6, 0.9, 1.4])
    assert rows["cora/1"]["words"] is None
    assert {r["split"] for r in rows.values()} == {"train", "valid", "test"}
    assert rows["anna/1"]["split"] == rows["anna/2"]["split"]
    assert [r["acoustic_reason"] for r in rows.values()] == [None] * 4


def test_the_script_for_iemocap_makes_a_table_of_the_release(tmp_path):
    """Three utterances of an invented dialogue in the files of the release; one is of no class."""
    dialog = tmp_path / "raw/iemocap/Session1/dialog"
    for name in ("EmoEvaluation", "transcriptions", "avi/DivX"):
        (dialog / name).mkdir(parents=True)
    (dialog / "EmoEvaluation/Ses01F_impro01.txt").write_text(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[0.2901 - 1.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\n\n"
        "[1.4000 - 2.0000]\tSes01F_impro01_M000\txxx\t[2.5000, 2.5000, 2.5000]\n"
        "[2.0000 - 2.9000]\tSes01F_impro01_M001\texc\t[4.0000, 3.5000, 2.5000]\n"
    )
    (dialog / "transcriptions/Ses01F_impro01.txt").write_text(
        "Ses01F_impro01_F000 [000.2901-001.2357]: Excuse me.\n"
        "Ses01F_impro01_M000 [001.4000-002.0000]: Hm.\n"
        "Ses01F_impro01_M001 [002.0000-002.9000]: Yes, gladly!\n"
    )
    (script,) = blocks("python")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)

    folder = tmp_path / "raw" / "iemocap"
    write_clip(folder / "x.avi", np.arange(30) / 10, tone(3.0))
    (folder / "x.avi").rename(dialog / "avi/DivX/Ses01F_impro01.avi")
    problems = Problems()
    clips = read_corpus(folder, corpus_named("iemocap"), INGEST, problems)
    assert [(c.utterance_id, c.transcript, c.label, c.start_s, c.end_s) for c in clips] == [
        ("Ses01F_impro01/Ses01F_impro01_F000", "Excuse me.", 2.0, 0.2901, 1.2357),
        ("Ses01F_impro01/Ses01F_impro01_M001", "Yes, gladly!", 1.0, 2.0, 2.9),
    ]
    assert clips[0].path == "Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    assert clips[0].split_group == "Session1"
    assert len(problems.errors) == 1  # one session cannot be split
    assert "is empty" in problems.errors[0]
