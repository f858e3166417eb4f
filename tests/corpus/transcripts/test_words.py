import random

import pytest

from mitfrnet.corpus.transcripts.words import TimedWord, Word, join_words, place_words, spread


def timed(*texts):
    """Return words of one second each, one after another."""
    return [TimedWord(text, float(i), i + 1.0) for i, text in enumerate(texts)]


def placed(transcript, *texts):
    """Return the text of each placed word in the transcript, and its number among `texts`."""
    words = place_words(transcript, timed(*texts))
    return [(transcript[w.char_start : w.char_end], int(w.start_s)) for w in words]


def test_a_place_is_an_index_into_the_string_and_a_time_stays():
    """`b` is character 4 after the emoji, which counts as one."""
    assert place_words("😀 a b", [TimedWord("a", 0.1, 0.2), TimedWord("b", 0.25, 0.5)]) == (
        Word(2, 3, 0.1, 0.2),
        Word(4, 5, 0.25, 0.5),
    )


@pytest.mark.parametrize(
    ("transcript", "words"),
    [
        ("Well, I DON'T know!", ["well", "i", "don't", "know"]),
        ("Grüße aus Köln", ["GRÜSSE", "aus", "Ko\u0308ln"]),
        ("Mu\u0308sli", ["müsli"]),
        ("我很开心。", ["我", "很", "开", "心"]),
        ("我很开心。", ["我", "很", "开心"]),
        ("वह हिंदी बोलता है", ["वह", "हिंदी", "बोलता", "है"]),
        ("\uff46\uff55\uff4c\uff4c \uff11\uff12", ["full", "12"]),  # wide forms
        ("\ufb01ne", ["fine"]),
        ("so ❤️ good", ["so", "good"]),
    ],
)
def test_all_words_are_found_whatever_the_script_case_or_composition(transcript, words):
    places = placed(transcript, *words)
    assert [number for _, number in places] == list(range(len(words)))
    letters = "".join(text for text, _ in places)
    assert letters == "".join(c for c in transcript if c not in " ,.!。❤\ufe0f")


@pytest.mark.parametrize("said", [["dont"], ["do", "n't"], ["don\u2019t"], ["don", "'", "t"]])
def test_an_other_cut_into_words_is_found(said):
    """The whole word is covered, and the words around it keep their places."""
    places = placed("I don't mind him", "i", *said, "mind", "her")
    assert places[0] == ("I", 0)
    assert places[-1] == ("mind", len(said) + 1)
    assert "".join(text for text, _ in places[1:-1]).replace("'", "") == "dont"


def test_words_that_are_not_in_the_transcript_are_left_out():
    assert placed("a b c", "sil", "a", "sp", "x", "c", "<eps>") == [("a", 1), ("c", 4)]


def test_a_repeated_word_is_found_at_its_own_place():
    words = place_words("no no yes no", timed("no", "no", "yes", "no"))
    assert [w.char_start for w in words] == [0, 3, 6, 10]


@pytest.mark.parametrize(("transcript", "words"), [("", ["a"]), ("a", []), ("...", ["a", "-"])])
def test_nothing_to_find_gives_no_words(transcript, words):
    assert placed(transcript, *words) == []


def test_a_long_transcript_with_other_words_here_and_there_is_found():
    """Every tenth of 10,000 Chinese characters differs; their frequencies are those of text."""
    drawn = random.Random(1)
    characters = [chr(0x4E00 + i) for i in range(3000)]
    said = drawn.choices(characters, weights=[1 / (i + 1) for i in range(3000)], k=10_000)
    heard = [c if i % 10 else "x" for i, c in enumerate(said)]
    words = place_words("".join(said), timed(*heard))
    right = [w for w in words if w.char_start == w.start_s]
    assert len(right) > 8500
    assert len(right) > 0.99 * len(words)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("length", [2000, 10_000])
def test_what_repeats_without_end_takes_no_minute(length):
    drawn = random.Random(1)
    assert place_words("ab" * length, timed("ab" * length, "c"))
    place_words(" ".join(drawn.choices("ab", k=length)), timed(*drawn.choices("ab", k=length)))


def test_a_phrase_is_spread_by_length():
    """8 characters in 4 s are half a second each: `ab` 2, the space 1, `cdefg` 5."""
    assert spread(" ab cdefg", 1.0, 5.0) == [
        TimedWord("ab", 1.0, 2.0),
        TimedWord("cdefg", 2.5, 5.0),
    ]


def test_of_chinese_each_character_is_a_word():
    assert [w.text for w in spread("我爱 cats。", 0.0, 1.0)] == ["我", "爱", "cats。"]
    assert spread("  ", 0.0, 1.0) == []


def test_words_are_joined_as_they_are_written():
    assert join_words(["我", "cats", "so"]) == "我cats so"
    assert join_words([" so", "it", "", "goes."]) == "so it goes."
    assert join_words(["我", "爱", "\uff0c", "猫"]) == "我爱\uff0c猫"
