"""What the command line shows while a run goes on, and after it."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from jaxrl_cb.scores import last_of
from jaxrl_cb.trainer import EpochRecord, Trainer, TrainResult

if TYPE_CHECKING:
    from jaxrl_cb.sweep_result import SweepResult


MOST_SEEDS = 20
"""That have a row each in the table after a run."""


class Display:
    """A live progress bar; on something that is not a terminal, a line per epoch."""

    def __init__(self):
        self.console = Console()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=6),  # the line has to fit 80 columns
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            transient=True,
        )
        self._task: Any = None
        self._best = -np.inf
        self._first_seed = 0

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.progress.start()
        self._task = self.progress.add_task("starting", total=None, text="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.progress.stop()

    def on_start(self, trainer: Trainer) -> None:
        """Learns how long the run may be."""
        self._first_seed = trainer.params.seed
        self._best = float(np.max(trainer.context.best_score))
        self.progress.update(
            self._task, description="compiling", total=trainer.params.max_epochs or 1
        )

    def on_epoch(self, record: EpochRecord) -> None:
        """Shows a test record."""
        self._best = max([self._best, *record.mean[~np.isnan(record.mean)].tolist()])
        text = progress_text(record, self._best)
        self.progress.update(
            self._task, description=f"epoch {record.epoch}", completed=record.epoch, text=text
        )
        if not self.console.is_terminal:
            self.console.print(f"epoch {record.epoch}: {text}", highlight=False, soft_wrap=True)

    def summary(self, result: TrainResult, run_dir: Path) -> None:
        """Prints the table of results and where things are."""
        ended = endings(result)
        many = len(ended) > MOST_SEEDS
        self.console.print(_ends_of(result) if many else _table_of(result, self._first_seed))
        left = ended.count(BUDGET)
        if left and any(result.callbacks):
            self.console.print(
                f"{left} of {len(ended)} did not reach the stop within the budget; "
                "--max-epochs gives more",
                highlight=False,
            )
        seconds = ", ".join(f"{name} {value:.1f} s" for name, value in result.seconds.items())
        self.console.print(seconds, highlight=False)
        self.console.print(f"run folder: {run_dir}", highlight=False, soft_wrap=True)


def _table_of(result: TrainResult, first_seed: int) -> Table:
    """A row for each seed."""
    table = Table(title=result.policy.spec.id)
    for column in ("seed", "ended", "epochs", "environment steps", "best test", "last test"):
        table.add_column(column, justify="right")
    facts = _facts(result)
    for index, ended in enumerate(endings(result)):
        epoch, env_step, best, last = (values[index] for values in facts)
        numbers = (str(epoch), f"{env_step:,}", f"{best:.1f}", f"{last:.1f}")
        table.add_row(str(first_seed + index), ended, *numbers)
    return table


def _ends_of(result: TrainResult) -> Table:
    """A row for each way in which seeds ended: how many, and medians with ranges."""
    ended, facts = np.array(endings(result)), _facts(result)
    table = Table(title=f"{result.policy.spec.id}, {len(ended)} seeds: median (least to most)")
    for column in ("ended", "seeds", "epochs", "steps", "best test", "last test"):
        table.add_column(column, justify="right")
    for how in dict.fromkeys(ended.tolist()):
        cells = []
        for values, form in zip(
            facts, (_short, _short, "{:.1f}".format, "{:.1f}".format), strict=True
        ):
            own = values[ended == how]
            spread = [form(value) for value in (np.median(own), own.min(), own.max())]
            cells.append("{} ({} to {})".format(*spread))
        table.add_row(how, str((ended == how).sum()), *cells)
    return table


def _facts(result: TrainResult) -> tuple[np.ndarray, ...]:
    """Of each seed its epochs, environment steps, best and last test."""
    named = (result.epoch, result.env_step, result.best_score)
    last = last_of(np.stack([record.mean for record in result.history]))
    return *(np.atleast_1d(own) for own in named), last


def sweep_table(result: "SweepResult", run_dir: Path, most: int = 20) -> None:
    """Prints the best trials of a sweep and where things are."""
    console = Console()
    table = Table(title=f"{len(result.trials)} trials of {result.num_seeds} seeds")
    settings_of = {trial.index: trial.settings for trial in result.trials}
    names = list(result.best.settings)
    for column in ("trial", *names, "last test, mean", "95 % interval", "ended"):
        table.add_column(column, justify="right", no_wrap=column.startswith("95"))
    rows = result.rows()
    for index in result.ranking[:most]:
        settings = settings_of[index]
        low, mean, high = result.interval(index)
        ended = Counter(row["ended"] for row in rows if row["trial"] == index)
        table.add_row(
            str(index),
            *(
                f"{value:.4g}" if isinstance(value, float) else str(value)
                for value in settings.values()
            ),
            f"{mean:.1f}",
            f"{low:.1f} to {high:.1f}" if result.num_seeds > 1 else "",
            ", ".join(f"{count} {how}" for how, count in ended.items()),
        )
    console.print(table)
    if len(result.trials) > most:
        console.print(f"and {len(result.trials) - most} more in trials.csv", highlight=False)
    console.print(f"sweep folder: {run_dir}", highlight=False, soft_wrap=True)


BUDGET = "budget used"


def endings(result: TrainResult) -> list[str]:
    """How each seed ended."""
    flags = [np.atleast_1d(getattr(result, name)) for name in ("stopped", "diverged", "dropped")]
    names = ("stopped", "diverged", "dropped")
    return [
        next((name for name, flag in zip(names, own, strict=True) if flag), BUDGET)
        for own in zip(*flags, strict=True)
    ]


def progress_line(record: EpochRecord) -> str:
    """An epoch in one line, for a run without a display."""
    return f"epoch {record.epoch}: {progress_text(record)}"


def progress_text(record: EpochRecord, best: float | None = None) -> str:
    """What a test found, in at most 53 characters for one seed."""
    mean = record.mean[~np.isnan(record.mean)]
    steps = f"{_short(record.env_step)} steps"
    if not len(mean):
        return f"{steps}, no test: NaN or infinity ended the run"
    if len(record.mean) > 1:
        text = f"{len(mean)}/{len(record.mean)} seeds, {steps}, median test {np.median(mean):.1f}"
        return text if best is None else f"{text}, best {best:.1f}"
    text = f"{steps}, test {mean[0]:.1f}" + (f", best {best:.1f}" if best is not None else "")
    text += f", eps {record.eps_training[0]:.2f}"
    if not record.train_seconds:
        return text
    rate = record.env_step / max(record.epoch, 1) / record.train_seconds
    return f"{text}, {_short(rate)}/s"


def _short(number: float) -> str:
    """At most six characters: 9,600 or 96.0k or 1.28M."""
    if number < 10_000:
        return f"{number:,.0f}"
    return f"{number / 1e3:.1f}k" if number < 1e6 else f"{number / 1e6:.2f}M"
