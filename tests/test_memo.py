"""What is kept for who asks again."""

from bnfold.memo import Memo


def made(memo, keys, size):
    """Which of some keys had to be made when they were asked for in turn."""
    found = []
    for key in keys:
        memo.get(key, lambda key=key: found.append(key), lambda _: size)
    return "".join(found)


def test_what_was_not_asked_for_longest_goes_first():
    """With what is around each, as much as fits; what is too large is made each time, and lets no other go."""
    memo = Memo(64, around=4)
    assert made(memo, "abacbac", 20) == "abcbac"
    assert made(memo, "ddac", 61) == "dd"
    memo.clear()
    assert made(memo, "ee", 60) == "e"
