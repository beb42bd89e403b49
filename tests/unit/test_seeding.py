"""Derived seeds: frozen, since another seed is another experiment."""

import pytest

from study.seeding import derive_seed


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ((), 8238016292129134938),
        ((0,), 4761921975702974394),
        ((1, "a"), 1242162903831351658),
        (("a", 1), 1635061960360317945),
        (("1", "a"), 380534736004189248),
        ((20210615, "search", 3), 597089084771561677),
    ],
)
def test_seeds_are_frozen(parts, seed):
    assert derive_seed(*parts) == seed


def test_order_type_and_grouping_matter():
    variants = [(1, 2), (2, 1), ("1", 2), (1, "2"), (12,), ("12",), (1, 2, 0), ("a", "b"), ("ab",), ("a,b",)]
    assert len({derive_seed(*parts) for parts in variants}) == len(variants)


def test_seeds_fit_every_generator_and_use_their_range():
    seeds = [derive_seed("range", index) for index in range(2000)]
    assert len(set(seeds)) == 2000 and min(seeds) >= 0 and max(seeds) < 2**63
    # each of the 63 bits is set about half the time (a standard deviation is 0.011)
    for bit in range(63):
        assert 0.44 < sum(seed >> bit & 1 for seed in seeds) / 2000 < 0.56
