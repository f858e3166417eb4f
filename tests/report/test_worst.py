from mitfrnet.report.tables import score_groups
from mitfrnet.report.worst import worst_clips
from tests.report.made_results import read, write_results


def worst(folder, ids, **made):
    (group,) = score_groups(read(folder, write_results(folder, clips=len(ids), **made)))
    found = worst_clips(group, "mitfrnet", ids)
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


def test_no_more_than_ten(tmp_path):
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
