"""The callback contract, with stand-ins for the policy, the environments and the logger."""

import copy
import inspect
import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_cb.highlevel.trainer
import jaxrl_cb.trainer
from jaxrl_cb.errors import JaxrlError
from jaxrl_cb.trainer import (
    EpochStopCallback,
    EpochStopCallbackConfirmedRewardThreshold,
    EpochStopCallbackNoImprovement,
    EpochStopCallbackRewardThreshold,
    EpochStopCallbackWallTime,
    EpochTestCallback,
    EpochTestCallbackDQNSetEps,
    EpochTrainCallback,
    EpochTrainCallbackDQNEpsExponentialDecay,
    EpochTrainCallbackDQNEpsLinearDecay,
    EpochTrainCallbackDQNEpsPiecewise,
    EpochTrainCallbackDQNSetEps,
    EpochTrainCallbackLearningRateDecay,
    TrainerCallbacks,
    TrainingContext,
)
from jaxrl_cb.trainer.hooks import Hooks


class StandInPolicy:
    """Takes any ``set_*`` and keeps what it was called with, in order."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if not name.startswith("set_"):
            raise AttributeError(name)
        return lambda *arguments: self.calls.append((name, *arguments))


class StandInLogger:
    def __init__(self):
        self.rows = []

    def write(self, step_type, step, data):
        self.rows.append((step_type, step, data))


def stand_in_envs(threshold=None, env_id="Toy-v0"):
    spec = SimpleNamespace(id=env_id, reward_threshold=threshold)
    return SimpleNamespace(env=SimpleNamespace(spec=spec))


@pytest.fixture
def context():
    """Nothing but Tianshou's three attributes."""
    return SimpleNamespace(policy=StandInPolicy(), envs=stand_in_envs(), logger=StandInLogger())


class OnTrain(EpochTrainCallback):
    def callback(self, epoch, env_step, context):
        return ("train", epoch, env_step, context)


class OnTest(EpochTestCallback):
    def callback(self, epoch, env_step, context):
        return ("test", epoch, env_step, context)


class Answer(EpochStopCallback):
    def __init__(self, answer=False):
        self.answer = answer

    def should_stop(self, mean_rewards, context):
        return self.answer


class Patience(EpochStopCallback):
    def __init__(self, patience):
        self.patience = patience
        self.best = float("-inf")
        self.since = 0
        self.seen = []

    def should_stop(self, mean_rewards, context):
        self.seen.append(mean_rewards)
        self.since = 0 if mean_rewards > self.best else self.since + 1
        self.best = max(self.best, mean_rewards)
        return self.since >= self.patience


SHIPPED = [
    EpochTrainCallbackDQNSetEps(0.3),
    EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.05, 5000),
    EpochTestCallbackDQNSetEps(0.01),
    EpochStopCallbackRewardThreshold(),
    EpochStopCallbackRewardThreshold(195),
    EpochStopCallbackConfirmedRewardThreshold(475.0, 20),
    EpochStopCallbackNoImprovement(3, 0.5),
    EpochStopCallbackWallTime(60.0),
    EpochTrainCallbackDQNEpsExponentialDecay(1.0, 0.05, 1000),
    EpochTrainCallbackDQNEpsPiecewise([(0, 1.0), (1000, 0.1)]),
    EpochTrainCallbackLearningRateDecay(1e-3, 1e-5, 1000),
]


# --- names, parameters, defaults ---


REQUIRED = inspect.Parameter.empty


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (TrainingContext, {"policy": REQUIRED, "envs": REQUIRED, "logger": REQUIRED}),
        (
            TrainerCallbacks,
            {
                "epoch_train_callback": None,
                "epoch_test_callback": None,
                "epoch_stop_callback": None,
            },
        ),
        (EpochTrainCallbackDQNSetEps, {"eps_test": REQUIRED}),
        (
            EpochTrainCallbackDQNEpsLinearDecay,
            {"eps_train": REQUIRED, "eps_train_final": REQUIRED, "decay_steps": 1000000},
        ),
        (EpochTestCallbackDQNSetEps, {"eps_test": REQUIRED}),
        (EpochStopCallbackRewardThreshold, {"threshold": None}),
        (EpochStopCallbackConfirmedRewardThreshold, {"threshold": None, "episodes": 100}),
    ],
)
def test_constructors_have_these_parameters_and_defaults(cls, expected):
    parameters = inspect.signature(cls).parameters
    assert {name: p.default for name, p in parameters.items()} == expected
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters.values())


