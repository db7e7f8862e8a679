"""Algorithms by name: what each is made of, and the settings that it has."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxrl_cb.algorithms.base import Algorithm
from jaxrl_cb.algorithms.c51 import C51
from jaxrl_cb.algorithms.dqn import DQN
from jaxrl_cb.algorithms.iqn import IQN
from jaxrl_cb.algorithms.pqn import PQN
from jaxrl_cb.algorithms.qr_dqn import QRDQN
from jaxrl_cb.checks import check_choice, check_new_name
from jaxrl_cb.ops.munchausen import Munchausen


@dataclasses.dataclass(frozen=True)
class Variant:
    """An algorithm that has a name.

    Attributes:
        build: ``build(make_network, settings) -> Algorithm``. ``make_network(num_outputs=None,
            equal_init=False, implicit=False)`` gives the network that was chosen, see
            `jaxrl_cb.networks.QNetwork`; `settings` is a `jaxrl_cb.config.AlgorithmConfig`.
        paper: where it comes from.
        settings: names in `settings` that it reads.
        defaults: settings of any kind that differ from the usual ones.
        regime: "replay" learns from a replay, with a target network; "online" from rollouts.
    """

    build: Callable[[Callable[..., Any], Any], Algorithm]
    paper: str
    settings: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    regime: str = "replay"

    def __post_init__(self):
        check_choice("regime", self.regime, REGIMES)


REGIMES = ("replay", "online")


def _dqn(make_network: Callable[..., Any], own: Any) -> Algorithm:
    return DQN(make_network(), own.double, own.loss)


def _munchausen_dqn(make_network: Callable[..., Any], own: Any) -> Algorithm:
    return DQN(make_network(), False, own.loss, _munchausen(own))


def _c51(make_network: Callable[..., Any], own: Any) -> Algorithm:
    network = make_network(num_outputs=own.num_atoms)
    return C51(network, own.num_atoms, own.v_min, own.v_max, own.double)


def _qr_dqn(make_network: Callable[..., Any], own: Any) -> Algorithm:
    network = make_network(num_outputs=own.num_quantiles, equal_init=True)
    return QRDQN(network, own.num_quantiles, own.double)


def _iqn(make_network: Callable[..., Any], own: Any) -> Algorithm:
    return IQN(make_network(implicit=True), *_fractions(own), own.double)


def _m_iqn(make_network: Callable[..., Any], own: Any) -> Algorithm:
    return IQN(make_network(implicit=True), *_fractions(own), False, _munchausen(own))


def _pqn(make_network: Callable[..., Any], own: Any) -> Algorithm:
    return PQN(make_network(), own.loss)


def _fractions(own: Any) -> tuple[int, int, int]:
    return own.num_fractions, own.num_target_fractions, own.num_acting_fractions


def _munchausen(own: Any) -> Munchausen:
    return Munchausen(own.munchausen_alpha, own.munchausen_temperature, own.munchausen_clip)


MUNCHAUSEN = ("munchausen_alpha", "munchausen_temperature", "munchausen_clip")
FRACTIONS = ("num_fractions", "num_target_fractions", "num_acting_fractions")
PLAIN: dict[str, Any] = {"double": False}
# On Acrobot-v1 none of 8 seeds confirmed -85 with LayerNorm behind noisy layers, all did without.
NOISY: dict[str, Any] = {"noisy": True, "layer_norm": False}
GREEDY: dict[str, Any] = {"epsilon_start": 0.0, "epsilon_final": 0.0}
RAINBOW: dict[str, Any] = {
    **{"double": True, "dueling": True, "n_step": 3, **NOISY, **GREEDY},
    **{"priority_alpha": 0.5, "priority_beta": 0.4, "priority_beta_final": 1.0},
}
# Clark et al. explore by noise and by epsilon. Their spectral norm and Impala network are not here.
BTR: dict[str, Any] = {
    **{"num_envs": 64, "dueling": True, "n_step": 3, **NOISY},
    **{"priority_alpha": 0.2, "priority_beta": 0.45, "priority_beta_final": 0.45},
}
ONLINE: dict[str, Any] = {
    **{"num_envs": 128, "optimizer": "radam", "learning_rate": 5e-4},
    **{"learning_rate_schedule": "linear"},
}

VARIANTS = {
    "dqn": Variant(_dqn, "Mnih et al. 2015, doi:10.1038/nature14236", ("double", "loss"), PLAIN),
    "double_dqn": Variant(
        _dqn, "van Hasselt et al. 2016, arXiv:1509.06461", ("double", "loss"), {"double": True}
    ),
    "dueling_dqn": Variant(
        _dqn,
        "Wang et al. 2016, arXiv:1511.06581",
        ("double", "loss"),
        {"double": True, "dueling": True},
    ),
    "noisy_dqn": Variant(
        _dqn, "Fortunato et al. 2018, arXiv:1706.10295", ("double", "loss"), PLAIN | NOISY | GREEDY
    ),
    "munchausen_dqn": Variant(
        _munchausen_dqn, "Vieillard et al. 2020, arXiv:2007.14430", ("loss", *MUNCHAUSEN)
    ),
    "c51": Variant(
        _c51,
        "Bellemare et al. 2017, arXiv:1707.06887",
        ("num_atoms", "v_min", "v_max", "double"),
        PLAIN,
    ),
    "qr_dqn": Variant(
        _qr_dqn, "Dabney et al. 2018, arXiv:1710.10044", ("num_quantiles", "double"), PLAIN
    ),
    "iqn": Variant(_iqn, "Dabney et al. 2018, arXiv:1806.06923", (*FRACTIONS, "double"), PLAIN),
    "m_iqn": Variant(_m_iqn, "Vieillard et al. 2020, arXiv:2007.14430", (*FRACTIONS, *MUNCHAUSEN)),
    "rainbow": Variant(
        _c51,
        "Hessel et al. 2018, arXiv:1710.02298",
        ("num_atoms", "v_min", "v_max", "double"),
        RAINBOW,
    ),
    "btr": Variant(_m_iqn, "Clark et al. 2024, arXiv:2411.03820", (*FRACTIONS, *MUNCHAUSEN), BTR),
    "pqn": Variant(
        _pqn, "Gallici et al. 2024, arXiv:2407.04811", ("loss",), ONLINE, regime="online"
    ),
}
"""By name; `register` adds to it."""


def register(name: str, variant: Variant) -> None:
    """Gives an algorithm of one's own a name, for `train`, run folders and the command line.

    A run of it is loaded by a program that has registered it.

    Args:
        name: as in ``train(env, name)``.
        variant: what it is; another one of the same name replaces it, but none of the library's.

    Raises:
        ConfigError: the name is the library's own.
    """
    check_new_name("algorithm", name, variant, isinstance(variant, Variant), "a Variant", OWN)
    VARIANTS[name] = variant


OWN = frozenset(VARIANTS)
"""Names of the library's own algorithms."""
