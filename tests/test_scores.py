"""Statistics over seeds: by hand, by all resamples there are, and by rliable's own figures."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tiny

import jaxrl_cb
from jaxrl_cb.errors import ConfigError, ConfigTypeError
from jaxrl_cb.scores import Bootstrap, improvement, interquartile_mean, last_of, profile, summarize

RLIABLE = json.loads((Path(__file__).parent / "rliable_figures.json").read_text())


def test_statistics_by_hand():
    scores = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0], [100.0]])
    found = summarize(scores, optimal=6.0)
    assert (found.num_seeds, found.num_tasks) == (8, 1)
    assert found.mean.value == 16.0
    assert found.median.value == 4.5
    assert found.iqm.value == 4.5  # of 3, 4, 5 and 6
    assert found.optimality_gap.value == pytest.approx(6 - (1 + 2 + 3 + 4 + 5 + 6 + 6 + 6) / 8)
    assert summarize(scores).optimality_gap is None


def test_the_median_is_over_tasks_and_the_middle_half_over_all():
    scores = np.array([[0.0, 10.0, 1.0], [4.0, 30.0, 1.0]])
    found = summarize(scores)
    assert found.median.value == 2.0  # of the tasks' means 2, 20 and 1
    assert found.iqm.value == np.mean([1.0, 1.0, 4.0, 10.0])  # without the lowest and the highest
    np.testing.assert_array_equal(interquartile_mean(np.arange(6.0).reshape(1, 3, 2)), [2.5])


def test_improvement_counts_ties_half_and_averages_over_tasks():
    x, y = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 0.0], [3.0, 9.0], [3.0, 9.0]])
    first = (0 + 0 + 0 + 1 + 0.5 + 0.5) / 6  # 1 and 3 against 2, 3 and 3
    second = 1 / 3  # 5 against 0, 9 and 9
    assert improvement(x, y).value == pytest.approx((first + second) / 2)
    assert improvement(y, x).value == pytest.approx(1 - (first + second) / 2)


def test_a_profile_is_the_share_above_each_threshold():
    found = profile(np.array([[1.0], [2.0], [2.0], [4.0]]), np.array([0.0, 1.0, 2.0, 4.0]))
    np.testing.assert_allclose(found.above.value, [1.0, 0.75, 0.25, 0.0])
    assert np.all(found.above.low <= found.above.value)
    assert np.all(found.above.high >= found.above.value)
    assert found.above.low[0] == found.above.high[0] == 1.0


def all_resamples(scores):
    """Every way to draw seeds anew within each task."""
    num_seeds, num_tasks = scores.shape
    picks = list(itertools.product(range(num_seeds), repeat=num_seeds))
    for choice in itertools.product(picks, repeat=num_tasks):
        yield np.stack([scores[list(own), task] for task, own in enumerate(choice)], axis=1)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_intervals_are_quantiles_of_all_resamples(confidence):
    scores = np.array([[1.0, 7.0], [2.5, 0.5], [11.0, 4.0]])
    means = [x.mean() for x in all_resamples(scores)]  # 27 x 27
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    found = summarize(scores, bootstrap=Bootstrap(confidence, 40_000)).mean
    assert found.low == pytest.approx(low, abs=0.17)  # the distance between two of the means
    assert found.high == pytest.approx(high, abs=0.17)


def test_improvements_interval_is_that_of_all_resamples():
    x, y = np.array([[1.0], [4.0], [6.0]]), np.array([[0.0], [5.0], [5.5]])
    wins = [
        np.mean([(a > b) + 0.5 * (a == b) for a in p[:, 0] for b in q[:, 0]])
        for p in all_resamples(x)
        for q in all_resamples(y)
    ]
    low, high = np.quantile(wins, [0.1, 0.9])
    found = improvement(x, y, Bootstrap(0.8, 40_000))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.12), pytest.approx(high, abs=0.12))


@pytest.mark.parametrize("case", RLIABLE["cases"], ids=lambda case: case["name"])
def test_figures_are_those_of_rliable(case):
    scores = {name: np.array(values) for name, values in case["scores"].items()}
    found = jaxrl_cb.compare(scores, optimal=case["optimal"], num_resamples=20_000)
    for name, figures in case["figures"].items():
        summary = found.summaries[name]
        for statistic, (low, value, high) in figures.items():
            own = getattr(summary, statistic)
            spread = high - low
            assert own.value == pytest.approx(value, abs=1e-9), (name, statistic)
            assert own.low == pytest.approx(low, abs=0.05 * spread), (name, statistic)
            assert own.high == pytest.approx(high, abs=0.05 * spread), (name, statistic)
    for pair, (low, value, high) in case["improvement"].items():
        own = found.improvement[tuple(pair.split(","))]
        assert own.value == pytest.approx(value, abs=1e-9)
        assert own.low == pytest.approx(low, abs=0.05 * (high - low))
        assert own.high == pytest.approx(high, abs=0.05 * (high - low))


def test_profiles_are_those_of_rliable():
    case = RLIABLE["profile"]
    found = profile(np.array(case["scores"]), np.array(case["thresholds"]), Bootstrap(0.95, 20_000))
    np.testing.assert_allclose(found.above.value, case["above"], atol=1e-9)
    np.testing.assert_allclose(found.above.low, case["low"], atol=0.02)
    np.testing.assert_allclose(found.above.high, case["high"], atol=0.02)


def test_a_seed_gives_the_same_intervals_whatever_else_is_compared():
    random = np.random.default_rng(3)
    a, b = random.normal(size=(10, 2)), random.normal(size=(6, 2))
    alone, both = jaxrl_cb.compare({"a": a}), jaxrl_cb.compare({"a": a, "b": b})
    assert alone.summaries["a"] == both.summaries["a"]
    other = jaxrl_cb.compare({"a": a}, seed=1)
    assert other.summaries["a"].mean.value == alone.summaries["a"].mean.value
    assert other.summaries["a"].mean.low != alone.summaries["a"].mean.low


def test_blocks_of_resamples_are_all_of_them(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(7, 3))
    monkeypatch.setattr("jaxrl_cb.scores.BLOCK", 50)
    parts = list(Bootstrap(0.95, 101)._samples(scores))
    assert sum(map(len, parts)) == 101
    assert max(map(len, parts)) == 2


def test_a_result_counts_with_the_last_test_of_each_seed():
    nan = np.nan
    means = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, nan], [6.0, nan, nan]])
    np.testing.assert_array_equal(last_of(means), [6.0, 5.0, 3.0])
    settings = tiny.TINY | tiny.SHORT | {"max_epochs": 1, "num_seeds": 3}
    result = jaxrl_cb.train("CartPole-v1", **settings)
    found = jaxrl_cb.compare({"dqn": result})
    assert found.summaries["dqn"].mean.value == pytest.approx(result.history[-1].mean.mean())
    assert "dqn" in str(found)
    assert found.rows()[0]["num_seeds"] == 3


@pytest.mark.parametrize(
    ("scores", "error", "words"),
    [
        ([1.0, 2.0], ConfigTypeError, "expected a dict"),
        ({}, ConfigTypeError, "expected a dict"),
        ({"a": []}, ConfigError, "shape"),
        ({"a": np.zeros((2, 2, 2))}, ConfigError, "shape"),
        ({"a": [1.0, np.nan]}, ConfigError, "NaN"),
        ({"a": ["x"]}, ConfigTypeError, "no numbers"),
        ({"a": [1.0], "b": [[1.0, 2.0]]}, ConfigError, "different numbers of tasks"),
    ],
)
def test_what_are_no_scores(scores, error, words):
    with pytest.raises(error, match=words):
        jaxrl_cb.compare(scores)


@pytest.mark.parametrize("setting", [{"confidence": 1.5}, {"num_resamples": 0}, {"seed": -1}])
def test_settings_out_of_range(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        jaxrl_cb.compare({"a": [1.0]}, **setting)
