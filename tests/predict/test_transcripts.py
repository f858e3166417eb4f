import pytest

from mitfrnet.predict.transcripts import foreign_share


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("I liked it.", "en", 0),
        ("Je l'ai aimé, naïve.", "fr", 0),
        ("我喜欢", "en", 1),
        ("OK 我喜欢它的了", "en", 0.75),  # six of eight letters
        ("我喜欢", "zh", 0),
        ("I liked it.", "zh", 1),
        ("Мне понравилось", "ru", 0),
        ("ありがとう、カメラ", "ja", 0),
        ("123 !?", "en", 0),
        ("我喜欢", "xyz", 0),  # a language whose script is not known here
    ],
)
def test_letters_of_another_script_are_noticed(text, language, share):
    assert foreign_share(text, language) == share
