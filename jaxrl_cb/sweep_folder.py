"""The folder of a sweep: its plan, its table and its picture, beside a run folder of each group."""

import json
from pathlib import Path
from typing import Any

from jaxrl_cb.errors import CheckpointMismatchError, RunFolderError, shown
from jaxrl_cb.files import checked_path, parse_json, read_text, reading, writing
from jaxrl_cb.plotting import plot_trials
from jaxrl_cb.run_files import replace
from jaxrl_cb.run_folder import FREE_SETTINGS, finite
from jaxrl_cb.sweep_result import SweepResult, as_csv

PLAN, TABLE, PICTURE = "sweep.json", "trials.csv", "trials.png"


class SweepFolder:
    """A sweep's files.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Any, plan: dict[str, Any]):
        """Makes nothing yet.

        Args:
            path: the folder, new or empty, or that of the sweep to go on with.
            plan: all that the sweep is made of, for JSON.
        """
        self.path = checked_path("run_dir", path)
        self._plan = json.loads(json.dumps(finite(plan)))

    def open(self, resume: str) -> None:
        """Makes the folder, and checks that the plan in it, if any, is this one.

        Raises:
            RunFolderError: the folder cannot be used.
            CheckpointMismatchError: it is that of another sweep.
        """
        name, file = shown(str(self.path)), self.path / PLAN
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"run_dir={name} is not a folder")
        is_there = file.is_file()
        if resume == "never" and self.path.is_dir() and any(self.path.iterdir()):
            raise RunFolderError(
                f"run_dir={name} is not an empty folder; choose another one, or go on with the "
                "sweep in it by resume='auto'"
            )
        if resume == "must" and not is_there:
            raise RunFolderError(f"run_dir={name} has no sweep to resume")
        if is_there:
            then, now = (_fixed(plan) for plan in (read_plan(self.path), self._plan))
            names = [name for name in now if then.get(name) != now[name]]
            if names:
                raise CheckpointMismatchError(
                    f"run_dir={name} has a sweep that differs in {', '.join(names)}; give the same "
                    "one, or choose another folder"
                )
        with writing("run_dir", self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def start(self) -> None:
        """Writes the plan; the groups' folders are this process's, and theirs go on."""
        text = json.dumps(self._plan, indent=2) + "\n"
        with writing("run_dir", self.path):
            replace(self.path / PLAN, lambda path: path.write_text(text))

    def group(self, number: int) -> Path:
        """The run folder of a group."""
        return group_path(self.path, number)

    def keep(self, result: SweepResult) -> None:
        """Writes the table and the picture, once all seeds of a trial have begun."""
        if not result.trials:
            return
        text = as_csv(result.rows())
        with writing("run_dir", self.path):
            replace(self.path / TABLE, lambda path: path.write_text(text))
        plot_trials(
            self.path / PICTURE,
            [trial.settings for trial in result.trials],
            [result.scores(trial.index) for trial in result.trials],
            [result.is_dropped(trial.index) for trial in result.trials],
        )


def group_path(sweep_dir: Path, number: int) -> Path:
    """The run folder of a sweep's group."""
    return sweep_dir / f"group_{number}"


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (path / PLAN).is_file()


def read_plan(path: Path) -> dict[str, Any]:
    """What ``sweep.json`` says."""
    file = path / PLAN
    with reading(file):
        return parse_json(read_text(file))


def _fixed(plan: dict[str, Any]) -> dict[str, Any]:
    """What must be the same to go on with a sweep."""
    shared = {k: v for k, v in dict(plan.get("shared", {})).items() if k not in FREE_SETTINGS}
    return plan | {"shared": shared}
