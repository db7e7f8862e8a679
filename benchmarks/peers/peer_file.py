"""A peer's file, unchanged, as a module: those that are not on PyPI are given as a path."""

import sys
import types
from pathlib import Path


class _NotUsed(types.ModuleType):
    """Whatever it is asked for can be called, and is a decorator that changes nothing."""

    def __getattr__(self, name):
        return lambda *_, **__: lambda function: function


def load(path, *not_used):
    """The module of a file.

    Args:
        path: of the file.
        not_used: modules that it imports at its top and that what is measured does not use.
    """
    import jax

    for name in not_used:
        sys.modules[name] = _NotUsed(name)
    jax.tree_map = jax.tree.map  # since removed from JAX
    path = Path(path)
    module = types.ModuleType(f"peer_{path.stem}")
    sys.modules[module.__name__] = module
    exec(compile(path.read_text(), path, "exec"), module.__dict__)  # noqa: S102
    return module


def purejaxrl(checkout):
    """The module of purejaxrl's DQN; needs jax, flax, optax, chex, flashbax and gymnax < 1."""
    return load(Path(checkout) / "purejaxrl" / "dqn.py", "wandb")
