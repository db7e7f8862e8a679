"""Networks by name, and how settings make one."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxrl_cb.checks import check_new_name
from jaxrl_cb.errors import ConfigError
from jaxrl_cb.networks.cnn import CNN, NatureCNN
from jaxrl_cb.networks.mlp import MLP

NETWORKS: dict[str, Callable[..., Any]] = {"mlp": MLP, "cnn": CNN, "nature": NatureCNN}
"""By the name that settings have for them; `register` adds to it."""

OWN = frozenset(NETWORKS)
"""Names of the library's own networks."""

USUAL = {"dueling": False, "noisy": False, "implicit": False, "num_outputs": None}
"""Arguments that a network has to take only where they are something else."""


def register(name: str, make: Callable[..., Any]) -> None:
    """Gives a network of one's own a name, for the setting `network`.

    A run of it is loaded by a program that has registered it.

    Args:
        name: as in ``train(env, network=name)``; another one of the same name replaces it.
        make: a flax module's class, or a function; called with those of ``num_actions``,
            ``hidden_sizes``, ``layer_norm``, ``dueling``, ``compute_dtype``, ``num_outputs``,
            ``equal_init``, ``implicit`` and ``noisy`` (see `QNetwork`) that it takes and no
            `functools.partial` has set.

    Raises:
        ConfigError: the name is the library's own.
    """
    check_new_name("network", name, make, callable(make), "a flax module's class", OWN)
    NETWORKS[name] = make


def made(name: str, **arguments: Any) -> Any:
    """A network by its name, given all arguments that `register` names.

    Raises:
        ConfigError: it does not take one that is needed.
    """
    make = NETWORKS[name]
    parameters = inspect.signature(make).parameters
    fixed = make.keywords if isinstance(make, functools.partial) else {}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return make(**{key: value for key, value in arguments.items() if key not in fixed})
    for argument, usual in USUAL.items():
        if argument not in parameters and arguments[argument] != usual:
            raise ConfigError(
                f"network={name!r} takes no {argument}, which the algorithm or a setting needs to "
                f"be {arguments[argument]!r}; add it, as jaxrl_cb.networks.MLP has it"
            )
    taken = parameters.keys() - fixed.keys()
    return make(**{key: value for key, value in arguments.items() if key in taken})
