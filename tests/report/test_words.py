from mitfrnet.report.words import flatten, in_words, labels_in_words, listed, percent, shortened


def test_values_in_words():
    assert listed([1]) == "1"
    assert listed([1, 2, 3]) == "1, 2 and 3"
    assert listed([1, 2], "or") == "1 or 2"
    assert in_words("no_face") == "no face"
    assert percent(None) == "\N{EN DASH}"
    assert labels_in_words({"classes": {"calm": 3, "angry": 1}}) == "3 calm, 1 angry"
    assert flatten({"a": {"b": True, "c": None}, "d": [1, 2]}) == {
        "a.b": "true",
        "a.c": "none",
        "d": "1, 2",
    }


def test_a_transcript_is_one_short_line():
    assert shortened(" So\tit\n goes. ") == "So it goes."
    long = shortened("这" * 500)  # Chinese has no spaces to cut at
    assert 100 < len(long) <= 160
    assert long.endswith("这…")