@pytest.mark.parametrize(
    ("cls", "method", "expected"),
    [
        (EpochTrainCallback, "callback", ["self", "epoch", "env_step", "context"]),
        (EpochTestCallback, "callback", ["self", "epoch", "env_step", "context"]),
        (EpochStopCallback, "should_stop", ["self", "mean_rewards", "context"]),
    ],
)
def test_methods_have_these_parameters(cls, method, expected):
    assert list(inspect.signature(getattr(cls, method)).parameters) == expected
    assert list(inspect.signature(cls.get_trainer_fn).parameters) == ["self", "context"]


def test_arguments_are_kept_by_position_and_by_keyword():
    assert EpochTrainCallbackDQNSetEps(0.3).eps_test == 0.3
    assert EpochTrainCallbackDQNSetEps(eps_test=0.3).eps_test == 0.3
    assert EpochTestCallbackDQNSetEps(0.2).eps_test == 0.2
    assert EpochTestCallbackDQNSetEps(eps_test=0.2).eps_test == 0.2
    decay = EpochTrainCallbackDQNEpsLinearDecay(0.9, 0.1)
    assert (decay.eps_train, decay.eps_train_final, decay.decay_steps) == (0.9, 0.1, 1000000)
    decay = EpochTrainCallbackDQNEpsLinearDecay(decay_steps=7, eps_train_final=0.1, eps_train=0.9)
    assert (decay.eps_train, decay.eps_train_final, decay.decay_steps) == (0.9, 0.1, 7)
    assert EpochStopCallbackRewardThreshold(195).threshold == 195
    assert EpochStopCallbackRewardThreshold(threshold=195).threshold == 195
    confirmed = EpochStopCallbackConfirmedRewardThreshold(195, 7)
    assert (confirmed.threshold, confirmed.episodes) == (195, 7)
    assert isinstance(confirmed, EpochStopCallbackRewardThreshold)


def test_context_keeps_the_very_objects():
    policy, envs, logger = object(), object(), object()
    for made in (
        TrainingContext(policy, envs, logger),
        TrainingContext(logger=logger, envs=envs, policy=policy),
    ):
        assert made.policy is policy
        assert made.envs is envs
        assert made.logger is logger
        assert made.algorithm.policy is policy
    with pytest.raises(JaxrlError):
        made.evaluate(5)  # there is no trainer behind it


def test_highlevel_trainer_has_the_same_names():
    for name in jaxrl_cb.trainer.__all__:
        assert getattr(jaxrl_cb.highlevel.trainer, name) is getattr(jaxrl_cb.trainer, name)


@pytest.mark.parametrize("cls", [EpochTrainCallback, EpochTestCallback, EpochStopCallback])
def test_abstract_classes_refuse_to_be_made(cls):
    with pytest.raises(TypeError):
        cls()

    class Incomplete(cls):
        pass

    with pytest.raises(TypeError):
        Incomplete()


# --- get_trainer_fn ---


@pytest.mark.parametrize(
    ("callback", "method", "arguments", "names"),
    [
        (OnTrain(), "callback", (3, 40), ["epoch", "env_step"]),
        (OnTest(), "callback", (3, None), ["epoch", "env_step"]),
        (Answer("yes"), "should_stop", (1.5,), ["mean_rewards"]),
    ],
)
def test_get_trainer_fn_is_a_closure_that_calls_late(callback, method, arguments, names, context):
    fn = callback.get_trainer_fn(context)
    assert inspect.isfunction(fn)
    assert list(inspect.signature(fn).parameters) == names
    expected = getattr(callback, method)(*arguments, context)
    assert expected is not None
    assert fn(*arguments) == expected
    assert fn(**dict(zip(names, arguments, strict=True))) == expected

    callback = copy.copy(callback)
    fn = callback.get_trainer_fn(context)
    received, token = [], object()

    def replacement(*got):
        received.append(got)
        return token

    setattr(callback, method, replacement)
    assert fn(*arguments) is token  # the method of now, and its value as it is
    assert received == [(*arguments, context)]


def test_get_trainer_fn_calls_the_override_of_a_subclass(context):
    class Louder(EpochTrainCallbackDQNSetEps):
        def callback(self, epoch, env_step, context):
            super().callback(epoch, env_step, context)
            return "overridden"

    assert Louder(0.5).get_trainer_fn(context)(1, 0) == "overridden"
    assert context.policy.calls == [("set_eps_training", 0.5)]


def test_shipped_functions_return_none_or_a_bool(context):
    assert EpochTrainCallbackDQNSetEps(0.1).get_trainer_fn(context)(1, 0) is None
    assert EpochTrainCallbackDQNEpsLinearDecay(1, 0).get_trainer_fn(context)(1, 0) is None
    assert EpochTestCallbackDQNSetEps(0.1).get_trainer_fn(context)(0, None) is None
    answer = EpochStopCallbackRewardThreshold(1.0).get_trainer_fn(context)
    assert answer(1.0) is True
    assert answer(0.5) is False


