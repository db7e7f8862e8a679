"""A run on disk: settings, versions, metrics, policies and a picture. No pickles."""

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from jaxrl_cb.checks import check_choice
from jaxrl_cb.config import Config, check_names, load_config, resolve
from jaxrl_cb.envs import EnvSpec
from jaxrl_cb.errors import CallbackTypeError, CallbackValueError, RunFolderError, kind, shown
from jaxrl_cb.files import checked_path, parse_json, reading, writing
from jaxrl_cb.trainer.policy import Policy
from jaxrl_cb.trainer.result import TrainResult
from jaxrl_cb.trainer.warm_start import abstract_params, check_shapes

PACKAGES = ("jaxrl-cb", "jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")


class RunFolder:
    """Writes a run; it is a logger as well, of one JSON object per row in ``metrics.jsonl``."""

    def __init__(self, path: str | os.PathLike[str]):
        """Raises RunFolderError if there is something in the folder already."""
        self.path = checked_path("run_dir", path)
        with writing("run_dir", self.path):
            is_new = not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
        if not is_new:
            raise RunFolderError(
                f"run_dir={shown(str(path))} is not an empty folder; choose another one"
            )

    def start(self, env: str | None, algorithm: str, config: Config, callbacks: str) -> None:
        """Makes the folder and writes what the run is made of."""
        with writing("run_dir", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        settings = config.flat()
        data = {"env": env, "algorithm": algorithm, "callbacks": callbacks, "settings": settings}
        self._write_json("config.json", data)
        self._write_json("versions.json", versions())

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        """Appends one row; numbers that are not finite become null."""
        if not isinstance(data, Mapping):
            raise CallbackTypeError(f"logger.write got {kind(data)} as its data; expected a dict")
        for name in {"step_type", "step"} & set(data):
            raise CallbackValueError(f"logger.write: {name!r} is the row's own name; take another")
        row = {"step_type": step_type, "step": step, **data}
        with (self.path / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps(_finite(row), allow_nan=False, default=_plain) + "\n")

    def finish(self, result: TrainResult) -> None:
        """Writes the policies."""
        for which, policy in (("best", result.best_policy), ("last", result.policy)):
            flat = traverse_util.flatten_dict(policy.params, sep="/")
            arrays = {name: np.ascontiguousarray(value) for name, value in flat.items()}
            save_file(arrays, self.path / f"policy_{which}.safetensors")
        scores = {
            name: np.atleast_1d(getattr(result, name)).tolist()
            for name in ("stopped", "epoch", "env_step", "best_score", "best_epoch")
        }
        spec = result.policy.spec
        data = {
            "env_spec": {name: getattr(spec, name) for name in EnvSpec.__dataclass_fields__},
            "epsilon": result.policy.epsilon.tolist(),
            **scores,
        }
        self._write_json("policy.json", data)

    def _write_json(self, name: str, data: Any) -> None:
        text = json.dumps(_finite(data), indent=2, allow_nan=False)
        with writing("run_dir", self.path):
            (self.path / name).write_text(text + "\n")


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
        data = parse_json(file.read_text())
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


def read_settings(file: Path) -> dict[str, Any]:
    """The settings in the ``config.json`` of a run.

    Raises:
        ConfigError: it is not such a file, or holds a name that is not a setting.
    """
    with reading(file):
        text = checked_path("config", file).read_text()
    settings = load_config(text, str(file))[2]
    check_names(settings)
    return settings


def read_config(path: Path) -> tuple[str | None, str, Config]:
    """The environment's id, the algorithm and the settings of a run."""
    file = _existing(path, "config.json")
    with reading(file):
        text = file.read_text()
    env, algorithm, settings = load_config(text, str(file))
    return env, algorithm, resolve(env, algorithm, settings)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``."""
    file = _existing(path, "metrics.jsonl")
    with reading(file):
        return [parse_json(line) for line in file.read_text().splitlines()]


def _existing(path: Path, name: str) -> Path:
    if not (path / name).is_file():
        raise RunFolderError(f"{shown(str(path))} has no {name}; it is not the folder of a run")
    return path / name


def versions() -> dict[str, Any]:
    """Versions and machine, as far as they bear on a run's numbers."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": {"platform": device.platform, "kind": device.device_kind},
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
    }


def _plain(value: Any) -> Any:
    """What arrays are in JSON."""
    if isinstance(value, np.ndarray | jax.Array):
        return _finite(np.asarray(value).tolist())
    raise CallbackTypeError(
        f"logger.write got {shown(value)}, {kind(value)}; expected numbers, texts, lists or arrays"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
