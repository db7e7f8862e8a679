"""Q-networks. Anything with flax's ``init(key, obs)`` and ``apply(params, obs)`` serves as one."""

from jaxrl_cb.networks.cnn import CNN, NatureCNN
from jaxrl_cb.networks.mlp import MLP
from jaxrl_cb.networks.normalized import Normalized

NETWORKS = {"mlp": MLP, "cnn": CNN, "nature": NatureCNN}
"""By the name that settings have for them."""

__all__ = ["CNN", "MLP", "NETWORKS", "NatureCNN", "Normalized"]
