"""Algorithms: small frozen values with three or four pure, unbatched methods."""

from jaxrl_cb.algorithms.base import Algorithm, NetworkAlgorithm, ReplayAlgorithm
from jaxrl_cb.algorithms.c51 import C51
from jaxrl_cb.algorithms.dqn import DQN
from jaxrl_cb.algorithms.iqn import IQN
from jaxrl_cb.algorithms.pqn import PQN
from jaxrl_cb.algorithms.qr_dqn import QRDQN
from jaxrl_cb.algorithms.registry import VARIANTS, Variant, register
from jaxrl_cb.ops.munchausen import Munchausen

__all__ = [
    "C51",
    "DQN",
    "IQN",
    "PQN",
    "QRDQN",
    "VARIANTS",
    "Algorithm",
    "Munchausen",
    "NetworkAlgorithm",
    "ReplayAlgorithm",
    "Variant",
    "register",
]
