"""Learners: an environment, an algorithm and a way to gather experience, as pure functions."""

from jaxrl_cb.learners.base import Learner
from jaxrl_cb.learners.exploration import Exploration
from jaxrl_cb.learners.online import OnlineLearner
from jaxrl_cb.learners.online_config import OnlineConfig
from jaxrl_cb.learners.optimizer import OptimizerConfig
from jaxrl_cb.learners.replay import ReplayLearner
from jaxrl_cb.learners.replay_config import ReplayConfig, TargetConfig

__all__ = [
    "Exploration",
    "Learner",
    "OnlineConfig",
    "OnlineLearner",
    "OptimizerConfig",
    "ReplayConfig",
    "ReplayLearner",
    "TargetConfig",
]
