"""Callback-driven Q-learning on JAX: whole epochs compiled, Python callbacks in between.

`train` trains, `load_policy` loads what a run wrote, `evaluate` tests a policy; the callbacks are
in `jaxrl_cb.trainer`. Importing this package imports neither gymnax nor matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_cb.env_check import check_environment
    from jaxrl_cb.experiment import evaluate, train
    from jaxrl_cb.run_folder import load_policy

__version__ = "0.1.0"
__all__ = ["__version__", "check_environment", "evaluate", "load_policy", "train"]

_HOMES = {
    "check_environment": "jaxrl_cb.env_check",
    "evaluate": "jaxrl_cb.experiment",
    "load_policy": "jaxrl_cb.run_folder",
    "train": "jaxrl_cb.experiment",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
