"""W18, W19: absolute expiry, a bound, and nothing left behind by a miss."""

from __future__ import annotations

from common.net.cache import TTLCache


def test_a_value_lives_until_its_expiry_whatever_the_hits():
    """W18: a hot name expires like any other."""
    cache: TTLCache[str, int] = TTLCache(10)
    cache.put("a", 1, expiry=5.0)
    for now in (0.0, 1.0, 4.0, 4.999):
        assert cache.get("a", now) == 1
    assert cache.get("a", 5.0) is None
    assert len(cache) == 0


def test_ten_thousand_misses_leave_nothing():
    """W19."""
    cache: TTLCache[str, int] = TTLCache(10)
    assert all(cache.get(str(number), 0.0) is None for number in range(10_000))
    assert len(cache) == 0


def test_the_oldest_goes_when_it_is_full():
    cache: TTLCache[int, int] = TTLCache(3)
    for number in range(100):
        cache.put(number, number, expiry=1000.0 - number)
        assert len(cache) <= 3
    assert [number for number in range(100) if cache.get(number, 0.0) == number] == [97, 98, 99]


def test_a_new_value_takes_the_place_of_the_old_and_counts_as_new():
    cache: TTLCache[str, int] = TTLCache(2)
    cache.put("a", 1, 10.0)
    cache.put("b", 2, 10.0)
    cache.put("b", 3, 20.0)
    assert [cache.get(key, 0.0) for key in "ab"] == [1, 3]
    cache.put("a", 4, 20.0)
    cache.put("c", 5, 10.0)
    assert [cache.get(key, 0.0) for key in "abc"] == [4, None, 5]
    assert [cache.get(key, 15.0) for key in "abc"] == [4, None, None]