# --- TrainerCallbacks ---


def test_trainer_callbacks_are_mutable_and_comparable():
    train, test, stop = OnTrain(), OnTest(), Answer()
    callbacks = TrainerCallbacks(train, test, stop)
    assert callbacks.epoch_train_callback is train
    assert callbacks.epoch_test_callback is test
    assert callbacks.epoch_stop_callback is stop
    assert callbacks == TrainerCallbacks(
        epoch_stop_callback=stop, epoch_test_callback=test, epoch_train_callback=train
    )
    assert callbacks != TrainerCallbacks(train, test)
    callbacks.epoch_stop_callback = None
    assert callbacks == TrainerCallbacks(train, test)
    assert TrainerCallbacks() == TrainerCallbacks(None, None, None)
    assert TrainerCallbacks.of(None) == TrainerCallbacks()
    assert TrainerCallbacks.of(callbacks) is callbacks


def test_trainer_callbacks_take_lists():
    first, second, stop = OnTrain(), OnTrain(), Answer()
    callbacks = TrainerCallbacks([first, second], [], [stop])
    assert callbacks.lists() == ([first, second], [], [stop])
    assert TrainerCallbacks(first).lists() == ([first], [], [])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"epoch_train_callback": EpochTrainCallbackDQNSetEps}, "EpochTrainCallbackDQNSetEps"),
        ({"epoch_train_callback": [OnTrain(), OnTrain]}, "OnTrain"),
        ({"epoch_train_callback": OnTest()}, "OnTest"),
        ({"epoch_test_callback": OnTrain()}, "OnTrain"),
        ({"epoch_stop_callback": EpochTrainCallbackDQNSetEps(0.1)}, "DQNSetEps"),
        ({"epoch_stop_callback": [Answer(), OnTest()]}, "OnTest"),
        ({"epoch_test_callback": "eps"}, "str"),
    ],
)
def test_classes_and_wrong_kinds_are_type_errors(arguments, named):
    with pytest.raises(TypeError) as caught:
        TrainerCallbacks(**arguments)
    assert named in str(caught.value)
    assert next(iter(arguments)) in str(caught.value)


def test_a_wrong_kind_put_in_later_is_a_type_error():
    callbacks = TrainerCallbacks()
    callbacks.epoch_train_callback = EpochTrainCallbackDQNSetEps
    with pytest.raises(TypeError, match="EpochTrainCallbackDQNSetEps"):
        callbacks.lists()
    with pytest.raises(TypeError, match="TrainerCallbacks"):
        TrainerCallbacks.of([OnTrain()])
    with pytest.raises(TypeError, match="TrainerCallbacks"):
        TrainerCallbacks.of(OnTrain())


# --- epsilon ---


def test_set_eps_sets_its_own_epsilon_and_logs_nothing(context):
    EpochTrainCallbackDQNSetEps(0.3).callback(1, 0, context)
    assert context.policy.calls == [("set_eps_training", 0.3)]
    EpochTestCallbackDQNSetEps(0.01).callback(0, None, context)
    assert context.policy.calls[1:] == [("set_eps_inference", 0.01)]
    assert context.logger.rows == []


@pytest.mark.parametrize("cls", [EpochTrainCallbackDQNSetEps, EpochTestCallbackDQNSetEps])
def test_eps_is_a_read_only_alias(cls):
    callback = cls(0.3)
    assert callback.eps == 0.3
    callback.eps_test = 0.4
    assert callback.eps == 0.4
    with pytest.raises(AttributeError):
        callback.eps = 0.5
    assert callback.eps_test == 0.4


@pytest.mark.parametrize(
    ("schedule", "env_step", "expected"),
    [
        ((1.0, 0.05, 1000), 0, 1.0),
        ((1.0, 0.05, 1000), 250, 0.7625),
        ((1.0, 0.05, 1000), 999, 0.05095),
        ((1.0, 0.05), 250_000, 0.7625),  # one million steps by default
        ((0.1, 0.9, 100), 0, 0.1),
        ((0.1, 0.9, 100), 50, 0.5),
        ((1, 0, 4), 1, 0.75),
    ],
)
def test_linear_decay_within_its_steps(schedule, env_step, expected, context):
    EpochTrainCallbackDQNEpsLinearDecay(*schedule).callback(7, env_step, context)
    (row,) = context.logger.rows
    assert row == ("train/env_step", env_step, {"train/eps": pytest.approx(expected, abs=1e-12)})
    assert type(row[2]["train/eps"]) is float


