"""Callback-driven Q-learning on JAX: whole epochs compiled, Python callbacks in between.

`train` trains, `load_policy` loads what a run wrote, `evaluate` tests a policy, `compare` gives the
statistics of scores over seeds; the callbacks are in `jaxrl_cb.trainer`. Importing this package
imports neither gymnax nor matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_cb.env_check import check_environment
    from jaxrl_cb.experiment import evaluate, train
    from jaxrl_cb.run_folder import load_policy
    from jaxrl_cb.scores import compare
    from jaxrl_cb.space import log_uniform, uniform
    from jaxrl_cb.sweeps import sweep

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "check_environment",
    "compare",
    "evaluate",
    "load_policy",
    "log_uniform",
    "sweep",
    "train",
    "uniform",
]

_HOMES = {
    "check_environment": "jaxrl_cb.env_check",
    "compare": "jaxrl_cb.scores",
    "evaluate": "jaxrl_cb.experiment",
    "load_policy": "jaxrl_cb.run_folder",
    "log_uniform": "jaxrl_cb.space",
    "sweep": "jaxrl_cb.sweeps",
    "train": "jaxrl_cb.experiment",
    "uniform": "jaxrl_cb.space",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
