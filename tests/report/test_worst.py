import pytest

from mitfrnet.errors import FeatureError
from mitfrnet.report.tables.scores import score_groups
from mitfrnet.report.worst import (
    WorstClip,
    judged_group,
    page_name,
    read_worst,
    worst_clips,
    write_worst,
)
from tests.helpers.made_results import read, write_results


def worst(folder, ids, **made):
    (group,) = score_groups(read(folder, write_results(folder, clips=len(ids), **made)))
    found = worst_clips(group, "mitfrnet", ids, 10)
    return [(clip.utterance_id, clip.label, clip.prediction) for clip in found], found


def test_the_mean_over_runs_is_compared_with_the_label(tmp_path):
    """Of labels -2, 0, 1, seed s predicts label + s * (1, -1, 0): off by 1.5, -1.5 and 0."""
    shown, found = worst(
        tmp_path,
        ["v/b", "v/a", "v/c"],
        label=[-2, 0, 1],
        seeds=(1, 2),
        predict=lambda m, r, seed, label: label + seed * (label == -2) - seed * (label == 0),
    )
    assert shown == [("v/a", "0.00", "-1.50"), ("v/b", "-2.00", "-0.50")]
    assert found[0].command == "mitfrnet inspect one/v/a"


def test_no_more_than_asked_for(tmp_path):
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
    _, found = worst(tmp_path, ["v/it's; a"], label=[1], predict=lambda m, r, s, label: label + 1)
    assert found[0].command == """mitfrnet inspect 'one/v/it'"'"'s; a'"""


def test_clips_are_chosen_at_the_lowest_rate_that_models_were_trained_at(tmp_path):
    grid = write_results(tmp_path, rates=("random_train", 0.5, 0.3), tested=[0.0, 0.3, 0.5])
    group = judged_group(read(tmp_path, grid))
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
    seen, gone, none = (WorstClip("one", i, "1.00", "-1.00", "So.") for i in "abc")
    seen, gone = (WorstClip(**{**vars(c), "page": page_name(c.utterance_id)}) for c in (seen, gone))
    write_worst([seen, gone, none], folder)
    (folder / seen.page).write_text("")
    found = read_worst(folder, report)
    assert [clip.page for clip in found] == [f"inspect/one/{seen.page}", None, None]
    assert [clip.transcript for clip in found] == ["So."] * 3
    elsewhere = tmp_path / "elsewhere"
    (link,) = [clip.page for clip in read_worst(folder, elsewhere) if clip.page]
    assert link == f"../report%20%231/inspect/one/{seen.page}"


@pytest.mark.parametrize("text", [None, "no list", '[{"other": 1}]'])
def test_an_absent_or_broken_list_is_one_clear_line(tmp_path, text):
    if text is not None:
        (tmp_path / "clips.json").write_text(text)
    with pytest.raises(
        FeatureError, match=r"clips\.json: no list of clips .*run the inspect stage"
    ):
        read_worst(tmp_path, tmp_path)
