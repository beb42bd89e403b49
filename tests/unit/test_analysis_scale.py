"""What makes large studies cheap changes no number: look-ups against plain sums, one parse against many, thinned marks."""

import numpy as np
import pyarrow as pa
import pytest

from analysis.figures.style import thinned
from analysis.stats.sign_patterns import NUM_PATTERNS, all_subsets, sampled_subsets
from analysis.stats.signflip import sign_flip_interval, sign_flip_p, sign_flip_test
from analysis.trials.table import rows_of
from study.results.ledger import decode, decode_all, encode


@pytest.mark.parametrize("num_pairs", [1, 11, 12, 13, 24, 40])
def test_sums_by_look_up_are_sums_over_subsets(num_pairs: int) -> None:
    """A subset's sum is linear in the differences: the sums of unit vectors tell its members."""
    members = np.stack([sampled_subsets(row)[0] for row in np.eye(num_pairs)], axis=1)
    assert set(np.unique(members)) == {0.0, 1.0} and not members[0].any()
    d = np.random.default_rng(num_pairs).normal(size=num_pairs)
    sums, sizes = sampled_subsets(d)
    assert sums == pytest.approx(members @ d, abs=1e-12)
    assert np.array_equal(sizes, members.sum(axis=1))
    # uniform draws: each member in half of the subsets, each two of them in a quarter (five standard errors)
    half = members[1:].mean(axis=0)
    assert np.abs(half - 0.5).max() < 2.5 / np.sqrt(NUM_PATTERNS)
    if num_pairs > 12:
        assert abs((members[1:, 0] * members[1:, 12]).mean() - 0.25) < 5 * np.sqrt(3) / 4 / np.sqrt(NUM_PATTERNS)


def test_fewer_pairs_are_the_first_of_more() -> None:
    d = np.zeros(40)
    d[:17] = np.random.default_rng(0).normal(size=17)
    assert sampled_subsets(d)[0] == pytest.approx(sampled_subsets(d[:17])[0], abs=1e-12)
    sums, sizes = all_subsets(np.array([1.0, 10.0, 100.0]))
    assert sums.tolist() == [0, 1, 10, 11, 100, 101, 110, 111] and sizes.tolist() == [0, 1, 1, 2, 1, 2, 2, 3]


@pytest.mark.parametrize("num_pairs", [9, 200])
def test_both_at_the_cost_of_one(num_pairs: int) -> None:
    d = np.random.default_rng(1).normal(0.1, 1, num_pairs)
    assert sign_flip_test(d, 0.05) == (sign_flip_p(d), sign_flip_interval(d, 0.05))


@pytest.mark.parametrize("fault", [b"", b"zz {}", b"00000000 {}", b'%08x 1,{"kind":1}', b'%08x {"a"', b"%08x"])
def test_lines_parsed_together_are_lines_parsed_alone(fault: bytes, record_of, config_of) -> None:  # type: ignore[no-untyped-def]
    import zlib

    if b"%" in fault:  # a good checksum over what is no JSON record
        fault = fault % zlib.crc32(fault.partition(b" ")[2])
    lines = [encode(record_of(config_of(seed=seed))).strip() for seed in range(3)]
    for place in range(4):
        mixed = [*lines[:place], fault, *lines[place:]]
        assert decode_all(mixed) == [decode(line) for line in mixed]
    assert decode_all([]) == []


def test_thinned_marks_and_narrow_rows() -> None:
    assert thinned(range(150), 150) == list(range(150))
    assert thinned(range(1429), 150) == list(range(0, 1429, 10))
    assert len(thinned(range(151), 150)) == 76 and thinned([], 5) == []
    trials = pa.table({"phase": ["search", "confirm"], "a": [1, 2], "b": [None, 0.5]})
    assert rows_of(trials, ("b", "a", "b"), phase="confirm") == [{"b": 0.5, "a": 2}]
    assert rows_of(trials) == trials.to_pylist()
