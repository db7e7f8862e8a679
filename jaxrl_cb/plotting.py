"""Pictures of runs. matplotlib is imported when the first is drawn."""

import importlib
import io
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl_cb.errors import ConfigError, ConfigTypeError, RunFolderError, shown
from jaxrl_cb.files import checked_output, checked_path, parse_json, read_text, reading, writing
from jaxrl_cb.run_folder import check_links, read_config, read_metrics
from jaxrl_cb.trainer.history import EpochRecord

MOST_SEEDS = 12
"""That have a line each in the picture of a run."""


class Curve(NamedTuple):
    """The tests of a run: T of S seeds."""

    name: str
    env: str
    steps: np.ndarray  # [T] environment steps of a seed
    mean: np.ndarray  # [T, S] mean test return; NaN once a seed has stopped
    std: np.ndarray  # [T, S] standard deviation over the episodes of a test
    eps: np.ndarray  # [T, S] training epsilon
    threshold: float | None


def read_curve(run_dir: Path) -> Curve:
    """Reads what a run folder has so far.

    Raises:
        RunFolderError: there is no test yet.
    """
    run_dir = checked_path("run_dir", run_dir)
    all_rows = read_metrics(run_dir)
    names = ("test/return_mean", "test/return_std", "train/eps")
    with reading(run_dir / "metrics.jsonl"):
        rows = [row for row in all_rows if row["step_type"] == "test/env_step"]
        steps = np.array([row["step"] for row in rows], float)
        mean, std, eps = (_stacked(rows, name) for name in names)
    if not rows:
        raise RunFolderError(
            f"{shown(str(run_dir))} has no test in its metrics.jsonl yet; wait for its first epoch"
        )
    env = read_config(run_dir)[0] or "custom environment"
    threshold = None
    if (run_dir / "policy.json").is_file():
        with reading(run_dir / "policy.json"):
            spec = parse_json(read_text(run_dir / "policy.json"))["env_spec"]
            threshold = spec["reward_threshold"]
    return Curve(run_dir.resolve().name, env, steps, mean, std, eps, threshold)


