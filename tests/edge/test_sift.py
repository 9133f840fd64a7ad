"""How few requests it takes to find the bad points among many."""

import math
import random

import pytest

from gateway.edge.sift import Line, Sift

MANY = 5000


def sift(size: int, bad: set[int], *, stuck: set[int] | None = None, most: int = 10**9, refused: bool = True) -> int:
    """The number of further requests until everything is known; all that is known is right."""
    found = Sift([Line(1, number, b"%d" % number) for number in range(size)], refused=refused)
    stored: set[int] = set()
    requests = 0
    while offer := found.offer():
        requests += 1
        numbers = {line.number for line in offer}
        if len(offer) > most:
            found.too_large()
        elif numbers & (stuck or set()):
            found.refused(None)
        elif numbers & bad:
            found.refused("bad" if len(offer) == 1 else "some are bad")
        else:
            found.accepted()
            stored |= numbers
    assert {line.number for line, reason in found.bad if reason == "bad"} == bad
    assert {line.number for line in found.stuck} == (stuck or set())
    assert stored == set(range(size)) - bad - (stuck or set())
    return requests


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_one_bad_point_is_found_wherever_it_is(size: int) -> None:
    for place in range(size):
        assert sift(size, {place}) <= math.ceil(math.log2(size)) + 2


def test_one_bad_point_among_five_thousand_takes_fifteen_requests() -> None:
    places = {0, 1, MANY // 2 - 1, MANY // 2, MANY - 1, *range(0, MANY, 37)}
    assert max(sift(MANY, {place}) for place in places) <= 15


@pytest.mark.parametrize("count", [2, 10, 50, 300, 1000])
def test_many_bad_points_take_about_as_many_requests_as_there_are_bits_to_learn(count: int) -> None:
    bound = count * (math.log2(MANY / count) + 4)
    for seed in range(3):
        bad = set(random.Random(seed).sample(range(MANY), count))  # noqa: S311
        assert sift(MANY, bad) <= bound
    together = set(range(700, 700 + count))
    assert sift(MANY, together) <= count + 120


def test_when_all_are_bad_it_takes_little_more_than_a_request_each() -> None:
    assert sift(1000, set(range(1000))) <= 1100


@pytest.mark.parametrize("most", [1, 10, 1024])
def test_parts_shrink_until_the_server_takes_them(most: int) -> None:
    assert sift(MANY, set(), most=most, refused=False) <= 2 * MANY // most + 14


def test_bad_points_are_found_though_parts_must_be_small() -> None:
    sift(MANY, {3, 2500, 4999}, most=100)


def test_points_at_which_the_server_fails_are_set_apart() -> None:
    assert sift(MANY, {7, 4000}, stuck={8, 90}) <= 80


def test_nothing_is_called_bad_that_was_not_refused_alone() -> None:
    """A server may refuse now and then without a reason in the points."""
    for seed in range(200):
        chance = random.Random(seed)  # noqa: S311
        found = Sift([Line(1, number, b"") for number in range(100)], refused=True)
        stored: set[int] = set()
        while offer := found.offer():
            if len(offer) > 1 and chance.random() < 0.3:
                found.refused("a whim")
            else:
                found.accepted()
                stored |= {line.number for line in offer}
        assert not found.bad
        assert stored == set(range(100))
