"""All settings of a run by one flat set of names, and what follows from them."""

import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import numpy as np

from jaxrl_cb.algorithms import VARIANTS, Algorithm, Variant
from jaxrl_cb.algorithms.registry import GREEDY
from jaxrl_cb.checks import Choice, Range, check_bool, check_choice, check_fields, check_int
from jaxrl_cb.envs import Environment, EnvSpec
from jaxrl_cb.errors import (
    ConfigError,
    ConfigTypeError,
    did_you_mean,
    kind,
    looks_secret,
    shown,
)
from jaxrl_cb.files import parse_json
from jaxrl_cb.learners import (
    Exploration,
    Learner,
    OnlineConfig,
    OnlineLearner,
    OptimizerConfig,
    ReplayConfig,
    ReplayLearner,
    TargetConfig,
)
from jaxrl_cb.learners.replay_config import learning_rate_for
from jaxrl_cb.networks import NETWORKS, Normalized
from jaxrl_cb.networks.registry import made
from jaxrl_cb.ops.counters import divisors
from jaxrl_cb.ops.losses import LOSSES
from jaxrl_cb.presets import PRESETS
from jaxrl_cb.trainer.params import TrainerParams

COMPUTE_DTYPES = ("float32", "bfloat16")
LEAST_IMAGE = {"cnn": 3, "nature": 36}
"""Rows and columns that convolutional networks need."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The Q-network.

    Attributes:
        network: "mlp", "cnn": a 3 x 3 convolution of 16 features before the hidden layers, or
            "nature": three convolutions for images of some 84 x 84 (Mnih et al. 2015); both for
            observations [rows, columns, channels]. `jaxrl_cb.networks.register` adds others.
        hidden_sizes: width of each hidden layer.
        layer_norm: whether LayerNorm follows each hidden layer.
        dueling: whether the head is split into value and advantage (Wang et al. 2016).
        normalize_obs: whether observations are normalised by their running mean and deviation.
        noisy: whether dense layers have learned noise, which explores in the place of epsilon
            (Fortunato et al. 2018): epsilon is 0 unless it is set, or the algorithm, as "btr", has
            both. Try it without `layer_norm`, which the paper does not have.
        compute_dtype: of the hidden layers' matrix products, "float32" or "bfloat16", which is
            meant for accelerators: on CPUs it was slower.
    """

    network: Annotated[str, Choice(NETWORKS)] = "mlp"
    hidden_sizes: tuple[int, ...] = (256, 256)
    layer_norm: bool = True
    dueling: bool = False
    normalize_obs: bool = False
    noisy: bool = False
    compute_dtype: Annotated[str, Choice(COMPUTE_DTYPES)] = "float32"

    def __post_init__(self):
        if not isinstance(self.hidden_sizes, list | tuple | np.ndarray):
            raise ConfigTypeError(
                f"hidden_sizes={shown(self.hidden_sizes)} is {kind(self.hidden_sizes)}; expected a "
                "list of ints, for example (256, 256)"
            )
        for size in self.hidden_sizes:
            check_int("hidden_sizes", size, 1)
        object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class AlgorithmConfig:
    """The algorithm's own settings.

    Attributes:
        double: whether the online network chooses the action that the target network values (van
            Hasselt et al. 2016).
        loss: "squared" or "huber", where one value per action is learned.
        munchausen_alpha: weight of Munchausen's bonus.
        munchausen_temperature: of Munchausen's policy, in units of the reward.
        munchausen_clip: least value that Munchausen's logarithm counts with.
        num_atoms: of C51.
        v_min: lowest return that C51 tells apart.
        v_max: highest return that C51 tells apart.
        num_quantiles: of QR-DQN.
        num_fractions: quantile fractions that IQN draws for the loss.
        num_target_fractions: quantile fractions that IQN draws for the target, and that it finds
            the next action by.
        num_acting_fractions: quantile fractions that IQN's action values are the mean of.
    """

    double: bool = True
    loss: Annotated[str, Choice(LOSSES)] = "squared"
    munchausen_alpha: Annotated[float, Range(0, 1)] = 0.9
    munchausen_temperature: Annotated[float, Range(0, open_low=True)] = 0.03
    munchausen_clip: Annotated[float, Range(-math.inf, 0)] = -1.0
    num_atoms: Annotated[int, Range(2)] = 51
    v_min: Annotated[float, Range(-math.inf)] = -10.0
    v_max: Annotated[float, Range(-math.inf)] = 10.0
    num_quantiles: Annotated[int, Range(1)] = 51
    num_fractions: Annotated[int, Range(1)] = 8
    num_target_fractions: Annotated[int, Range(1)] = 8
    num_acting_fractions: Annotated[int, Range(1)] = 32

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class EnvConfig:
    """The environment's own settings.

    Attributes:
        env_kwargs: parameters or constructor arguments of an environment given by its id, for
            example ``max_steps_in_episode 200``.
        env_params: parameters of it that are fractions, for example ``gravity 12.0``, kept as
            numbers in the state: a sweep tries others, and callbacks set them, with the same
            compiled program.
    """

    env_kwargs: dict[str, int | float | bool | str] = dataclasses.field(default_factory=dict)
    env_params: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        examples = {
            "env_kwargs": "{'max_steps_in_episode': 200}",
            "env_params": "{'gravity': 12.0}",
        }
        for name, example in examples.items():
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise ConfigTypeError(
                    f"{name}={shown(value)} is {kind(value)}; expected a dict, for example "
                    f"{example}"
                )
        for name in self.env_kwargs:
            if looks_secret(str(name)):
                raise ConfigError(
                    f"env_kwargs: {name!r} looks like a secret, which config.json would keep; let "
                    "the environment read it from an environment variable"
                )


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run is made of, besides the environment and the callbacks.

    Attributes:
        name: of the algorithm; the others are groups of settings.
    """

    name: str

    trainer: TrainerParams
    replay: ReplayConfig
    online: OnlineConfig
    target: TargetConfig
    optimizer: OptimizerConfig
    exploration: Exploration
    network: NetworkConfig
    algorithm: AlgorithmConfig
    env: EnvConfig

    def flat(self) -> dict[str, Any]:
        """All settings that the algorithm reads, by name."""
        read = settings_of(self.name)
        named = {name: getattr(self, group) for name, (group, _) in FIELDS.items() if name in read}
        return {name: getattr(group, name) for name, group in named.items()}

    def build_algorithm(self, spec: EnvSpec) -> Algorithm:
        """The algorithm for an environment."""
        own = self.network
        least = LEAST_IMAGE.get(own.network, 0)
        if least and (len(spec.obs_shape) != 3 or min(spec.obs_shape[:2]) < least):
            raise ConfigError(
                f"network={own.network!r} wants observations [rows, columns, channels] of {least} "
                f"rows and columns or more; those of {spec.id!r} are {list(spec.obs_shape)}; take "
                "network='mlp'"
            )

        def make_network(
            *, num_outputs: int | None = None, equal_init: bool = False, implicit: bool = False
        ) -> Any:
            network = made(
                own.network,
                num_actions=spec.num_actions,
                hidden_sizes=own.hidden_sizes,
                layer_norm=own.layer_norm,
                dueling=own.dueling,
                compute_dtype=own.compute_dtype,
                num_outputs=num_outputs,
                equal_init=equal_init,
                implicit=implicit,
                noisy=own.noisy,
            )
            return Normalized(network) if own.normalize_obs else network

        return VARIANTS[self.name].build(make_network, self.algorithm)

    def build_learner(self, environment: Environment) -> Learner:
        """The learner for an environment."""
        algorithm = self.build_algorithm(environment.spec)
        common = {"optimizer": self.optimizer, "exploration": self.exploration}
        if VARIANTS[self.name].regime == "replay":
            return ReplayLearner(environment, algorithm, self.replay, self.target, **common)
        sizes = (self.replay.num_envs, self.online, self.target.gamma)
        return OnlineLearner(environment, algorithm, *sizes, **common)


GROUPS: dict[str, Any] = {
    n: c for n, c in typing.get_type_hints(Config).items() if dataclasses.is_dataclass(c)
}
FIELDS = {f.name: (group, f) for group, c in GROUPS.items() for f in dataclasses.fields(c)}
"""By setting name: its group, and its dataclass field."""

ONLY_IN = {
    "replay": {n for n, (group, _) in FIELDS.items() if group in ("replay", "target")}
    - {"num_envs", "gamma"},
    "online": {n for n, (group, _) in FIELDS.items() if group == "online"},
}
"""Settings that one regime of learning has and no other, see `jaxrl_cb.algorithms.Variant`."""


def settings_of(algorithm: str) -> set[str]:
    """Names of all settings that an algorithm reads."""
    variant = VARIANTS[algorithm]
    others = {f.name for f in dataclasses.fields(AlgorithmConfig)} - set(variant.settings)
    for regime, names in ONLY_IN.items():
        others |= names if regime != variant.regime else set()
    return set(FIELDS) - others


OTHER_NAMES = {
    "lr": "learning_rate",
    "discount": "gamma",
    "epochs": "max_epochs",
    "total_timesteps": "max_epochs",
    "learning_starts": "start_timesteps",
    "target_update_interval": "target_update_period",
    "exploration_fraction": "epsilon_decay_steps",
}
"""What settings are called elsewhere."""


def suggestion(name: str) -> str:
    """``" (did you mean 'x'?)"`` for an unknown setting, or nothing."""
    known = OTHER_NAMES.get(name)
    return f" (did you mean {known!r}?)" if known else did_you_mean(name, FIELDS)


def check_names(named: Iterable[str]) -> None:
    """Raises ConfigError for a name that is not a setting, with the nearest one."""
    for name in named:
        if name not in FIELDS:
            hint = suggestion(name) or "; `jaxrl-cb train --help` lists them"
            raise ConfigError(f"{shown(name)} is not a setting{hint}")


def resolve(env_id: str | None, algorithm: str, named: Mapping[str, Any]) -> Config:
    """The settings of a run.

    Named settings are taken as they are. The others come from the preset of (environment,
    algorithm), or else from the algorithm's own defaults and, if it learns from a replay, from
    DQN's preset, and from defaults that follow the number of environments; those that count steps
    are brought to a multiple of it.

    Args:
        env_id: the environment's id, or None for an object (no preset).
        algorithm: a name in `jaxrl_cb.algorithms.VARIANTS`.
        named: what the user set.

    Raises:
        ConfigError: an unknown name, with the nearest; values that do not fit.
    """
    check_choice("algorithm", algorithm, VARIANTS)
    check_names(named)
    variant, env_id = VARIANTS[algorithm], env_id or ""
    check_names([*variant.defaults, *variant.settings])
    check_bool("noisy", named.get("noisy", False))
    usual = PRESETS.get((env_id, "dqn"), {}) if variant.regime == "replay" else {}
    usual = usual | _own_defaults(variant, named) | PRESETS.get((env_id, algorithm), {})
    if named.get("noisy") and not variant.defaults.get("noisy"):
        usual |= GREEDY
    _leave_out(algorithm, usual, named)
    values = {**usual, **named}
    num_envs = values.get("num_envs", ReplayConfig.num_envs)
    check_int("num_envs", num_envs, 1)
    _follow(values, named, num_envs, online=variant.regime == "online")
    groups = {
        group: config(**{name: values[name] for name in values if FIELDS[name][0] == group})
        for group, config in GROUPS.items()
    }
    return Config(name=algorithm, **groups)


def common_settings(named: Mapping[str, Any], *algorithms: str) -> dict[str, Any]:
    """Settings without those that are some algorithms' own, or that these have defaults of."""
    own = {field.name for field in dataclasses.fields(AlgorithmConfig)}
    for algorithm in algorithms:
        check_choice("algorithm", algorithm, VARIANTS)
        own |= set(VARIANTS[algorithm].defaults) | (set(FIELDS) - settings_of(algorithm))
    return {name: value for name, value in named.items() if name not in own}


