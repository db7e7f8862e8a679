"""Writes ``rliable_figures.json``, what rliable says of some scores.

    python -m venv venv && venv/bin/pip install rliable "pandas<3"
    venv/bin/python tests/rliable_figures.py

(rliable 1.2.0 cannot be imported with pandas 3.)
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rliable import library, metrics

REPEATS = 50_000
OPTIMAL = 1.0


def aggregate(scores):
    """Of scores [R, T]; the median of one task is that of its seeds."""
    median = np.median(scores) if scores.shape[1] == 1 else metrics.aggregate_median(scores)
    return np.array(
        [
            metrics.aggregate_mean(scores),
            median,
            metrics.aggregate_iqm(scores),
            metrics.aggregate_optimality_gap(scores, OPTIMAL),
        ]
    )


def case(name, scores):
    """Figures of all algorithms and of all pairs."""
    np.random.seed(0)
    values, intervals = library.get_interval_estimates(scores, aggregate, reps=REPEATS)
    names = ("mean", "median", "iqm", "optimality_gap")
    figures = {
        own: {
            statistic: [intervals[own][0, i], values[own][i], intervals[own][1, i]]
            for i, statistic in enumerate(names)
        }
        for own in scores
    }
    first, second = scores
    pair = {f"{first},{second}": (scores[first], scores[second])}
    values, intervals = library.get_interval_estimates(
        pair, metrics.probability_of_improvement, reps=2_000
    )
    improvement = {
        own: [float(intervals[own][0].item()), float(values[own]), float(intervals[own][1].item())]
        for own in pair
    }
    plain = {own: values.tolist() for own, values in scores.items()}
    return {
        "name": name,
        "scores": plain,
        "optimal": OPTIMAL,
        "figures": figures,
        "improvement": improvement,
    }


def main():
    """Writes the file beside this one."""
    random = np.random.default_rng(7)
    cases = [
        case(
            "ten seeds, five tasks",
            {
                "a": np.round(random.gamma(2.0, 0.4, size=(10, 5)), 3),
                "b": np.round(random.gamma(2.0, 0.5, size=(10, 5)), 3),
            },
        ),
        case(
            "thirty seeds, one task",
            {
                "a": np.round(random.normal(0.9, 0.3, size=(30, 1)), 3),
                "b": np.round(random.normal(0.8, 0.5, size=(30, 1)), 3),
            },
        ),
        case(
            "different numbers of seeds, ties",
            {
                "a": np.round(random.uniform(0, 2, size=(8, 3)), 1),
                "b": np.round(random.uniform(0, 2, size=(5, 3)), 1),
            },
        ),
    ]
    scores, thresholds = np.array(cases[0]["scores"]["a"]), np.linspace(0, 2, 9)
    np.random.seed(0)
    above, intervals = library.create_performance_profile(
        {"a": scores}, thresholds, reps=REPEATS // 5
    )
    content = {
        "rliable": version("rliable"),
        "cases": cases,
        "profile": {
            "scores": scores.tolist(),
            "thresholds": thresholds.tolist(),
            "above": above["a"].tolist(),
            "low": intervals["a"][0].tolist(),
            "high": intervals["a"][1].tolist(),
        },
    }
    file = Path(__file__).with_suffix(".json")
    file.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
