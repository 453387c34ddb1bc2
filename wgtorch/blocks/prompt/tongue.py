"""Which language a text is written in, as far as its letters and commonest words tell."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_COMMON = {
    "English": "the and of to in is was that with for his her from are on at by it as an they have this were",
    "German": "der die das und ist nicht ein eine mit von zu den im auf für sich dem des wird auch war ihr",
    "French": "le la les des et est une un dans qui que pour pas sur avec du au elle il se sont était",
    "Spanish": "el la los las de y que en un una es por con para su se del al como más pero está",
    "Portuguese": "o a os as de e que em um uma é por com para não se do da no na mais está",
    "Italian": "il lo la gli le di e che in un una è per con non si del della nel sono era",
    "Dutch": "de het een en van is op te dat die in niet met voor zijn aan er naar ook was",
    "Polish": "i w na z się nie jest że do to o od po przez dla jego jej był była są",
    "Czech": "a v na se je že s z do o k pro jako jsou byl byla ale který která když",
    "Swedish": "och i att det en ett är på som för med av den till inte om var han hon från",
    "Turkish": "ve bir bu da de için ile çok ne gibi olan daha var değil onun kadar sonra ama",
}
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_SCRIPTS = {
    "HANGUL": "Korean", "GREEK": "Greek", "HEBREW": "Hebrew", "THAI": "Thai", "GEORGIAN": "Georgian", "ARMENIAN": "Armenian",
    "DEVANAGARI": "Hindi", "HIRAGANA": "Japanese", "KATAKANA": "Japanese",
}  # fmt: skip


def language_of(text: str) -> str | None:
    """The language of a text, by its English name; None where that is not clear.

    Letters decide where they can (Cyrillic, Greek, Hangul, ...); a text in Latin letters needs at least three of a language's
    commonest words, and more of them than of any other's.

    Example:
        >>> language_of("Смотритель зажигает лампу на маяке.")
        'Russian'
    """
    letters = [letter for letter in text.lower() if letter.isalpha()]
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in letters)
    if not scripts:
        return None
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.05 * len(letters):
        return "Japanese"
    script, count = scripts.most_common(1)[0]
    if count < 0.6 * len(letters):
        return None
    if script == "CYRILLIC":
        return _cyrillic(set(letters))
    if script == "ARABIC":
        return "Persian" if set(letters) & set("پچژگ") else "Arabic"
    if script == "CJK":
        return "Chinese"
    return _latin(text) if script == "LATIN" else _SCRIPTS.get(script)


def _cyrillic(letters: set[str]) -> str | None:
    """By letters that only one of the languages has."""
    for own, language in (("ў", "Belarusian"), ("іїєґ", "Ukrainian"), ("ђћ", "Serbian"), ("ѓќѕ", "Macedonian"), ("ңүһөұқғә", "")):
        if letters & set(own):
            return language or None
    if letters & set("ыэё"):
        return "Russian"
    return "Bulgarian" if "ъ" in letters else "Serbian" if letters & set("јљњџ") else "Russian"


def _latin(text: str) -> str | None:
    words = re.findall(r"[^\W\d_]+", text.lower())
    found = Counter({language: sum(word in common for word in words) for language, common in _WORDS.items()})
    (best, most), (_, second) = found.most_common(2)
    return best if most >= 3 and most > second else None
