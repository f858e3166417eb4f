import pytest

from mitfrnet.inspection.subject import _spoken

WORDS = [
    {"char_start": 0, "char_end": 4, "start_s": 1.0, "end_s": 2.0},
    {"char_start": 5, "char_end": 7, "start_s": 3.0, "end_s": 3.5},
]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 4, (1.0, 2.0)),
        (2, 4, (1.5, 2.0)),  # the second half of a word
        (5, 7, (3.0, 3.5)),
        (7, 8, (3.5, 4.0)),  # in no word: as if all 8 characters shared the 4 s
    ],
)
def test_tokens_have_the_times_of_their_words(start, end, expected):
    assert _spoken(start, end, 8, WORDS, 4.0) == pytest.approx(expected)


def test_without_words_all_characters_take_equally_long():
    assert _spoken(2, 6, 8, [], 4.0) == pytest.approx((1.0, 3.0))


def test_times_stay_within_the_clip():
    words = [{"char_start": 0, "char_end": 4, "start_s": 3.0, "end_s": 6.0}]
    assert _spoken(0, 4, 4, words, 4.0) == (3.0, 4.0)
