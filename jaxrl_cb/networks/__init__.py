"""Q-networks. Anything with flax's ``init(key, obs)`` and ``apply(params, obs)`` serves as one."""

from jaxrl_cb.networks.mlp import MLP
from jaxrl_cb.networks.normalized import Normalized

__all__ = ["MLP", "Normalized"]
