"""The trainer, its context and its callbacks."""

from jaxrl_cb.trainer.callbacks import (
    Callback,
    EpochStopCallback,
    EpochStopCallbackFunction,
    EpochTestCallback,
    EpochTestCallbackFunction,
    EpochTrainCallback,
    EpochTrainCallbackFunction,
    TrainerCallbacks,
)
from jaxrl_cb.trainer.context import Environments, TrainingContext
from jaxrl_cb.trainer.dqn_callbacks import (
    EpochTestCallbackDQNSetEps,
    EpochTrainCallbackDQNEpsLinearDecay,
    EpochTrainCallbackDQNSetEps,
)
from jaxrl_cb.trainer.env_callbacks import (
    EpochTestCallbackSetEnvParams,
    EpochTrainCallbackCurriculum,
)
from jaxrl_cb.trainer.history import EpochRecord
from jaxrl_cb.trainer.loggers import Logger, LoggerList, MemoryLogger, NullLogger
from jaxrl_cb.trainer.memory import MemoryEstimate
from jaxrl_cb.trainer.params import TrainerParams
from jaxrl_cb.trainer.policy import Policy, TrainingPolicy
from jaxrl_cb.trainer.population import Population
from jaxrl_cb.trainer.population_callbacks import (
    EpochTrainCallbackPopulationBasedTraining,
    EpochTrainCallbackSuccessiveHalving,
)
from jaxrl_cb.trainer.result import TrainResult
from jaxrl_cb.trainer.schedule_callbacks import (
    EpochTrainCallbackDQNEpsExponentialDecay,
    EpochTrainCallbackDQNEpsPiecewise,
    EpochTrainCallbackLearningRateDecay,
)
from jaxrl_cb.trainer.stop_callbacks import (
    EpochStopCallbackConfirmedRewardThreshold,
    EpochStopCallbackNoImprovement,
    EpochStopCallbackRewardThreshold,
    EpochStopCallbackWallTime,
)
from jaxrl_cb.trainer.trainer import Snapshot, Trainer

__all__ = [
    "Callback",
    "Environments",
    "EpochRecord",
    "EpochStopCallback",
    "EpochStopCallbackConfirmedRewardThreshold",
    "EpochStopCallbackFunction",
    "EpochStopCallbackNoImprovement",
    "EpochStopCallbackRewardThreshold",
    "EpochStopCallbackWallTime",
    "EpochTestCallback",
    "EpochTestCallbackDQNSetEps",
    "EpochTestCallbackFunction",
    "EpochTestCallbackSetEnvParams",
    "EpochTrainCallback",
    "EpochTrainCallbackCurriculum",
    "EpochTrainCallbackDQNEpsExponentialDecay",
    "EpochTrainCallbackDQNEpsLinearDecay",
    "EpochTrainCallbackDQNEpsPiecewise",
    "EpochTrainCallbackDQNSetEps",
    "EpochTrainCallbackFunction",
    "EpochTrainCallbackLearningRateDecay",
    "EpochTrainCallbackPopulationBasedTraining",
    "EpochTrainCallbackSuccessiveHalving",
    "Logger",
    "LoggerList",
    "MemoryEstimate",
    "MemoryLogger",
    "NullLogger",
    "Policy",
    "Population",
    "Snapshot",
    "TrainResult",
    "Trainer",
    "TrainerCallbacks",
    "TrainerParams",
    "TrainingContext",
    "TrainingPolicy",
]