def _stacked(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """[T, S] one of the numbers of each row; None is NaN."""
    values = [np.atleast_1d(np.array(row[name], float)) for row in rows]
    return np.stack(values) if values else np.zeros((0, 1))


def plot_run(run_dir: Path) -> Path:
    """Draws ``learning_curve.png`` of a run: test return and epsilon over environment steps.

    Args:
        run_dir: a run folder.

    Returns:
        The picture's path.

    Raises:
        RunFolderError: the folder has no test yet.
    """
    run_dir = checked_path("run_dir", run_dir)
    check_links(run_dir)
    curve = read_curve(run_dir)
    _, algorithm, config = read_config(run_dir)
    figure = new_figure(8)
    axes = figure.add_subplot()
    num_seeds = curve.mean.shape[1]
    if num_seeds > MOST_SEEDS:
        _seeds_as_bands(axes, curve)
    else:
        _each_seed(axes, curve, config.trainer.seed)
    axes.set_title(f"{curve.env}, {algorithm}" + (f", {num_seeds} seeds" * (num_seeds > 1)))
    epsilon_axes = axes.twinx()
    own = [row[~np.isnan(row)] for row in curve.eps]  # of the seeds that still run
    eps = [np.median(row) if len(row) else np.nan for row in own]
    epsilon_axes.plot(curve.steps, eps, color="0.6", linestyle="--", label="epsilon")
    ylabel = "training epsilon"
    if num_seeds > MOST_SEEDS:
        ylabel = "training epsilon, share of seeds that run"
        share = (~np.isnan(curve.mean)).mean(axis=1)
        epsilon_axes.step(curve.steps, share, where="mid", color="C3", linewidth=1, label="running")
    epsilon_axes.set(ylabel=ylabel, ylim=(0, 1.05))
    lines, labels = axes.get_legend_handles_labels()
    more = epsilon_axes.get_legend_handles_labels()
    figure.legend(lines + more[0], labels + more[1], loc="outside lower center", ncols=6)
    path = run_dir / "learning_curve.png"
    with writing("run_dir", run_dir):
        figure.savefig(path)
    return path


def _each_seed(axes: Any, curve: Curve, first_seed: int) -> None:
    for index in range(curve.mean.shape[1]):
        label, color = f"seed {first_seed + index}", f"C{index % 10}"
        mean, std = curve.mean[:, index], curve.std[:, index]
        axes.plot(curve.steps, mean, marker=".", label=label, color=color)
        axes.fill_between(curve.steps, mean - std, mean + std, alpha=0.15, color=color, linewidth=0)
    _decorate(axes, curve, "test return, mean and standard deviation")


def _seeds_as_bands(axes: Any, curve: Curve) -> None:
    """The median over seeds and between which returns half, and 90 %, of them lie."""
    filled = _filled(curve.mean)
    low, lower, median, upper, high = np.nanquantile(filled, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
    axes.fill_between(curve.steps, low, high, color="C0", alpha=0.15, lw=0, label="90 % of seeds")
    axes.fill_between(curve.steps, lower, upper, color="C0", alpha=0.3, lw=0, label="half of seeds")
    axes.plot(curve.steps, median, color="C0", marker=".", label="median")
    _decorate(axes, curve, "test return, over seeds")


def plot_trials(
    path: Path,
    settings: Sequence[Mapping[str, Any]],
    scores: Sequence[np.ndarray],
    dropped: Sequence[bool],
) -> None:
    """Draws the scores of trials over each setting that differs between them.

    Args:
        path: of the picture.
        settings: of each trial.
        scores: of each trial's seeds.
        dropped: whether a callback dropped the trial.
    """
    names = [name for name in settings[0] if len({str(own[name]) for own in settings}) > 1]
    columns = min(len(names) or 1, 4)
    rows = -(-(len(names) or 1) // columns)
    figure = new_figure(4 * columns + 1, 3.5 * rows + 0.5)
    means = np.array([float(np.mean(own)) for own in scores])
    order = sorted(
        range(len(means)), key=lambda t: (not dropped[t], np.nan_to_num(means[t], nan=-np.inf))
    )
    for number, name in enumerate(names or ["trial"], start=1):
        axes = figure.add_subplot(rows, columns, number)
        values = [own.get(name, index) for index, own in enumerate(settings)]
        places = _places(axes, values)
        for trial in order:  # the best ones come last, on top
            color = "0.6" if dropped[trial] else "C0"
            own = np.full(len(scores[trial]), places[trial])
            axes.plot(own, scores[trial], ".", color=color, alpha=0.35, markersize=5)
            axes.plot(places[trial], means[trial], "_", color=color, markersize=14)
        axes.plot(places[order[-1]], means[order[-1]], "*", color="C3", markersize=11)
        axes.set(xlabel=name, ylabel="last test" if number % columns == 1 or columns == 1 else "")
        axes.grid(alpha=0.3)
    figure.suptitle(
        "a dot is a seed, a bar a trial's mean,\nthe star the best"
        + (", grey was dropped" if any(dropped) else ""),
        fontsize="medium",
    )
    with writing("run_dir", path.parent):
        figure.savefig(path)


def _places(axes: Any, values: Sequence[Any]) -> list[float]:
    """Where values lie on the horizontal axis; what is no number is put side by side."""
    if all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values):
        if min(values) > 0 and max(values) / min(values) >= 20:
            axes.set_xscale("log")
        few = sorted(set(values))
        if len(few) <= 5:
            axes.set_xticks(few, [f"{value:g}" for value in few], minor=False)
            axes.minorticks_off()
        return [float(value) for value in values]
    names = list(dict.fromkeys(str(value) for value in values))
    axes.set_xticks(range(len(names)), names)
    if max(map(len, names)) * len(names) > 24:
        axes.tick_params(axis="x", labelrotation=30)
    return [float(names.index(str(value))) for value in values]


def plot_comparison(run_dirs: Sequence[Path], path: Path) -> Path:
    """Draws several runs together, the mean over seeds of each with its 95 % interval.

    A seed that stopped counts with its last test from then on. The interval is the percentile
    bootstrap of the mean over seeds; one seed has none. Runs of different environments
    get a panel each.

    Args:
        run_dirs: run folders.
        path: of the picture.

    Returns:
        `path`.
    """
    if not isinstance(run_dirs, list | tuple) or not run_dirs:
        raise ConfigTypeError(f"run_dirs={shown(run_dirs)}; expected a list of run folders")
    path = _checked_picture(path)
    curves = [read_curve(run_dir) for run_dir in run_dirs]
    envs = list(dict.fromkeys(curve.env for curve in curves))
    figure = new_figure(7 * len(envs))
    for column, env in enumerate(envs, start=1):
        axes = figure.add_subplot(1, len(envs), column)
        comparison_axes(axes, [curve for curve in curves if curve.env == env])
        axes.set_title(env)
    with writing("output", path):
        figure.savefig(path)
    return path


def comparison_axes(axes: Any, curves: Sequence[Curve]) -> None:
    """Draws runs of one environment into matplotlib axes, as `plot_comparison` does."""
    for index, curve in enumerate(curves):
        low, mean, high = interval_over_seeds(curve.mean)
        color, num_seeds = f"C{index % 10}", curve.mean.shape[1]
        label = f"{curve.name} ({num_seeds} seed{'s' * (num_seeds > 1)})"
        axes.plot(curve.steps, mean, marker=".", label=label, color=color)
        axes.fill_between(curve.steps, low, high, alpha=0.2, color=color, linewidth=0)
    _decorate(axes, curves[0], "test return, mean over seeds and 95 % interval")
    axes.legend(loc="best", fontsize="small")


def _checked_picture(path: Any) -> Path:
    from matplotlib.backend_bases import FigureCanvasBase

    path, known = checked_output(path), FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ConfigError(
            f"output={shown(str(path))} is no picture that can be written; end it in .png, .pdf or "
            ".svg"
        )
    return path


def interval_over_seeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds and the ends of its 95 % bootstrap interval.

    Args:
        values: [T, S]; NaN from a seed's stop on, where its last value is taken.

    Returns:
        (low, mean, high), each [T].
    """
    filled = _filled(values)
    num_seeds = filled.shape[1]
    picks = np.random.default_rng(0).integers(num_seeds, size=(2000, num_seeds))
    means = filled[:, picks].mean(axis=2)  # [T, 2000]
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    return low, filled.mean(axis=1), high


def _filled(values: np.ndarray) -> np.ndarray:
    """[T, S] with the last value of each seed from its stop on, where it is NaN."""
    filled = values.copy()
    for t in range(1, len(filled)):
        filled[t] = np.where(np.isnan(filled[t]), filled[t - 1], filled[t])
    return filled


class LivePlot:
    """A learning curve in a notebook that grows by a point per epoch.

    Pass ``LivePlot()`` as ``on_epoch`` of `jaxrl_cb.train`.
    """

    def __init__(self):
        self.steps: list[int] = []
        self.means: list[np.ndarray] = []
        self._handle: Any = None

    def __call__(self, record: EpochRecord) -> None:
        """Draws the curve with one more test."""
        ipython = importlib.import_module("IPython.display")
        self.steps.append(record.env_step)
        self.means.append(record.mean)
        png = io.BytesIO()
        self.figure().savefig(png, format="png")
        picture = ipython.Image(data=png.getvalue())
        if self._handle is None:
            self._handle = ipython.display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def figure(self) -> Any:
        """The curve so far, as a matplotlib figure."""
        figure = new_figure(6)
        axes = figure.add_subplot()
        axes.plot(self.steps, np.stack(self.means), marker=".")
        axes.set(xlabel="environment steps", ylabel="test return, mean of each seed")
        axes.grid(alpha=0.3)
        return figure


def new_figure(width: float, height: float = 4.5) -> Any:
    """An empty matplotlib figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _decorate(axes: Any, curve: Curve, ylabel: str) -> None:
    if curve.threshold is not None:
        axes.axhline(curve.threshold, color="0.3", linewidth=1, linestyle=":", label="threshold")
    axes.set(xlabel="environment steps", ylabel=ylabel)
    axes.grid(alpha=0.3)