def _own_defaults(variant: Variant, named: Mapping[str, Any]) -> dict[str, Any]:
    """The algorithm's defaults; without the noise that it explores by, epsilon is as usual."""
    without = GREEDY if variant.defaults.get("noisy") and not named.get("noisy", True) else {}
    return {name: value for name, value in variant.defaults.items() if name not in without}


def _leave_out(algorithm: str, usual: dict[str, Any], named: Mapping[str, Any]) -> None:
    """Leaves out of a preset what an algorithm does not read.

    Raises:
        ConfigError: the user set such a thing.
    """
    variant, read = VARIANTS[algorithm], settings_of(algorithm)
    has = [*variant.settings, *sorted(ONLY_IN["online"] & read)]
    for name in [name for name in FIELDS if name not in read]:
        usual.pop(name, None)
        if name in named:
            raise ConfigError(
                f"{name}={shown(named[name])} is no setting of {algorithm!r}, which has "
                f"{', '.join(has) or 'none of its own'}; `jaxrl-cb algorithms` lists all"
            )


def _follow(
    values: dict[str, Any], named: Mapping[str, Any], num_envs: int, *, online: bool
) -> None:
    """Adds the defaults that follow `num_envs`, and makes what was not named fit it."""
    counts = ("batch_size", "buffer_size", "start_timesteps", "epoch_num_steps", "n_step")
    for name in (*counts, "rollout_length", "num_minibatches"):
        if name in named:
            check_int(name, named[name], 0 if name == "start_timesteps" else 1)
    rollout_length = values.get("rollout_length", OnlineConfig.rollout_length) if online else 1
    if online and "num_minibatches" not in named:
        most = values.get("num_minibatches", OnlineConfig.num_minibatches)
        fitting = divisors(num_envs * rollout_length)
        values["num_minibatches"] = max(number for number in fitting if number <= most)
    buffer_size = named.get("buffer_size")
    sizes = ReplayConfig.sizes_for(num_envs, values.get("batch_size"))
    if "batch_size" not in named and buffer_size:
        sizes["batch_size"] = min(sizes["batch_size"], buffer_size)
    sizes["epoch_num_steps"] = max(10_000, 64 * num_envs)
    for name, size in sizes.items():
        values.setdefault(name, size)
    if "num_envs" in named and "buffer_size" not in named:  # a preset's was meant for fewer
        values["buffer_size"] = max(values["buffer_size"], 128 * num_envs)
    for name in ("buffer_size", "start_timesteps", "epoch_num_steps"):
        if name not in named:
            unit = num_envs * (rollout_length if name == "epoch_num_steps" else 1)
            values[name] = -(-values[name] // unit) * unit
    if "start_timesteps" not in named:
        least = (values.get("n_step", ReplayConfig.n_step) - 1) * num_envs
        most = values["buffer_size"] // num_envs * num_envs
        values["start_timesteps"] = min(max(values["start_timesteps"], least), most)
    values.setdefault("learning_rate", learning_rate_for(max(values["batch_size"], 1)))


def load_config(text: str, name: str = "config.json") -> tuple[str | None, str, dict[str, Any]]:
    """Reads a run folder's ``config.json``: the environment's id, the algorithm, the settings.

    Args:
        text: of the file.
        name: of the file, for messages.

    Raises:
        ConfigError: it is not such a file.
    """
    try:
        data = parse_json(text)
        for entry, expected in {"env": str | None, "algorithm": str, "settings": dict}.items():
            if not isinstance(data, dict) or entry not in data:
                raise ConfigError(f"it has no {entry!r}")
            if not isinstance(data[entry], expected):
                raise ConfigTypeError(f"{entry!r} is {kind(data[entry])}")
    except ConfigError as error:
        raise type(error)(
            f"{shown(name)} is not the settings of a run: {error}; take the config.json of a run "
            "folder"
        ) from error
    return data["env"], data["algorithm"], data["settings"]