@pytest.mark.parametrize(
    ("schedule", "env_step"),
    [
        ((1.0, 0.05, 1000), 1000),
        ((1.0, 0.05, 1000), 1001),
        ((1.0, 0.05, 1000), 10**9),
        ((1.0, 0.05, 1000), 2**40),
        ((1.0, 0.05, 0), 0),
        ((1.0, 0.05, 0), 1),
        ((0.1, 0.9, 100), 100),
        ((0.1, 0.9, 0), 0),
    ],
)
def test_linear_decay_ends_at_exactly_the_final_value(schedule, env_step, context):
    EpochTrainCallbackDQNEpsLinearDecay(*schedule).callback(7, env_step, context)
    assert context.logger.rows == [("train/env_step", env_step, {"train/eps": schedule[1]})]


def test_linear_decay_logs_once_and_sets_the_policy_once_per_call(context):
    callback = EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.0, 100)
    for epoch, env_step in enumerate((0, 50, 200)):
        callback.callback(epoch + 1, env_step, context)
    rows = [("train/env_step", step, {"train/eps": eps}) for step, eps in ((0, 1.0), (50, 0.5))]
    assert context.logger.rows == [*rows, ("train/env_step", 200, {"train/eps": 0.0})]
    calls = [(name, arguments[-1]) for name, *arguments in context.policy.calls]
    assert calls == [("set_eps_schedule", 0), ("set_eps_schedule", 50), ("set_eps_schedule", 200)]


def epsilon_callbacks(value):
    """All constructor calls in which `value` is an epsilon."""
    return {
        "EpochTrainCallbackDQNSetEps": lambda: EpochTrainCallbackDQNSetEps(value),
        "EpochTestCallbackDQNSetEps": lambda: EpochTestCallbackDQNSetEps(value),
        "eps_train": lambda: EpochTrainCallbackDQNEpsLinearDecay(value, 0.1),
        "eps_train_final": lambda: EpochTrainCallbackDQNEpsLinearDecay(0.1, value),
    }


@pytest.mark.parametrize("value", [-0.1, 1.1, -1, 2, float("nan"), float("inf"), np.float32(-1)])
def test_epsilon_out_of_range_is_a_value_error(value):
    for name, make in epsilon_callbacks(value).items():
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            make()
        assert name in str(caught.value)


@pytest.mark.parametrize("value", [None, "0.3", object(), [None], 1j])
def test_epsilon_that_is_not_a_number_is_a_type_error(value):
    for name, make in epsilon_callbacks(value).items():
        with pytest.raises(TypeError) as caught:
            make()
        assert name in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.float32(0.5), np.int64(1), np.float64(0.1)])
def test_epsilon_at_the_ends_and_of_any_number_type_is_accepted(value):
    for make in epsilon_callbacks(value).values():
        make()


@pytest.mark.parametrize("steps", [-1, -0.5, float("nan")])
def test_decay_steps_below_zero_are_a_value_error(steps):
    with pytest.raises(ValueError, match="decay_steps"):
        EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, steps)


@pytest.mark.parametrize("steps", [None, "1000"])
def test_decay_steps_that_are_not_a_number_are_a_type_error(steps):
    with pytest.raises(TypeError, match="decay_steps"):
        EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, steps)


# --- the reward threshold ---


@pytest.mark.parametrize(
    ("threshold", "mean", "expected"),
    [
        (195, 194.999, False),
        (195, 195.0, True),
        (195.0, 200.0, True),
        (0.0, 0.0, True),
        (0.0, -0.1, False),
        (0, 0.1, True),
        (-100.0, -100.0, True),
        (-100.0, -100.5, False),
        (195, float("nan"), False),
        (195, float("inf"), True),
        (195, float("-inf"), False),
    ],
)
def test_threshold_is_reached_by_equality_and_never_by_nan(threshold, mean, expected, context):
    context.envs = stand_in_envs(-1000.0 if not expected else 1000.0)  # an explicit one wins
    assert EpochStopCallbackRewardThreshold(threshold).should_stop(mean, context) is expected
    assert context.logger.rows == []


def test_threshold_none_reads_the_environments_at_each_call(context):
    callback = EpochStopCallbackRewardThreshold()
    context.envs.env.spec.reward_threshold = 10.0
    assert callback.should_stop(10.0, context) is True
    context.envs.env.spec.reward_threshold = 11.0
    assert callback.should_stop(10.0, context) is False
    context.envs.env.spec.reward_threshold = 0.0
    assert callback.should_stop(0.0, context) is True
    assert callback.threshold is None


