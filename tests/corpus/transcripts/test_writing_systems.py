import pytest

from mitfrnet.corpus.transcripts.writing_systems import script_of, scripts_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("words", "Latin"),
        ("Ελλάδα and", "Greek"),
        ("сегодня", "Cyrillic"),
        ("今天天气", "Han"),
        ("こんにちは世界", "Hiragana"),
        ("コーヒー", "Katakana"),
        ("ｺｰﾋｰ", "Katakana"),
        ("안녕", "Hangul"),
        ("12 ?! \x1b 😀", None),
        ("", None),
    ],
)
def test_the_script_is_that_of_most_letters(text, script):
    assert script_of(text) == script


def test_a_language_may_have_several_scripts_or_unknown_ones():
    assert scripts_of("ja") == ["Han", "Hiragana", "Katakana"]
    assert scripts_of("en") == ["Latin"]
    assert scripts_of("tlh") == []
