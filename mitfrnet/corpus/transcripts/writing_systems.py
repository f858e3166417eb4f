"""The script of a text, and the scripts of a language."""

import unicodedata
from collections import Counter
from functools import cache

# Languages by script; any other language has an unknown script.
_LANGUAGES = {
    "Latin": "en de fr es pt it nl sv da no nb nn fi is pl cs sk sl hr bs hu ro et lv lt sq tr az "
    "vi id ms tl sw ca eu gl ga cy af eng deu fra spa por ita",
    "Cyrillic": "ru uk be bg mk sr kk ky mn rus ukr",
    "Han": "zh ja ko zho cmn yue jpn",
    "Hiragana": "ja jpn",
    "Katakana": "ja jpn",
    "Hangul": "ko kor",
    "Arabic": "ar fa ur ara fas urd",
    "Hebrew": "he yi heb",
    "Greek": "el ell",
    "Devanagari": "hi mr ne sa hin",
    "Bengali": "bn as ben",
    "Tamil": "ta tam",
    "Telugu": "te tel",
    "Thai": "th tha",
    "Georgian": "ka kat",
    "Armenian": "hy hye",
}


def scripts_of(language: str) -> list[str]:
    """Return the scripts of a language, an ISO 639 code; none if it is unknown."""
    return [script for script, codes in _LANGUAGES.items() if language in codes.split()]


@cache
def script_of_letter(letter: str) -> str:
    """Return the script in a letter's Unicode name, e.g. `Latin`, `Han`; empty if unknown."""
    words = unicodedata.name(letter, "").replace("-", " ").split(" ")
    name = words[words[0] in {"HALFWIDTH", "FULLWIDTH"}]
    return "Han" if name == "CJK" else name.capitalize()


def script_of(text: str) -> str | None:
    """Return the script of most letters of a text; None without letters."""
    letters = Counter(script_of_letter(c) for c in text if c.isalpha())
    return max(letters, key=lambda name: (letters[name], name), default=None)