@pytest.mark.parametrize(
    "cls", [EpochStopCallbackRewardThreshold, EpochStopCallbackConfirmedRewardThreshold]
)
def test_no_threshold_anywhere_is_a_value_error_with_the_remedy(cls, context):
    with pytest.raises(ValueError, match="Toy-v0") as caught:
        cls().should_stop(1.0, context)
    assert "threshold=" in str(caught.value)
    with pytest.raises(ValueError, match="Toy-v0"):
        cls().validate(context)
    cls(threshold=0.0).validate(context)
    context.envs.env.spec.reward_threshold = 0.0
    cls().validate(context)
    context.envs.env.spec = None
    with pytest.raises(ValueError, match="threshold="):
        cls().should_stop(1.0, context)


@pytest.mark.parametrize("threshold", ["195", [195], EpochStopCallbackRewardThreshold])
def test_threshold_that_is_not_a_number_is_refused_when_made(threshold):
    with pytest.raises((TypeError, ValueError), match="threshold"):
        EpochStopCallbackRewardThreshold(threshold)


def confirming(context, returns):
    """Gives the context an `evaluate` that answers `returns` and keeps what it was asked."""
    context.asked = []

    def evaluate(episodes):
        context.asked.append(episodes)
        return np.asarray(returns, np.float32)

    context.evaluate = evaluate
    return context


def test_confirmed_threshold_tests_again_only_where_the_first_mean_passes(context):
    callback = EpochStopCallbackConfirmedRewardThreshold(10.0)
    for mean in (9.99, float("nan"), float("-inf")):
        assert callback.should_stop(mean, confirming(context, [50.0])) is False
        assert context.asked == []
        assert not hasattr(context, "confirmed_score")


@pytest.mark.parametrize(
    ("returns", "mean", "expected"),
    [
        ([8.0, 12.0], 10.0, True),
        ([8.0, 11.0], 9.5, False),
        ([30.0], 30.0, True),
    ],
)
def test_confirmed_threshold_decides_by_the_second_test(returns, mean, expected, context):
    context.envs = stand_in_envs(10.0)
    callback = EpochStopCallbackConfirmedRewardThreshold(episodes=7)
    assert callback.should_stop(10.0, confirming(context, returns)) is expected
    assert context.asked == [7]
    assert context.confirmed_score == mean
    assert type(context.confirmed_score) is float


def test_confirmed_threshold_asks_for_100_episodes_by_default(context):
    EpochStopCallbackConfirmedRewardThreshold(1.0).should_stop(2.0, confirming(context, [2.0]))
    assert context.asked == [100]


@pytest.mark.parametrize("episodes", [0, -1, 2.5, None, True])
def test_confirmed_threshold_refuses_episodes_that_cannot_be_played(episodes):
    with pytest.raises((TypeError, ValueError), match="episodes"):
        EpochStopCallbackConfirmedRewardThreshold(1.0, episodes)


# --- text ---


class Nested(EpochTestCallback):
    def __init__(self):
        self.inner = EpochTrainCallbackDQNSetEps(0.3)
        self.numbers = [1, 2.5]
        self.table = {"a": 1}
        self.name = "x"
        self._private = None

    def callback(self, epoch, env_step, context):
        pass


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (EpochTrainCallbackDQNSetEps(0.3), "EpochTrainCallbackDQNSetEps[eps_test=0.3]"),
        (EpochTestCallbackDQNSetEps(0.0), "EpochTestCallbackDQNSetEps[eps_test=0.0]"),
        (
            EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.05),
            "EpochTrainCallbackDQNEpsLinearDecay"
            "[eps_train=1.0, eps_train_final=0.05, decay_steps=1000000]",
        ),
        (
            EpochStopCallbackRewardThreshold(),
            "EpochStopCallbackRewardThreshold[threshold=None]",
        ),
        (
            EpochStopCallbackRewardThreshold(195),
            "EpochStopCallbackRewardThreshold[threshold=195]",
        ),
        (
            EpochStopCallbackConfirmedRewardThreshold(),
            "EpochStopCallbackConfirmedRewardThreshold[threshold=None, episodes=100]",
        ),
        (OnTrain(), "OnTrain[]"),
        (
            Nested(),
            "Nested[inner=EpochTrainCallbackDQNSetEps[eps_test=0.3], numbers=[1, 2.5], "
            "table={a=1}, name='x', private=None]",
        ),
    ],
)
def test_text_of_a_callback(callback, expected):
    assert str(callback) == expected
    assert repr(callback) == expected  # no address in it


