"""Words as people misspell them."""

from __future__ import annotations

import random


def misspelled(word: str, rng: random.Random, share: float) -> str:
    """The word, now and then as it sounds, or with two letters swapped, one missing, wrong or one twice; a share of the words."""
    if len(word) < 3 or not word.isalpha() or rng.random() >= share:
        return word
    if rng.random() < 0.3:
        said, heard = rng.choice(_HEARD)
        return word.replace(said, heard, 1) if said in word[1:] or word.startswith(("th", "wh")) else word
    at = rng.randrange(1, len(word)) if len(word) == 3 else rng.randrange(1, len(word) - 1)
    letter = rng.choice("abcdefghijklmnoprstuvwxyz")
    swapped = word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
    return rng.choice(
        (swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], word[:at] + letter + word[at + 1 :], word[:-1])
    )


_HEARD = [
    tuple(pair.split(">"))
    for pair in "ea>ee ee>ea ck>k k>ck c>k ight>ite oo>u ou>ow ai>a ei>ie ie>ei th>d wh>w gh> e>i a>e ll>l ss>s tt>t s>z z>s ng>n oa>o ow>o er>a y>ie qu>kw ph>f tion>shun le>el re>er".split()
]
