from dataclasses import replace

import pytest

from mitfrnet.errors import FeatureError
from mitfrnet.report.scores import score_groups
from mitfrnet.report.worst import (
    WorstClip,
    judged_group,
    page_name,
    read_worst,
    worst_clips,
    write_worst,
)
from tests.helpers.made_results import make_results


def worst(folder, ids, **study):
    (group,) = score_groups(make_results(folder, clips=len(ids), **study))
    clips = worst_clips(group, "mitfrnet", ids, 10)
    return [(clip.utterance_id, clip.label, clip.prediction) for clip in clips], clips


def test_the_mean_over_runs_is_compared_with_the_label(tmp_path):
    """For labels -2, 0, 1, seed s is off by s * (1, -1, 0): on average by 1.5, -1.5 and 0."""
    shown, clips = worst(
        tmp_path,
        ["v/b", "v/a", "v/c"],
        label=[-2, 0, 1],
        seeds=(1, 2),
        predict=lambda m, r, seed, label: label + seed * (label == -2) - seed * (label == 0),
    )
    assert shown == [("v/a", "0.00", "-1.50"), ("v/b", "-2.00", "-0.50")]
    assert clips[0].command == "mitfrnet inspect one/v/a"


def test_there_are_no_more_clips_than_the_maximum(tmp_path):
    ids = [f"v/{i:02}" for i in range(12)]
    label = [-1, 0, 1] * 4
    shown, _ = worst(tmp_path, ids, label=label, predict=lambda m, r, s, label: label + 1)
    assert [clip for clip, *_ in shown] == ids[:10]


def test_classes_by_how_many_runs_are_wrong(tmp_path):
    """Labels 0, 1, 0. All three runs take the last for 1, two of them the second for 0."""
    shown, _ = worst(
        tmp_path,
        ["v/a", "v/b", "v/c"],
        corpora={"one": {"task": "classification", "classes": ["calm", "angry"]}},
        label=[0, 1, 0],
        seeds=(1, 2, 3),
        predict=lambda m, r, seed, label: label * [0, seed == 1, 0] + [0, 0, 1],
    )
    assert shown == [("v/c", "calm", "angry"), ("v/b", "angry", "calm")]


def test_a_command_can_be_pasted_whatever_the_id(tmp_path):
    _, clips = worst(tmp_path, ["v/it's; a"], label=[1], predict=lambda m, r, s, label: label + 1)
    assert clips[0].command == """mitfrnet inspect 'one/v/it'"'"'s; a'"""


def test_clips_are_chosen_at_the_lowest_rate_that_models_were_trained_at(tmp_path):
    rates = ("random_train", 0.5, 0.3)
    group = judged_group(make_results(tmp_path, rates=rates, tested=[0.0, 0.3, 0.5]))
    assert (group.trained, group.tested) == (0.3, 0.3)


@pytest.mark.parametrize("utterance_id", ["v/1", "../../x", "é 你/…", "%2e?#&\"'<", "a" * 400])
def test_any_id_has_a_page_name_that_files_and_links_can_carry(utterance_id):
    name = page_name(utterance_id)
    assert name.isascii()
    assert len(name) < 100
    assert set(name) <= set("-.") | set(filter(str.isalnum, name))
    assert not name.startswith((".", "-"))
    assert name.endswith(".html")


def test_ids_that_look_alike_have_pages_of_their_own():
    ids = ["a/b-c", "a-b/c", "A/b-c", "你/好", "好/你"]
    assert len({page_name(i).lower() for i in ids}) == len(ids)


def test_links_lead_from_the_report_to_pages_that_are_there(tmp_path):
    folder, report = tmp_path / "report #1" / "inspect" / "one", tmp_path / "report #1"
    shown, gone, none = (WorstClip("one", i, "1.00", "-1.00", "So.") for i in "abc")
    shown, gone = (replace(clip, page=page_name(clip.utterance_id)) for clip in (shown, gone))
    write_worst([shown, gone, none], folder)
    (folder / shown.page).write_text("")
    clips = read_worst(folder, report)
    assert [clip.page for clip in clips] == [f"inspect/one/{shown.page}", None, None]
    assert [clip.transcript for clip in clips] == ["So."] * 3
    elsewhere = tmp_path / "elsewhere"
    (link,) = [clip.page for clip in read_worst(folder, elsewhere) if clip.page]
    assert link == f"../report%20%231/inspect/one/{shown.page}"


@pytest.mark.parametrize("text", [None, "no list", '[{"other": 1}]'])
def test_an_absent_or_broken_list_is_one_clear_line(tmp_path, text):
    if text is not None:
        (tmp_path / "clips.json").write_text(text)
    with pytest.raises(
        FeatureError, match=r"clips\.json: no list of clips .*run the inspect stage"
    ):
        read_worst(tmp_path, tmp_path)