SHOW = """
from jaxrl_cb.trainer import *
class Mine(EpochTestCallback):
    def __init__(self):
        self.table = {"b": [1, 2.5], "a": {"c": None}}
        self.inner = [EpochTestCallbackDQNSetEps(0.5), EpochTestCallbackDQNSetEps(0)]
    def callback(self, epoch, env_step, context):
        pass
callbacks = TrainerCallbacks(
    [EpochTrainCallbackDQNSetEps(0.3), EpochTrainCallbackDQNEpsLinearDecay(1, 0.1)],
    Mine(),
    [EpochStopCallbackRewardThreshold(), EpochStopCallbackConfirmedRewardThreshold(195)],
)
print(str(callbacks), repr(callbacks), sep="\\n")
"""


def test_configuration_text_is_the_same_in_every_process():
    texts = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", SHOW], env=env, capture_output=True, text=True, check=True
        )
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert "0x" not in texts[0]
    assert "EpochTrainCallbackDQNSetEps[eps_test=0.3]" in texts[0]
    assert "EpochStopCallbackConfirmedRewardThreshold[threshold=195, episodes=100]" in texts[0]


# --- more schedules ---


def epoch_of(context, length):
    context.epoch_num_steps = length
    return context


def test_exponential_decay_halves_what_is_left_and_leads_to_the_epochs_end(context):
    decay = EpochTrainCallbackDQNEpsExponentialDecay(0.9, 0.1, 1000)
    values = [decay.value(step) for step in (0, 1000, 2000, 3000)]
    assert values == pytest.approx([0.9, 0.5, 0.3, 0.2])
    assert decay.value(10**9) == 0.1
    decay.callback(2, 1000, epoch_of(context, 1000))
    assert context.policy.calls == [("set_eps_schedule", 0.5, pytest.approx(0.3), 1000, 0)]
    assert context.logger.rows == [("train/env_step", 1000, {"train/eps": 0.5})]


def test_schedules_work_with_nothing_but_the_three_attributes(context):
    EpochTrainCallbackDQNEpsExponentialDecay(0.9, 0.1, 1000).callback(1, 1000, context)
    EpochTrainCallbackDQNEpsPiecewise([(0, 1.0), (4000, 0.0)]).callback(1, 1000, context)
    EpochTrainCallbackLearningRateDecay(1.0, 0.0, 4000).callback(1, 1000, context)
    assert context.policy.calls == [
        ("set_eps_schedule", 0.5, 0.5, 0, 0),
        ("set_eps_schedule", 0.75, 0.0, 3000, 0),
        ("set_learning_rate", 0.75),
    ]


POINTS = [(1000, 0.8), (2000, 0.4), (6000, 0.2)]


@pytest.mark.parametrize(
    ("env_step", "length", "expected"),
    [  # (from, to, over so many steps)
        (0, 500, (0.8, 0.8, 1000)),  # before the first point
        (1000, 500, (0.8, 0.4, 1000)),  # on a line, which ends later
        (1500, 500, (0.6, 0.4, 500)),  # up to a corner
        (5000, 9000, (0.25, 0.2, 1000)),  # the line to the last point, then flat: exact
        (1500, 2500, (0.6, 0.3, 2500)),  # a corner within: straight to the end of the epoch
        (7000, 500, (0.2, 0.2, 500)),  # after the last point
    ],
)
def test_piecewise_epsilon_follows_its_points(context, env_step, length, expected):
    EpochTrainCallbackDQNEpsPiecewise(POINTS).callback(1, env_step, epoch_of(context, length))
    (call,) = context.policy.calls
    assert call[1:] == (*map(pytest.approx, expected), 0)


@pytest.mark.parametrize(
    "points", [[], [(0, 1.0), (0, 0.5)], [(5, 1.0), (3, 0.5)], [(0, 1.5)], [(-1, 0.5)]]
)
def test_points_that_cannot_be_followed_are_refused(points):
    with pytest.raises(ValueError, match=r"points|come after|range"):
        EpochTrainCallbackDQNEpsPiecewise(points)


def test_learning_rate_decay(context):
    decay = EpochTrainCallbackLearningRateDecay(1e-3, 1e-4, 900)
    for env_step in (0, 450, 900, 5000):
        decay.callback(1, env_step, context)
    assert [rate for _, rate in context.policy.calls] == pytest.approx([1e-3, 5.5e-4, 1e-4, 1e-4])
    assert len(context.logger.rows) == 4


# --- more stops ---


def answers(callback, means, context):
    return [callback.should_stop(mean, context) for mean in means]


def test_no_improvement_counts_tests_since_the_highest(context):
    means = [1.0, 3.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0]
    assert answers(EpochStopCallbackNoImprovement(3), means, context) == [False] * 7 + [True]
    means = [1.0, 1.4, 1.8, 2.2]  # 1.4 and 1.8 are not half a point above 1.0 ... 1.8 is
    patient = EpochStopCallbackNoImprovement(2, min_delta=0.5)
    assert answers(patient, means, context) == [False, False, False, False]
    assert patient.highest == 1.8
    assert answers(EpochStopCallbackNoImprovement(1), [float("nan")], context) == [True]


