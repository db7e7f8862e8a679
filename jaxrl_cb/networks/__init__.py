"""Q-networks. Anything with flax's ``init(key, obs)`` and ``apply(params, obs)`` serves as one."""

from jaxrl_cb.networks.cnn import CNN, NatureCNN
from jaxrl_cb.networks.mlp import MLP, QNetwork
from jaxrl_cb.networks.normalized import Normalized
from jaxrl_cb.networks.registry import NETWORKS, register

__all__ = ["CNN", "MLP", "NETWORKS", "NatureCNN", "Normalized", "QNetwork", "register"]
