"""A run on disk: settings, versions, metrics, policies and a picture. No pickles."""

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file, save

from jaxrl_cb.checks import check_choice
from jaxrl_cb.config import Config, check_names, load_config, resolve
from jaxrl_cb.envs import EnvSpec
from jaxrl_cb.errors import (
    CallbackTypeError,
    CallbackValueError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointWarning,
    RunFolderError,
    kind,
    shown,
)
from jaxrl_cb.files import MAX_JSON, checked_path, parse_json, read_text, reading, writing
from jaxrl_cb.run_files import Rows, locked, replace
from jaxrl_cb.trainer.policy import Policy
from jaxrl_cb.trainer.result import TrainResult
from jaxrl_cb.trainer.warm_start import abstract_params, check_shapes
from jaxrl_cb.versions import changes, versions

LOCK = ".lock"
OUTCOME = ("stopped", "diverged", "dropped", "epoch", "env_step", "best_score", "best_epoch")
"""What ``policy.json`` tells of each seed, by its name in a result."""
STARTED = {
    *(LOCK, "checkpoints", "metrics.jsonl"),
    *("config.json", "versions.json", "command.json"),
    *(".config.json.tmp", ".versions.json.tmp", ".command.json.tmp"),
}
"""All that a run may leave which is killed while it starts; the folder and the rows are empty."""