def test_the_test_before_training_sets_the_first_mark(context):
    context.history = [SimpleNamespace(mean=np.array([5.0])), SimpleNamespace(mean=np.array([4.0]))]
    assert answers(EpochStopCallbackNoImprovement(2), [4.0, 4.5], context) == [False, True]


def test_wall_time_is_added_up(context, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stop = EpochStopCallbackWallTime(10)
    stop.validate(context)
    now[0] += 6
    assert not stop.should_stop(0.0, context)
    other = EpochStopCallbackWallTime(10)  # another process, its clock elsewhere
    other.load_state_dict(json.loads(json.dumps(stop.state_dict())))
    now[0] = 5.0
    other.validate(context)
    now[0] += 3
    assert not other.should_stop(0.0, context)
    now[0] += 1
    assert other.should_stop(0.0, context)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_wall_time_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match="seconds"):
        EpochStopCallbackWallTime(seconds)


# --- plain functions ---


def named_function(epoch, env_step, context):
    context.seen.append((epoch, env_step))


def test_plain_functions_are_callbacks(context):
    seen = []
    context.seen = seen

    def stop(mean_rewards, context):
        return mean_rewards > 3

    callbacks = TrainerCallbacks(
        [named_function, OnTrain()], lambda *given: seen.append(given), stop
    )
    train, test, stops = callbacks.lists()
    assert train[0].get_trainer_fn(context)(1, 20) is None
    assert test[0].get_trainer_fn(context)(1, None) is None
    assert seen == [(1, 20), (1, None, context)]
    assert [stops[0].get_trainer_fn(context)(mean) for mean in (3, 4)] == [False, True]
    assert callbacks.epoch_train_callback[0] is named_function
    assert "EpochTrainCallbackFunction[name='named_function']" in str(callbacks)
    assert "0x" not in str(callbacks)


def test_a_function_is_named_in_a_note_and_in_a_wrong_answer():
    def fails(mean_rewards, context):
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        hooks(stop=fails).ask(0, 3, 0.0)
    assert caught.value.__notes__[0].endswith("fails.should_stop, epoch 3")
    with pytest.raises(TypeError, match=r"nothing.*should_stop"):
        hooks(stop=nothing).ask(0, 3, 0.0)


def test_functions_of_another_signature_are_refused_at_once():
    with pytest.raises(TypeError, match=r"called as .*\(epoch, env_step, context\)"):
        TrainerCallbacks(epoch_train_callback=nothing)
    with pytest.raises(TypeError, match=r"called as .*\(mean_rewards, context\)"):
        TrainerCallbacks(epoch_stop_callback=[named_function])
    assert len(TrainerCallbacks(lambda *given: None).lists()[0]) == 1


def nothing(mean_rewards, context):
    return None


# --- copies and state ---


@pytest.mark.parametrize("callback", [*SHIPPED, Patience(3), Nested()], ids=str)
def test_callbacks_pickle_and_deep_copy(callback):
    for twin in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):  # noqa: S301
        assert type(twin) is type(callback)
        assert twin is not callback
        assert str(twin) == str(callback)
    together = TrainerCallbacks(epoch_stop_callback=[EpochStopCallbackRewardThreshold(1)])
    assert str(pickle.loads(pickle.dumps(together))) == str(together)  # noqa: S301


def test_a_deep_copy_has_a_state_of_its_own(context):
    original = Patience(2)
    twin = copy.deepcopy(original)
    twin.should_stop(1.0, context)
    assert original.seen == []
    assert twin.seen == [1.0]


OTHERS = [
    EpochTrainCallbackDQNSetEps(0.9),
    EpochTrainCallbackDQNEpsLinearDecay(0.5, 0.5, 1),
    EpochTestCallbackDQNSetEps(0.9),
    EpochStopCallbackRewardThreshold(1),
    EpochStopCallbackRewardThreshold(),
    EpochStopCallbackConfirmedRewardThreshold(),
    EpochStopCallbackNoImprovement(1),
    EpochStopCallbackWallTime(1.0),
    EpochTrainCallbackDQNEpsExponentialDecay(0.5, 0.5, 1),
    EpochTrainCallbackDQNEpsPiecewise([(0, 0.5)]),
    EpochTrainCallbackLearningRateDecay(1.0, 1.0, 0),
]


