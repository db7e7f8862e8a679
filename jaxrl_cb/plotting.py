"""Pictures of runs. matplotlib is imported when the first is drawn."""

import json
from pathlib import Path

import numpy as np

from jaxrl_cb.errors import RunFolderError
from jaxrl_cb.run_folder import read_metrics


def plot_run(run_dir: Path) -> Path:
    """Draws ``learning_curve.png`` of a run: test return and epsilon over environment steps.

    Args:
        run_dir: a run folder.

    Returns:
        The picture's path.

    Raises:
        RunFolderError: the folder has no test yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in read_metrics(run_dir) if row["step_type"] == "test/env_step"]
    if not rows:
        raise RunFolderError(f"{str(run_dir)!r} has no test in its metrics.jsonl yet")
    config = json.loads((run_dir / "config.json").read_text())
    steps = np.array([row["step"] for row in rows])
    mean, std, eps = (
        _seeds(rows, f"{x}") for x in ("test/return_mean", "test/return_std", "train/eps")
    )
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index in range(mean.shape[1]):
        label = f"seed {config['settings']['seed'] + index}"
        axes.plot(steps, mean[:, index], marker=".", label=label, color=f"C{index % 10}")
        low, high = mean[:, index] - std[:, index], mean[:, index] + std[:, index]
        axes.fill_between(steps, low, high, alpha=0.15, color=f"C{index % 10}", linewidth=0)
    _threshold(run_dir, axes)
    axes.set(xlabel="environment steps", ylabel="test return, mean and standard deviation")
    axes.set_title(f"{config['env'] or 'custom environment'}, {config['algorithm']}")
    axes.grid(alpha=0.3)
    epsilon_axes = axes.twinx()
    epsilon_axes.plot(steps, eps[:, 0], color="0.6", linestyle="--", label="epsilon")
    epsilon_axes.set(ylabel="training epsilon", ylim=(0, 1.05))
    lines, labels = axes.get_legend_handles_labels()
    more = epsilon_axes.get_legend_handles_labels()
    if len(lines) <= 12:
        figure.legend(lines + more[0], labels + more[1], loc="outside lower center", ncols=6)
    path = run_dir / "learning_curve.png"
    figure.savefig(path)
    return path


def _threshold(run_dir: Path, axes) -> None:
    if not (run_dir / "policy.json").is_file():
        return
    threshold = json.loads((run_dir / "policy.json").read_text())["env_spec"]["reward_threshold"]
    if threshold is not None:
        axes.axhline(threshold, color="0.3", linewidth=1, linestyle=":", label="threshold")


def _seeds(rows, name: str) -> np.ndarray:
    """[records, S] values of a metric; NaN where there is none."""
    values = [np.atleast_1d(np.array(row[name], dtype=float)) for row in rows]
    return np.stack(values)