class RunFolder:
    """A run's files; it is a logger as well, of one JSON object per row in ``metrics.jsonl``.

    Attributes:
        path: the folder.
        checkpoints: the folder of its checkpoints.
    """

    def __init__(self, path: str | os.PathLike[str], resume: str = "never"):
        """Makes nothing yet.

        Args:
            path: the folder, new or empty, or that of the run to resume.
            resume: "never", "auto" or "must".

        Raises:
            RunFolderError: there is something else in the folder.
        """
        self.path = checked_path("run_dir", path)
        self.checkpoints = self.path / "checkpoints"
        self._resume = resume
        self._facts: dict[str, Any] = {}
        self._rows = Rows(self.path / "metrics.jsonl")
        self._lock: int | None = None
        self._check()

    def _check(self) -> None:
        name = shown(str(self.path))
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"run_dir={name} is not a folder; choose another name")
        check_links(self.path)
        entries = {entry.name for entry in self.path.glob("*")}
        if self._resume == "must" and "config.json" not in entries:
            raise CheckpointNotFoundError(f"run_dir={name} has no run to resume (no config.json)")
        if not entries or (LOCK in entries and self._has_only_started(entries)):
            return
        if self._resume == "never":
            raise RunFolderError(
                f"run_dir={name} is not an empty folder; choose another one, or go on with the run "
                "in it by resume='auto' (--resume auto)"
            )
        if "config.json" not in entries:
            raise RunFolderError(f"run_dir={name} is not empty and not a run's; choose another one")
        if "checkpoints" not in entries and "policy.json" in entries:
            raise RunFolderError(
                f"run_dir={name} has policies but no checkpoints to resume from; choose another one"
            )

    def _has_only_started(self, entries: set[str]) -> bool:
        rows = self.path / "metrics.jsonl"
        is_empty = not any(self.checkpoints.glob("*")) and not (
            rows.exists() and rows.stat().st_size
        )
        return entries <= STARTED and is_empty

    def open(self, env: str | None, algorithm: str, config: Config, callbacks: str) -> None:
        """Makes the folder and takes it for this process, until `close`.

        Raises:
            RunLockedError: another process has it.
            RunWriteError: it cannot be made.
        """
        settings = json.loads(json.dumps(finite(config.flat())))
        run = {"env": env, "algorithm": algorithm, "callbacks": callbacks, "settings": settings}
        self._facts = {"run": run, "versions": versions()}
        with writing("run_dir", self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = locked(self.path / LOCK)
        try:
            self._check()
        except RunFolderError:
            self.close()
            raise

    def accept(self, facts: Mapping[str, Any]) -> None:
        """Takes over from a checkpoint, given its `facts`.

        Raises:
            CheckpointMismatchError: it is of a run with other settings.
            CheckpointCorruptError: the rows of ``metrics.jsonl`` before it are not there any more.
        """
        check_same_run(facts["run"], self._facts["run"])
        self._rows.go_back(facts["metrics"])
        differences = changes(facts["versions"], self._facts["versions"])
        if differences:
            warnings.warn(
                f"the run was on another machine or version: {'; '.join(differences)}; from here "
                "on its numbers may differ from those of an uninterrupted run",
                *(CheckpointWarning, 2),
            )

    def start(self, *, is_resumed: bool) -> None:
        """Writes what the run is made of; of a resumed one, cuts the metrics back."""
        with writing("run_dir", self.path):
            self._write_json("config.json", self._facts["run"])  # first: it says what this is
            self.checkpoints.mkdir(mode=0o700, exist_ok=True)
            self._rows.start(keep=is_resumed)
            self._write_json("versions.json", self._facts["versions"])

    def facts(self) -> dict[str, Any]:
        """What belongs to a checkpoint that is written now."""
        return {**self._facts, "metrics": self._rows.facts()}

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        """Appends one row; numbers that are not finite become null."""
        if not isinstance(data, Mapping):
            raise CallbackTypeError(f"logger.write got {kind(data)} as its data; expected a dict")
        for name in {"step_type", "step"} & set(data):
            raise CallbackValueError(f"logger.write: {name!r} is the row's own name; take another")
        text = _as_json({"step_type": step_type, "step": step, **data})
        with writing("run_dir", self.path):
            self._rows.append(text + "\n")

    def save_policies(self, result: TrainResult) -> None:
        """Writes the policies, and what the run has come to."""
        with writing("run_dir", self.path):
            for which, policy in (("best", result.best_policy), ("last", result.policy)):
                flat = traverse_util.flatten_dict(policy.params, sep="/")
                arrays = {name: np.ascontiguousarray(value) for name, value in flat.items()}
                # Not `save_file`, whose error on a full disk is no OSError.
                content = save(arrays)
                name = f"policy_{which}.safetensors"
                replace(self.path / name, lambda path, own=content: path.write_bytes(own))
            scores = {name: np.atleast_1d(getattr(result, name)).tolist() for name in OUTCOME}
            spec = result.policy.spec
            data = {
                "env_spec": {name: getattr(spec, name) for name in EnvSpec.__dataclass_fields__},
                "epsilon": result.policy.epsilon.tolist(),
                **scores,
            }
            self._write_json("policy.json", data)

    def close(self) -> None:
        """Lets other processes have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write_json(self, name: str, data: Any) -> None:
        text = json.dumps(finite(data), indent=2, allow_nan=False) + "\n"
        replace(self.path / name, lambda path: path.write_text(text))


def check_links(run_dir: Path) -> None:
    """Checks that nothing in a run folder leads out of it, where it would be written over.

    Raises:
        RunFolderError: there is a symbolic link in it.
    """
    path = checked_path("run_dir", run_dir)
    links = sorted(entry.name for entry in path.glob("*") if entry.is_symlink())
    if links:
        raise RunFolderError(
            f"run_dir={shown(str(path))} holds {shown(links[0])}, a symbolic link; put the file or "
            "folder itself there, or choose another one"
        )


FREE_SETTINGS = ("max_epochs", "chunk_num_steps", "on_nan", "debug")
"""What a resumed run may change, as it changes no bit of what both versions do."""


def check_same_run(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Checks that a checkpoint is of the run that is to go on.

    Raises:
        CheckpointMismatchError: naming what differs.
    """
    pairs = [(name, then.get(name), now[name]) for name in ("env", "algorithm")]
    old, new = then["settings"], now["settings"]
    names = sorted((old.keys() | new.keys()) - set(FREE_SETTINGS))
    pairs += [(name, old.get(name), new.get(name)) for name in names]
    different = [f"{name} was {a!r} and is {b!r}" for name, a, b in pairs if a != b]
    if different:
        raise CheckpointMismatchError(
            f"it is of a run with other settings: {'; '.join(different[:5])}; give the same ones "
            f"(all but {', '.join(FREE_SETTINGS)}), or choose another run_dir"
        )


def load_policy(
    run_dir: str | os.PathLike[str], which: str = "best", seed: int | None = None
) -> Policy:
    """Loads a policy from a run folder.

    Args:
        run_dir: the folder.
        which: "best" or "last".
        seed: index of the seed; None loads all of them.

    Raises:
        RunFolderError: there is no such policy.
    """
    path = checked_path("run_dir", run_dir)
    check_choice("which", which, ("best", "last"))
    config = read_config(path)[2]
    file = _existing(path, "policy.json")
    with reading(file):
        data = parse_json(read_text(file))
        spec = EnvSpec(**{**data["env_spec"], "obs_shape": tuple(data["env_spec"]["obs_shape"])})
        algorithm, epsilon = config.build_algorithm(spec), np.float32(data["epsilon"])
        needed = abstract_params(algorithm, spec)
    file = _existing(path, f"policy_{which}.safetensors")
    with reading(file):
        params = load_file(file)
        params = traverse_util.unflatten_dict(params, sep="/")
    check_shapes(f"{shown(str(file))} does not fit its config.json", params, needed)
    policy = Policy(algorithm, spec, params, epsilon)
    return policy if seed is None else policy[seed]


def read_settings(file: Path) -> tuple[str, dict[str, Any]]:
    """The algorithm and the settings in the ``config.json`` of a run.

    Raises:
        ConfigError: it is not such a file, or holds a name that is not a setting.
    """
    with reading(file):
        text = read_text(checked_path("config", file))
    _, algorithm, settings = load_config(text, str(file))
    check_names(settings)
    return algorithm, settings


def read_config(path: Path) -> tuple[str | None, str, Config]:
    """The environment's id, the algorithm and the settings of a run."""
    file = _existing(path, "config.json")
    with reading(file):
        text = read_text(file)
    env, algorithm, settings = load_config(text, str(file))
    return env, algorithm, resolve(env, algorithm, settings)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``."""
    file = _existing(path, "metrics.jsonl")
    with reading(file), file.open() as rows:
        lines = iter(lambda: rows.readline(MAX_JSON + 1), "")
        # A killed process may leave half a row.
        return [parse_json(line) for line in lines if line[-1] == "\n" or len(line) > MAX_JSON]


def _existing(path: Path, name: str) -> Path:
    if not (path / name).is_file():
        raise RunFolderError(f"{shown(str(path))} has no {name}; it is not the folder of a run")
    return path / name


def _as_json(row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(finite(row), allow_nan=False, default=_plain)
    except CallbackTypeError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise CallbackTypeError(
            f"logger.write got data that JSON cannot hold: {error}; give names that are texts, and "
            "numbers, texts, lists or arrays"
        ) from error


def _plain(value: Any) -> Any:
    """What arrays are in JSON."""
    if isinstance(value, np.ndarray | jax.Array):
        return finite(np.asarray(value).tolist())
    raise CallbackTypeError(
        f"logger.write got {shown(value)}, {kind(value)}; expected numbers, texts, lists or arrays"
    )


def finite(value: Any) -> Any:
    """The value for JSON, where numbers that are not finite are null."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