@pytest.mark.parametrize(("callback", "other"), list(zip(SHIPPED, OTHERS, strict=True)))
def test_state_goes_through_json(callback, other):
    other = copy.copy(other)
    assert str(other) != str(callback)
    other.load_state_dict(json.loads(json.dumps(callback.state_dict())))
    assert str(other) == str(callback)


def test_state_of_a_stateful_callback_goes_on_where_it_was(context):
    def answers(callback, means):
        return [callback.should_stop(mean, context) for mean in means]

    straight = Patience(2)
    assert answers(straight, [5.0, 4.0, 3.0]) == [False, False, True]
    first, second = Patience(2), Patience(2)
    answers(first, [5.0, 4.0])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert answers(second, [3.0]) == [True]
    assert second.seen == [5.0, 4.0, 3.0]
    fresh = Patience(2)  # -inf went through JSON too
    fresh.load_state_dict(json.loads(json.dumps(Patience(2).state_dict())))
    assert answers(fresh, [-1e9]) == [False]


# --- how the trainer calls them ---


def hooks(train=None, test=None, stop=None, views=1, envs=None):
    contexts = [TrainingContext(None, envs or stand_in_envs(), None) for _ in range(views)]
    main = TrainingContext(None, envs or stand_in_envs(), None)
    return Hooks(TrainerCallbacks(train, test, stop), main, contexts)


@pytest.mark.parametrize(
    "answer",
    [
        (True, True),
        (False, False),
        (np.True_, True),
        (np.False_, False),
        (np.asarray(True), True),
        (np.asarray(False), False),
        (jnp.asarray(True), True),
        (jnp.asarray(False), False),
        (1, True),
        (0, False),
    ],
)
def test_bool_like_answers_decide(answer):
    given, expected = answer
    assert hooks(stop=Answer(given)).ask(0, 1, 0.0)[0] is expected


@pytest.mark.parametrize("answer", [None, "no", "", b"no", [True], np.array([True]), object(), {}])
def test_other_answers_are_type_errors_that_name_the_callback(answer):
    with pytest.raises(TypeError, match=r"Answer.*should_stop"):
        hooks(stop=Answer(answer)).ask(0, 1, 0.0)


def test_every_stop_callback_is_asked_once_and_any_true_stops():
    for first, second, expected in (
        (True, False, True),
        (False, True, True),
        (True, True, True),
        (False, False, False),
    ):
        asked = []

        class Counted(Answer):
            def should_stop(self, mean_rewards, context):
                asked.append((self, mean_rewards))  # noqa: B023
                return self.answer

        callbacks = [Counted(first), Counted(second)]
        assert hooks(stop=callbacks).ask(0, 3, 2.5)[0] is expected
        assert asked == [(callbacks[0], 2.5), (callbacks[1], 2.5)]


class Fails(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("error", [Fails("mine"), KeyboardInterrupt(), StopIteration(3)])
@pytest.mark.parametrize("kind", ["train", "test", "stop"])
def test_errors_pass_through_with_a_note(kind, error):
    def fail(*_):
        raise error

    class Mine(OnTrain if kind == "train" else OnTest if kind == "test" else Answer):
        callback = should_stop = fail

    error.__dict__.pop("__notes__", None)
    made = hooks(**{kind: Mine()})
    call = {
        "train": lambda: made.on_train(7, 80),
        "test": lambda: made.on_test(7, 80),
        "stop": lambda: made.ask(0, 7, 1.0)[0],
    }[kind]
    with pytest.raises(type(error)) as caught:
        call()
    assert caught.value is error
    hook = "should_stop" if kind == "stop" else "callback"
    assert error.__notes__ == [f"Mine.{hook}, epoch 7"]


def test_a_missing_threshold_shows_before_anything_runs():
    with pytest.raises(ValueError, match="Toy-v0"):
        hooks(stop=EpochStopCallbackRewardThreshold())
    hooks(stop=EpochStopCallbackRewardThreshold(), envs=stand_in_envs(5.0))


def test_each_of_several_seeds_has_its_own_copies():
    user = Patience(1)
    made = hooks(stop=user, views=3)
    assert made.ask(0, 1, 5.0)[0] is False
    assert made.ask(1, 1, 9.0)[0] is False
    assert made.ask(0, 2, 4.0)[0] is True
    assert made.ask(1, 2, 10.0)[0] is False
    assert made.ask(2, 2, 1.0)[0] is False  # as new
    assert [callback.seen for callback in made.stop_callbacks()] == [[5.0, 4.0], [9.0, 10.0], [1.0]]
    assert user.seen == []


def test_one_seed_uses_the_users_own_object():
    user = Patience(1)
    made = hooks(stop=user)
    made.ask(0, 1, 5.0)
    assert made.stop_callbacks() == [user]
    assert user.seen == [5.0]
