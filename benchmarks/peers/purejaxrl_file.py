"""purejaxrl's DQN, its file unchanged, as a module.

Needs jax, flax, optax, chex, flashbax, distrax and gymnax < 1.
"""

import sys
import types
from pathlib import Path


def load(checkout):
    """The module of its `dqn.py`."""
    import jax

    sys.modules["wandb"] = types.ModuleType("wandb")  # imported at its top, used only online
    jax.tree_map = jax.tree.map  # since removed from JAX
    path = Path(checkout) / "purejaxrl" / "dqn.py"
    module = types.ModuleType("purejaxrl_dqn")
    sys.modules["purejaxrl_dqn"] = module
    exec(compile(path.read_text(), path, "exec"), module.__dict__)  # noqa: S102
    return module
