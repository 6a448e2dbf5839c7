from __future__ import annotations

import json
import math

import numpy as np
import pytest

from valle.eval.stats import estimate, estimate_difference


def test_mean_and_interval_of_a_known_distribution() -> None:
    result = estimate([0.0, 1.0] * 200)
    assert result.value == 0.5
    half_width = 1.96 * 0.5 / math.sqrt(400)
    assert result.low == pytest.approx(0.5 - half_width, abs=0.006)
    assert result.high == pytest.approx(0.5 + half_width, abs=0.006)


def test_rate_weighs_by_length() -> None:
    result = estimate([1, 9], weights=[1, 99])
    assert result.value == pytest.approx(0.1)  # not (1 + 9/99) / 2
    assert (result.low, result.high) == pytest.approx((9 / 99, 1.0))  # drawing one of the two twice


def test_interval_covers_the_truth_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(0)
    results = [estimate(list(rng.normal(3, 1, size=50))) for _ in range(200)]
    covered = np.mean([r.low <= 3 <= r.high for r in results])
    assert 0.90 <= covered <= 0.98


def test_the_seed_decides() -> None:
    values = list(np.random.default_rng(1).normal(size=30))
    assert estimate(values, seed=4) == estimate(values, seed=4)
    assert estimate(values, seed=4).low != estimate(values, seed=5).low


def test_unmeasured_utterances_are_left_out_and_counted() -> None:
    result = estimate([1.0, None, 1.0], weights=[1, 1000, 1])
    assert (result.value, result.n, result.excluded) == (1.0, 2, 1)
    assert "(2 of 3)" in str(result)


def test_too_few_utterances_have_no_interval() -> None:
    one, none = estimate([0.25]), estimate([None])
    assert one.value == 0.25
    assert math.isnan(one.low)
    assert math.isnan(none.value)
    assert json.loads(json.dumps(none.to_dict(), allow_nan=False))["value"] is None
    assert str(none) == "not measured"


def test_pairing_removes_what_the_systems_share() -> None:
    hard = np.random.default_rng(2).normal(0, 5, size=40)
    difference = estimate_difference(list(hard + 0.1), list(hard))
    assert difference.value == pytest.approx(0.1)
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))


def test_a_pair_without_one_score_is_left_out() -> None:
    assert estimate_difference([1.0, None, 3.0], [0.0, 0.0, None]).n == 1
    with pytest.raises(ValueError, match="same utterances"):
        estimate_difference([1.0], [1.0, 2.0])
