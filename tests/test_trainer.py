"""The training loop: order, counters, bits, seeds, stopping, the best, testing, and compilation.

Two learners serve all tests, as a program is compiled once per process for equal learners: a small
DQN on CartPole, and a "puppet" whose Q-values are its parameters and do not depend on what it sees,
so that a callback decides by one assignment what every test returns.
"""

import dataclasses
import functools
import itertools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.config import resolve
from jaxrl_cb.envs import functional, make
from jaxrl_cb.errors import JaxrlError, NonFiniteWarning
from jaxrl_cb.learners import (
    Exploration,
    OptimizerConfig,
    ReplayConfig,
    ReplayLearner,
    TargetConfig,
)
from jaxrl_cb.networks import MLP
from jaxrl_cb.trainer import (
    EpochStopCallback,
    EpochStopCallbackConfirmedRewardThreshold,
    EpochStopCallbackRewardThreshold,
    EpochTestCallback,
    EpochTestCallbackDQNSetEps,
    EpochTrainCallback,
    EpochTrainCallbackDQNEpsExponentialDecay,
    EpochTrainCallbackDQNEpsLinearDecay,
    EpochTrainCallbackDQNEpsPiecewise,
    EpochTrainCallbackDQNSetEps,
    MemoryLogger,
    Trainer,
    TrainerCallbacks,
    TrainerParams,
)

# --- CartPole: a real network, real gradients ---


def cartpole(*, gamma=0.99, tau=0.5, learning_rate=1e-3, env_kwargs=None, **epsilon):
    environment = make("CartPole-v1", {"max_steps_in_episode": 50, **(env_kwargs or {})})
    return ReplayLearner(
        environment,
        DQN(MLP(2, (16,))),
        ReplayConfig(
            num_envs=4, buffer_size=400, batch_size=16, samples_per_insert=4.0, start_timesteps=40
        ),
        TargetConfig(gamma=gamma, tau=tau),
        optimizer=OptimizerConfig(learning_rate=learning_rate, learning_rate_schedule="linear"),
        exploration=Exploration(**{"epsilon_start": 0.8, "epsilon_decay_steps": 200, **epsilon}),
    )


CARTPOLE = TrainerParams(max_epochs=3, epoch_num_steps=80, num_test_episodes=3)


def trainer(train=None, test=None, stop=None, *, learner=None, logger=None, **params):
    return Trainer(
        learner or cartpole(),
        dataclasses.replace(CARTPOLE, **params),
        TrainerCallbacks(train, test, stop),
        logger,
    )


# --- the puppet ---

VALUES = (0.0, 0.5, 1.0, 0.75, 1.0)  # reward of each action, for 20 steps
BROKEN = (0.0, float("nan"), -1.0, -0.75, -1.0)  # of another environment of the same name
NOTHING, HALF, ALL, MORE, COIN = range(5)  # tests return 0, 10, 20, 15, and 0 or 20
PUPPET = TrainerParams(max_epochs=3, epoch_num_steps=2000, num_test_episodes=64)


@dataclasses.dataclass(frozen=True)
class Table:
    """A network whose Q-values are its parameters."""

    def init(self, key, obs):
        return {"q": jnp.zeros((len(VALUES),))}

    def apply(self, params, obs):
        return params["q"]


@functools.cache
def puppet_environment(values=VALUES):
    """Episodes of 20 steps, but COIN as the first action ends half of all starts at once.

    The declared time limit of 25 is an upper bound.
    """

    def reset(key):
        return (jnp.int32(0), jax.random.bernoulli(key)), jnp.zeros((1,))

    def step(key, state, action):
        age, is_short = state
        terminated = (action == COIN) & (age == 0) & is_short
        reward = jnp.where(terminated, 0.0, jnp.array(values)[action])
        obs = (age + 1).astype(jnp.float32).reshape(1)
        return (age + 1, is_short), obs, reward, terminated, age + 1 >= 20

    return functional(
        reset, step, num_actions=5, time_limit=25, reward_threshold=12.0, id="Puppet-v0"
    )


def puppet(*, values=VALUES, learning_rate=0.0, replay=None, target=None, **epsilon):
    sizes = {
        "num_envs": 8,
        "buffer_size": 2400,
        "batch_size": 8,
        "samples_per_insert": 2.3,
        "start_timesteps": 80,
    }
    return ReplayLearner(
        puppet_environment(values),
        DQN(Table()),
        ReplayConfig(**{**sizes, **(replay or {})}),
        TargetConfig(**(target or {})),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        exploration=Exploration(**epsilon),
    )


def puppet_trainer(train=None, test=None, stop=None, *, learner=None, logger=None, **params):
    return Trainer(
        learner or puppet(),
        dataclasses.replace(PUPPET, **params),
        TrainerCallbacks(train, test, stop),
        logger,
    )


class Play(EpochTestCallback):
    """Makes the puppet play one action in the test of each epoch; its value there is epoch + 1."""

    def __init__(self, *actions):
        self.actions = list(actions)

    def callback(self, epoch, env_step, context):
        q = np.zeros((1, len(VALUES)), np.float32)
        q[0, self.actions[epoch]] = epoch + 1
        context.state = context.state.replace(params={"q": q})


class Confirms(EpochStopCallback):
    """Says by epoch what the confirming test found (None: it made none) and whether to stop."""

    def __init__(self, scores, stops=()):
        self.scores = dict(scores)
        self.stops = list(stops)
        self.best_scores = []

    def should_stop(self, mean_rewards, context):
        self.best_scores.append(context.best_score)
        if context.epoch in self.scores:
            context.confirmed_score = self.scores[context.epoch]
        return context.epoch in self.stops


# --- comparing bits ---


def arrays(tree) -> list[np.ndarray]:
    """All leaves as NumPy arrays, keys as their words."""

    def array(leaf):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(leaf) if is_key else leaf)

    return [array(leaf) for leaf in jax.tree.leaves(tree)]


def paths(tree) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def differing(one, other) -> list[str]:
    """Paths of the leaves that differ in shape, dtype or any bit."""
    assert paths(one) == paths(other)
    pairs = zip(paths(one), arrays(one), arrays(other), strict=True)
    return [
        p for p, a, b in pairs if (a.shape, a.dtype, a.tobytes()) != (b.shape, b.dtype, b.tobytes())
    ]


IS_LOCKSTEP = (".num_updates", ".update_credit", ".buffer.cursor")


def member(state, index):
    """One seed's part of a state of several, as arrays with a leading [1]."""
    leaves = [
        a if path.startswith(IS_LOCKSTEP) else a[index : index + 1]
        for path, a in zip(paths(state), arrays(state), strict=True)
    ]
    return dict(zip(paths(state), leaves, strict=True))


def as_dict(state):
    return dict(zip(paths(state), arrays(state), strict=True))


def rows(history, index=None):
    """The test records without wall-clock values, of one seed or of all."""
    kept = []
    for record in history:
        record = record if index is None else record.seed(index)
        fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
        kept.append({name: v for name, v in fields.items() if not name.endswith("seconds")})
    return kept


def assert_same_run(one, other, *, but=()):
    assert [path for path in differing(one.state, other.state) if path not in but] == []
    assert differing(rows(one.history), rows(other.history)) == []
    for name in ("stopped", "epoch", "env_step", "best_score", "best_epoch"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert differing(one.policy.params, other.policy.params) == []
    assert differing(one.best_policy.params, other.best_policy.params) == []


# --- the order of an epoch ---


class Events:
    """Callbacks and a logger that write down when they are called, and with what."""

    def __init__(self):
        self.seen = []
        events = self.seen

        class OnTrain(EpochTrainCallback):
            def callback(self, epoch, env_step, context):
                assert (type(epoch), type(env_step)) == (int, int)
                assert (context.epoch, context.env_step) == (epoch, env_step)
                assert context.seed is None
                assert [r.epoch for r in context.history] == list(range(epoch))
                events.append(("train", epoch, env_step))

        class OnTest(EpochTestCallback):
            def callback(self, epoch, env_step, context):
                assert (type(epoch), type(env_step)) == (int, int)
                assert (context.epoch, context.env_step) == (epoch, env_step)
                assert context.seed is None
                assert [r.epoch for r in context.history] == list(range(epoch))
                events.append(("test", epoch, env_step))

        class OnStop(EpochStopCallback):
            def should_stop(self, mean_rewards, context):
                assert type(mean_rewards) is float
                assert context.seed == 0
                assert [r.epoch for r in context.history] == list(range(context.epoch + 1))
                assert mean_rewards == context.history[-1].returns[0].mean(dtype=np.float64)
                means = [r.returns[0].mean(dtype=np.float64) for r in context.history]
                assert type(context.best_score) is float
                assert context.best_score == max(means)
                events.append(("stop", context.epoch, context.env_step))
                return False

        self.train, self.test, self.stop = OnTrain(), OnTest(), OnStop()

    def write(self, step_type, step, data):
        if step_type == "test/env_step":
            self.seen.append(("log", data["epoch"], step))


def test_three_epochs_call_in_this_order_with_these_arguments():
    events = Events()
    result = trainer(events.train, events.test, events.stop, logger=events).run()
    expected = [("test", 0, 0), ("log", 0, 0)]
    for epoch in (1, 2, 3):
        before, after = 80 * (epoch - 1), 80 * epoch
        expected += [("train", epoch, before), ("test", epoch, after), ("log", epoch, after)]
        expected += [("stop", epoch, after)]
    assert events.seen == expected
    assert [(r.epoch, r.env_step) for r in result.history] == [(0, 0), (1, 80), (2, 160), (3, 240)]
    assert (result.stopped, result.epoch, result.env_step) == (False, 3, 240)
    assert (type(result.stopped), type(result.epoch), type(result.env_step)) == (bool, int, int)
    assert type(result.best_score) is float


def test_no_epochs_make_the_initial_test_only():
    events = Events()
    result = trainer(events.train, events.test, events.stop, logger=events, max_epochs=0).run()
    assert events.seen == [("test", 0, 0), ("log", 0, 0)]
    assert [r.epoch for r in result.history] == [0]
    assert (result.stopped, result.epoch, result.env_step) == (False, 0, 0)
    assert int(result.state.num_updates) == 0
    assert result.best_epoch == 0


def test_callbacks_of_a_list_are_called_in_its_order():
    called = []

    class Named(EpochTrainCallback):
        def __init__(self, name):
            self.name = name

        def callback(self, epoch, env_step, context):
            called.append((epoch, self.name))

    trainer([Named("a"), Named("b")], max_epochs=2).run()
    assert called == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


class NoOp(EpochTrainCallback, EpochTestCallback, EpochStopCallback):
    """Looks at everything and changes nothing."""

    def callback(self, epoch, env_step, context):
        assert context.state.params is not None
        context.snapshot()
        context.member(0)
        float(context.policy.eps_training + context.policy.eps_inference)
        float(context.policy.learning_rate)

    def should_stop(self, mean_rewards, context):
        self.callback(0, 0, context)
        return False

    def get_trainer_fn(self, context):
        def fn(*arguments):
            if len(arguments) == 1:
                return self.should_stop(*arguments, context)
            return self.callback(*arguments, context)

        return fn


@pytest.fixture(scope="module")
def plain():
    """A run without callbacks."""
    return trainer().run()


def test_callbacks_that_change_nothing_change_no_bit(plain):
    assert_same_run(trainer(NoOp(), NoOp(), NoOp()).run(), plain)
    empty = Trainer(cartpole(), CARTPOLE, None).run()
    assert_same_run(empty, plain)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(plain):
    assert_same_run(trainer().run(), plain)
    other = trainer(seed=1).run()
    changed = differing(other.state, plain.state)
    for path in (".key", ".test_key", ".buffer.obs", ".rollout.obs", ".buffer.action"):
        assert path in changed
    assert any(path.startswith(".params") for path in changed)


# --- learning rate ---


class SetsRates(EpochTrainCallback):
    """Sets the learning rate of each epoch, and keeps the parameters that were there before it."""

    def __init__(self, *rates):
        self.rates = rates
        self.before = []

    def callback(self, epoch, env_step, context):
        self.before.append(arrays(context.state.params))
        context.policy.set_learning_rate(self.rates[epoch - 1])


def test_the_learning_rate_that_is_set_is_the_one_that_is_used():
    sets = SetsRates(0.0, 1e-3, 0.0)
    result = trainer(sets, learner=cartpole(learning_rate=0.5)).run()
    first, second, third = sets.before
    assert differing(first, second) == []
    assert differing(second, third) != []
    assert differing(third, arrays(result.state.params)) == []


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_a_schedule_multiplies_the_learning_rate_that_is_set(schedule):
    # One gradient step per epoch, the first of rate 0: the second is the same step in every run,
    # and is taken at (1 - 1/2) of the linear schedule.
    def step_of(rate, schedule):
        learner = dataclasses.replace(
            cartpole(), optimizer=OptimizerConfig(learning_rate_schedule=schedule)
        )
        sets = SetsRates(0.0, rate)
        run = trainer(sets, learner=learner, max_epochs=2, epoch_num_steps=4, num_test_episodes=1)
        after = arrays(run.run().state.params)
        return np.concatenate(
            [(b - a).ravel() for a, b in zip(sets.before[1], after, strict=True)], dtype=np.float64
        )

    whole = step_of(0.01, "constant")
    assert np.abs(whole).max() > 1e-3
    factor = {"linear": 0.5, "constant": 1.0}[schedule]
    np.testing.assert_allclose(step_of(0.02, schedule), 2 * factor * whole, atol=1e-6)


# --- epsilon ---


def random_share(state, first_step, last_step):
    """Share of actions that are not the puppet's greedy one, in a stretch of an epoch's steps.

    It is epsilon * 4/5, as one random action in five is the greedy one.
    """
    position = int(state.buffer.cursor.position)
    ages = np.arange(position - 250, position) % 300  # rows of the last epoch, oldest first
    actions = np.asarray(state.buffer.action)[0, ages]
    return np.mean(actions[first_step // 8 : last_step // 8] != NOTHING) / (4 / 5)


DECAYS = {
    "callback": {"train": EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.05, 2000)},
    "configuration": {"learner": puppet(epsilon_start=1.0, epsilon_decay_steps=2000)},
}


@pytest.mark.parametrize("by", DECAYS)
def test_epsilon_falls_within_an_epoch(by):
    # 1 -> 0.05 over 2000 steps of 8 environments: its mean over the epoch is
    # 1 - 0.95 * (1 - 8/2000) / 2 = 0.5269 (held for the epoch it would be 1), and over its quarters
    # 0.883, 0.646, 0.408, 0.171. One coin in 2000 has a standard deviation of 0.5 / sqrt(2000).
    state = puppet_trainer(max_epochs=1, **DECAYS[by]).run().state
    assert random_share(state, 0, 2000) == pytest.approx(0.5269, abs=0.05)
    quarters = [random_share(state, start, start + 500) for start in (0, 500, 1000, 1500)]
    assert quarters == pytest.approx([0.883, 0.646, 0.408, 0.171], abs=0.11)


@pytest.mark.parametrize(
    "schedule",
    [
        EpochTrainCallbackDQNEpsExponentialDecay(1.0, 0.1, 100),
        EpochTrainCallbackDQNEpsPiecewise([(0, 1.0), (100, 0.5), (150, 0.5), (240, 0.0)]),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_other_schedules_of_epsilon_are_exact_at_the_epochs_ends(schedule):
    history = trainer(schedule).run().history
    expected = [schedule.value(record.env_step) for record in history]
    found = [float(record.eps_training[0]) for record in history[1:]]
    assert found == pytest.approx(expected[1:], abs=3e-7)


def test_epsilon_set_by_a_callback_is_held_until_it_is_set_again():
    state = puppet_trainer(EpochTrainCallbackDQNSetEps(0.5), max_epochs=1).run().state
    quarters = [random_share(state, start, start + 500) for start in (0, 500, 1000, 1500)]
    assert quarters == pytest.approx([0.5] * 4, abs=0.11)
    state = puppet_trainer(EpochTrainCallbackDQNSetEps(0.0), max_epochs=1).run().state
    assert random_share(state, 0, 2000) == 0.0
    state = puppet_trainer(EpochTrainCallbackDQNSetEps(1), max_epochs=1).run().state
    assert random_share(state, 0, 2000) == pytest.approx(1.0, abs=0.05)


class ReadsEps(EpochTestCallback):
    def __init__(self):
        self.values = []

    def callback(self, epoch, env_step, context):
        self.values.append(context.policy.eps_training)


def decayed(start, final, decay_steps, env_step):
    if env_step >= decay_steps:
        return final
    return start - (env_step / decay_steps) * (start - final)


@pytest.mark.parametrize("schedule", [(1.0, 0.05, 200), (0.1, 0.9, 130), (0.7, 0.2, 0)])
def test_epsilon_at_the_epochs_ends_is_the_exact_formula(schedule):
    start, final, decay_steps = schedule
    expected = [decayed(*schedule, 80 * epoch) for epoch in range(5)]
    reads = ReadsEps()
    logger = MemoryLogger()
    decay = EpochTrainCallbackDQNEpsLinearDecay(*schedule)
    result = trainer(decay, reads, logger=logger, max_epochs=4).run()
    assert reads.values[1:] == pytest.approx(expected[1:], abs=3e-7)
    assert [r.eps_training[0] for r in result.history[1:]] == pytest.approx(expected[1:], abs=3e-7)
    assert all(type(value) is float for value in reads.values)
    logged = [data["train/eps"] for kind, _, data in logger.rows if kind == "train/env_step"]
    assert logged == pytest.approx(expected[:4], abs=1e-12)

    reads = ReadsEps()
    learner = cartpole(epsilon_start=start, epsilon_final=final, epsilon_decay_steps=decay_steps)
    trainer(test=reads, learner=learner, max_epochs=4).run()
    assert reads.values == pytest.approx(expected, abs=3e-7)  # it runs on from epoch to epoch


def test_a_callback_replaces_the_configured_schedule_from_then_on():
    class Once(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            if epoch == 2:
                context.policy.set_eps_training(0.25)

    reads = ReadsEps()
    learner = cartpole(epsilon_start=1.0, epsilon_final=0.0, epsilon_decay_steps=320)
    trainer(Once(), reads, learner=learner, max_epochs=4).run()
    assert reads.values == pytest.approx([1.0, 0.75, 0.25, 0.25, 0.25], abs=3e-7)


def test_the_test_epsilon_acts_and_leaves_training_alone():
    still = puppet_trainer(test=Play(NOTHING, NOTHING), max_epochs=1).run()
    assert not still.history[1].returns.any()
    callbacks = [Play(NOTHING, NOTHING), EpochTestCallbackDQNSetEps(1.0)]
    moved = puppet_trainer(test=callbacks, max_epochs=1).run()
    assert differing(moved.state, still.state) == [".epsilon.inference"]
    assert moved.history[1].eps_inference.tolist() == [1.0]
    np.testing.assert_array_equal(moved.history[1].eps_training, still.history[1].eps_training)
    # All five actions alike: 20 * 0.65 = 13 in an episode of 20 steps with a standard deviation of
    # sqrt(20 * 0.14) = 1.7 (19 steps behind a COIN, which is worth a little more). One action
    # repeated for a whole episode would give 7.6.
    for record in moved.history:
        long = record.returns[0][record.lengths[0] == 20]
        assert len(long) > 40
        assert long.mean() == pytest.approx(13.0, abs=1.2)
        assert 1.0 < long.std() < 2.6


def test_a_test_epsilon_of_a_half_mixes():
    callbacks = [Play(NOTHING), EpochTestCallbackDQNSetEps(0.5)]
    (record,) = puppet_trainer(test=callbacks, max_epochs=0).run().history
    long = record.returns[0][record.lengths[0] == 20]
    assert long.mean() == pytest.approx(6.5, abs=1.2)


def test_setting_the_training_epsilon_leaves_tests_alone():
    result = puppet_trainer(EpochTrainCallbackDQNSetEps(1.0), Play(ALL, ALL, ALL), max_epochs=2)
    assert all((record.returns == 20.0).all() for record in result.run().history)


def test_set_eps_writes_both():
    class Both(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            context.policy.set_eps(0.25)
            assert context.policy.eps_training == 0.25
            assert context.policy.eps_inference == 0.25

    (_, record) = trainer(Both(), max_epochs=1).run().history
    assert record.eps_training.tolist() == record.eps_inference.tolist() == [0.25]


# --- counters ---


def counting_learner():
    """0.7 gradient steps per vector step of 4 environments; the target moves every 6th of them."""
    return puppet(
        learning_rate=0.01,
        replay={
            "num_envs": 4,
            "batch_size": 4,
            "samples_per_insert": 0.7,
            "buffer_size": 400,
            "start_timesteps": 40,
        },
        target={"target_update_period": 6, "tau": 1.0},
    )


@pytest.fixture(scope="module")
def counted():
    """States after 0, 1, 2 ... 60 vector steps, one in each epoch, and the test records."""
    run = puppet_trainer(
        learner=counting_learner(), max_epochs=60, epoch_num_steps=4, num_test_episodes=1
    )
    states, records = [], []
    for record in run.epochs():
        states.append(run.context.snapshot())
        records.append(record)
    return states, records


def test_gradient_steps_are_counted_exactly(counted):
    states, records = counted
    expected = [7 * step // 10 for step in range(61)]  # 0 after the prefill of 10 vector steps
    assert [int(state.num_updates) for state in states] == expected
    assert [record.num_updates for record in records] == expected
    assert [record.env_step for record in records] == [4 * step for step in range(61)]
    assert expected[60] * 4 / (60 * 4) == 0.7  # batch_size * gradient steps / environment steps
    losses = [record.train_loss[0] for record in records[1:]]
    stepped = [after > before for before, after in itertools.pairwise(expected)]
    assert [not np.isnan(loss) for loss in losses] == stepped  # a mean of nothing is NaN


def test_every_gradient_step_changes_the_parameters_and_nothing_else_does(counted):
    states, _ = counted
    pairs = list(itertools.pairwise(states))
    changed = [differing(a.params, b.params) != [] for a, b in pairs]
    stepped = [int(b.num_updates) > int(a.num_updates) for a, b in pairs]
    assert changed == stepped


def test_the_target_follows_every_sixth_gradient_step(counted):
    states, _ = counted
    params_after = {int(state.num_updates): state.params for state in states}
    assert sorted(params_after) == list(range(43))
    for state in states:
        copied_at = int(state.num_updates) // 6 * 6
        assert differing(state.target_params, params_after[copied_at]) == []


def test_more_than_one_gradient_step_per_vector_step(plain):
    # 8 environments, batch 8, 2.3 samples per insert: 250 vector steps owe 575 gradient steps.
    result = puppet_trainer(max_epochs=3).run()
    assert [r.num_updates for r in result.history] == [0, 575, 1150, 1725]
    assert int(result.state.num_updates) == 1725
    # 4 environments, batch 16, 4 samples per insert: one per vector step.
    assert [r.num_updates for r in plain.history] == [0, 20, 40, 60]
    assert int(plain.state.num_updates) == 60


# With the nearest float, 100 * 0.29 is 28.999999999999996, and so on: one gradient step is lost.
@pytest.mark.parametrize(("num_envs", "spi", "batch"), [(3, 0.29, 3), (48, 0.57, 48), (8, 2.3, 8)])
def test_the_rate_is_the_decimal_as_written(num_envs, spi, batch):
    config = ReplayConfig(
        num_envs=num_envs,
        batch_size=batch,
        samples_per_insert=spi,
        buffer_size=num_envs * 100,
        start_timesteps=num_envs,
    )
    learner = dataclasses.replace(counting_learner(), replay=config)
    exact = Fraction(str(spi)) * num_envs / batch
    assert any(
        int(step * spi) != step * exact // 1 for step in range(2000)
    )  # else it shows nothing
    for step in [*range(2000), 10**6, 10**9 + 7, 10**12]:
        assert learner.num_updates(step) == step * exact // 1


# --- compilation ---


class SetsAll(EpochTrainCallback):
    """Sets everything there is to set, each epoch with numbers of another type."""

    def __init__(self, values):
        self.values = values

    def callback(self, epoch, env_step, context):
        value = self.values[(epoch - 1) % len(self.values)]
        context.policy.set_eps_training(value)
        context.policy.set_eps_inference(value)
        context.policy.set_eps(value)
        context.policy.set_learning_rate(value)
        context.policy.set_eps_schedule(value, 0.1, 200, env_step)
        state = context.state
        learning_rate = np.asarray(state.hyperparams.learning_rate) * 0.5
        hyperparams = state.hyperparams.replace(
            learning_rate=learning_rate, gamma=np.full_like(learning_rate, 0.9)
        )
        context.state = state.replace(hyperparams=hyperparams)
        context.snapshot()


class TestsAgain(EpochStopCallback):
    __test__ = False

    def should_stop(self, mean_rewards, context):
        context.evaluate(5)
        return False


def numbers():
    return [0.5, 0, True, np.float64(0.25), np.int64(1), jnp.float32(0.125), np.float16(0.5)]


def test_nothing_is_compiled_after_the_first_epoch(compiles):
    values = numbers()
    run = trainer(
        [
            SetsAll(values),
            EpochTrainCallbackDQNSetEps(0.3),
            EpochTrainCallbackDQNEpsLinearDecay(1, 0, 99),
        ],
        [EpochTestCallbackDQNSetEps(0.1)],
        [
            EpochStopCallbackRewardThreshold(1e9),
            EpochStopCallbackConfirmedRewardThreshold(1e9),
            EpochStopCallbackConfirmedRewardThreshold(0.0, episodes=4),
            TestsAgain(),
        ],
        max_epochs=1,
    )
    assert run.run().stopped  # the confirmed threshold of 0 is reached
    run = trainer(
        [
            SetsAll(values),
            EpochTrainCallbackDQNSetEps(0.3),
            EpochTrainCallbackDQNEpsLinearDecay(1, 0, 99),
        ],
        [EpochTestCallbackDQNSetEps(0.1)],
        [
            EpochStopCallbackRewardThreshold(1e9),
            EpochStopCallbackConfirmedRewardThreshold(1e9),
            TestsAgain(),
        ],
        max_epochs=9,
        seed=3,
    )
    epochs = run.epochs()
    assert [next(epochs).epoch, next(epochs).epoch] == [0, 1]
    compiles()
    assert [record.epoch for record in epochs] == list(range(2, 10))
    assert compiles() == 0
    result = run.result()
    run.snapshot()
    assert compiles() == 0
    assert result.epoch == 9


class StopAt(EpochStopCallback):
    """Stops seed i at epoch ``epochs[i]``; keeps what it was asked, and the state it stopped at."""

    def __init__(self, epochs):
        self.epochs = list(epochs)
        self.asked = []
        self.kept = None

    def should_stop(self, mean_rewards, context):
        assert type(mean_rewards) is float
        assert type(context.best_score) is float
        assert all(record.returns.shape == (1, 3) for record in context.history)
        assert mean_rewards == context.history[-1].returns.mean(dtype=np.float64)
        means = [record.returns.mean(dtype=np.float64) for record in context.history]
        assert context.best_score == max(means)
        assert np.shape(context.policy.eps_training) == ()
        assert all(a.shape[0] == 1 for a in arrays(context.state.params))
        self.asked.append([context.seed, context.epoch, context.env_step])
        stop = context.epoch >= self.epochs[context.seed]
        if stop:
            self.kept = context.snapshot()
        return stop

    def state_dict(self):
        return {"epochs": self.epochs, "asked": self.asked}


NEVER = 99


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_no_stop_of_a_seed_compiles(vectorize_seeds, compiles):
    class Reads(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            context.policy.set_eps_training([0.1, 0.2, 0.3])
            context.policy.set_learning_rate(0.01 * epoch)
            context.state = context.state
            context.evaluate(2)

    run = trainer(
        Reads(),
        stop=StopAt([2, NEVER, 3]),
        num_seeds=3,
        max_epochs=4,
        vectorize_seeds=vectorize_seeds,
    )
    epochs = run.epochs()
    next(epochs), next(epochs)
    compiles()
    assert [record.epoch for record in epochs] == [2, 3, 4]
    assert run.result().epoch.tolist() == [2, 4, 3]
    assert compiles() == 0


def test_a_second_run_that_differs_only_in_numbers_compiles_nothing(plain, compiles):
    compiles()
    learner = cartpole(
        gamma=0.5,
        tau=0.01,
        learning_rate=0.3,
        epsilon_start=0.5,
        epsilon_final=0.2,
        epsilon_decay_steps=17,
        epsilon_test=0.25,
    )
    result = trainer(learner=learner, seed=123, max_epochs=5).run()
    assert compiles() == 0
    hyperparams = jax.tree.map(lambda x: float(x[0]), result.state.hyperparams)
    assert hyperparams.gamma == 0.5
    assert hyperparams.tau == pytest.approx(0.01)
    assert hyperparams.learning_rate == pytest.approx(0.3)
    assert hyperparams.schedule_updates == 100  # 5 epochs of 20 gradient steps
    assert int(plain.state.hyperparams.schedule_updates[0]) == 60
    assert result.history[-1].eps_training == pytest.approx(0.2)
    assert result.history[-1].eps_inference.tolist() == [0.25]


def test_other_parameters_of_an_environment_compile_and_act(plain, compiles):
    compiles()
    learner = cartpole(env_kwargs={"theta_threshold_radians": 0.0})  # the pole may not lean at all
    result = trainer(learner=learner, max_epochs=1).run()
    assert compiles() > 0
    assert all((record.lengths == 1).all() for record in result.history)
    assert all((record.lengths > 1).all() for record in plain.history)


def test_another_environment_of_the_same_name_is_another_one(compiles):
    assert puppet_environment(BROKEN).spec == puppet_environment(VALUES).spec
    up = puppet_trainer(test=Play(ALL), max_epochs=0).run()
    compiles()
    broken = {"learner": puppet(values=BROKEN), "on_nan": "warn"}
    with pytest.warns(NonFiniteWarning, match="prefill"):
        down = puppet_trainer(test=Play(ALL), max_epochs=0, **broken).run()
    assert compiles() > 0
    assert (up.history[0].returns == 20.0).all()
    assert (down.history[0].returns == -20.0).all()


# --- seeds ---


DECAY = EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 200)


@pytest.fixture(scope="module")
def three():
    """Seeds 5, 6 and 7 together, one after another on the devices there are."""
    return trainer(DECAY, num_seeds=3, seed=5, vectorize_seeds=False).run()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_member_i_of_a_run_is_the_run_with_the_next_seed(three, index):
    alone = trainer(DECAY, seed=5 + index).run()
    assert differing(member(three.state, index), as_dict(alone.state)) == []
    assert differing(rows(three.history, index), rows(alone.history)) == []
    assert three.best_score[index] == alone.best_score
    assert three.best_epoch[index] == alone.best_epoch
    for kind in ("policy", "best_policy"):
        mine, other = getattr(three, kind)[index].params, getattr(alone, kind).params
        assert differing(mine, other) == []


def test_a_vectorized_run_agrees_and_has_the_same_shapes():
    params = {"num_seeds": 3, "seed": 5, "max_epochs": 1}
    learner = cartpole(epsilon_start=1.0, epsilon_final=1.0)  # the same actions, whatever the bits
    one = trainer(learner=learner, vectorize_seeds=True, **params).run()
    other = trainer(learner=learner, vectorize_seeds=False, **params).run()
    assert paths(one.state) == paths(other.state)
    for path, a, b in zip(paths(one.state), arrays(one.state), arrays(other.state), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), path
    np.testing.assert_array_equal(one.state.buffer.action, other.state.buffer.action)
    for a, b in zip(arrays(one.state.params), arrays(other.state.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert [r.returns.shape for r in one.history] == [r.returns.shape for r in other.history]


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_shapes_lead_with_the_seeds_and_lockstep_scalars_do_not(vectorize_seeds, plain):
    params = {"num_seeds": 3, "vectorize_seeds": vectorize_seeds, "max_epochs": 1}
    result = trainer(**params).run()
    for run, num_seeds in ((result, 3), (plain, 1)):
        for path, array in zip(paths(run.state), arrays(run.state), strict=True):
            lead = () if path.startswith(IS_LOCKSTEP) else (num_seeds,)
            assert array.shape[: len(lead)] == lead, path
            assert array.shape == () or not path.startswith(IS_LOCKSTEP), path
        for leaf in jax.tree.leaves((run.policy.params, run.best_policy.params)):
            assert leaf.shape[0] == num_seeds
        for record in run.history:
            assert record.returns.shape == record.lengths.shape == (num_seeds, 3)
            for name in ("eps_training", "eps_inference", "train_loss", "train_return", "mean"):
                assert getattr(record, name).shape == (num_seeds,), name
    assert result.state.buffer.obs.shape == (3, 100, 4, 4)
    for name in ("stopped", "epoch", "env_step", "best_score", "best_epoch"):
        assert getattr(result, name).shape == (3,)
        assert np.ndim(getattr(plain, name)) == 0


# --- stopping ---


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_each_seed_stops_by_its_own_copy_and_the_others_go_on(vectorize_seeds):
    params = {"num_seeds": 3, "seed": 5, "vectorize_seeds": vectorize_seeds}
    together = trainer(DECAY, **params).run()
    given = StopAt([NEVER, 1, 2])
    logger = MemoryLogger()
    result = trainer(DECAY, stop=given, logger=logger, **params).run()

    assert result.stopped.tolist() == [False, True, True]
    assert result.epoch.tolist() == [3, 1, 2]
    assert result.env_step.tolist() == [240, 80, 160]
    assert given.asked == []  # the user's own object
    asked = [callback.asked for callback in result.callbacks]
    assert asked[0] == [[0, 1, 80], [0, 2, 160], [0, 3, 240]]
    assert asked[1] == [[1, 1, 80]]
    assert asked[2] == [[2, 1, 80], [2, 2, 160]]

    for record, whole in zip(result.history, together.history, strict=True):
        for index, last in enumerate([3, 1, 2]):
            if record.epoch <= last:
                assert differing(rows([record], index), rows([whole], index)) == []
            else:
                assert np.isnan(record.returns[index]).all()
                assert np.isnan([record.mean[index], record.train_loss[index]]).all()
                assert np.isnan([record.eps_training[index], record.eps_inference[index]]).all()

    # Seed 0 does not notice; replay and rollout are of seeds running at the end only.
    before, after = member(together.state, 0), member(result.state, 0)
    assert differing(before, after) == []
    assert result.state.buffer.obs.shape[0] == result.state.rollout.obs.shape[0] == 1
    # Seeds 1 and 2 are as they were when they stopped.
    for index in (1, 2):
        kept = result.callbacks[index].kept
        for field in ("params", "target_params", "opt_state", "epsilon", "hyperparams", "key"):
            mine = getattr(result.state, field)
            mine = [a[index : index + 1] for a in arrays(mine)]
            assert differing(mine, arrays(getattr(kept, field))) == [], field
        assert differing(result.policy[index].params, kept.params) == []
        scores = [
            record.mean[index] for record in result.history if not np.isnan(record.mean[index])
        ]
        assert result.best_score[index] == max(scores)
    assert differing(member(together.state, 1), member(together.state, 2)) != []


def test_a_stopped_seed_is_the_run_alone_that_stopped():
    result = trainer(DECAY, stop=StopAt([NEVER, 1, 2]), num_seeds=3, seed=5).run()
    for index, epoch in ((1, 1), (2, 2)):
        alone = trainer(DECAY, stop=StopAt([epoch]), seed=5 + index).run()
        assert (alone.stopped, alone.epoch, alone.env_step) == (True, epoch, 80 * epoch)
        for field in ("params", "target_params", "opt_state", "epsilon", "key"):
            mine = [a[index : index + 1] for a in arrays(getattr(result.state, field))]
            assert differing(mine, arrays(getattr(alone.state, field))) == [], field
        assert differing(rows(result.history[: epoch + 1], index), rows(alone.history)) == []
        assert result.best_score[index] == alone.best_score


def test_a_run_ends_when_all_seeds_have_stopped():
    result = trainer(stop=StopAt([1, 2, 1]), num_seeds=3, max_epochs=9).run()
    assert [record.epoch for record in result.history] == [0, 1, 2]
    assert result.stopped.tolist() == [True, True, True]
    assert result.epoch.tolist() == [1, 2, 1]
    assert [a.shape[0] for a in arrays(result.state.params)] == [3] * len(
        arrays(result.state.params)
    )


def test_one_seed_uses_the_users_own_stop_callback():
    given = StopAt([2])
    result = trainer(stop=given).run()
    assert given.asked == [[0, 1, 80], [0, 2, 160]]
    assert result.callbacks == [given]
    assert (result.stopped, result.epoch, result.env_step) == (True, 2, 160)
    assert result.state.buffer.obs.shape == (1, 100, 4, 4)


class AsksOnce(EpochStopCallback):
    def __init__(self, stop_at):
        self.stop_at = stop_at
        self.epochs = []

    def should_stop(self, mean_rewards, context):
        self.epochs.append(context.epoch)
        return np.bool_(context.epoch >= self.stop_at)


def test_every_stop_callback_of_a_list_is_asked_once_and_any_true_stops():
    callbacks = [AsksOnce(NEVER), AsksOnce(2), AsksOnce(NEVER)]
    result = trainer(stop=callbacks, max_epochs=4).run()
    assert [callback.epochs for callback in callbacks] == [[1, 2]] * 3
    assert (result.stopped, result.epoch) == (True, 2)
    several = trainer(stop=[AsksOnce(NEVER), AsksOnce(2)], num_seeds=3, max_epochs=4).run()
    assert [[c.epochs for c in own] for own in several.callbacks] == [[[1, 2], [1, 2]]] * 3


def test_the_threshold_stops_at_the_first_passing_test():
    # Tests return 20 (initial; not asked), 10, 15, 20; the environment's threshold is 12.
    result = puppet_trainer(
        test=Play(ALL, HALF, MORE, ALL), stop=EpochStopCallbackRewardThreshold()
    ).run()
    assert (result.stopped, result.epoch) == (True, 2)
    assert [record.mean[0] for record in result.history] == [20.0, 10.0, 15.0]


def test_a_stop_callback_gets_the_mean_of_this_test():
    class Means(EpochStopCallback):
        def __init__(self):
            self.seen = []

        def should_stop(self, mean_rewards, context):
            self.seen.append((mean_rewards, context.best_score))
            return False

    means = Means()
    puppet_trainer(test=Play(ALL, HALF, MORE, NOTHING), stop=means).run()
    assert means.seen == [(10.0, 20.0), (15.0, 20.0), (0.0, 20.0)]


# --- the best ---


def best(*actions, stop=None):
    """Score and epoch of the best of a run whose tests play these actions."""
    result = puppet_trainer(test=Play(*actions), stop=stop, max_epochs=len(actions) - 1).run()
    told = int(result.best_policy.params["q"].max()) - 1
    assert told == result.best_epoch
    return result.best_score, result.best_epoch


def test_the_best_is_the_highest_mean_epoch_0_included():
    assert best(HALF, MORE, ALL, NOTHING) == (20.0, 2)
    assert best(ALL, MORE, HALF) == (20.0, 0)
    assert best(NOTHING) == (0.0, 0)


def test_a_tie_goes_to_the_later_test():
    assert best(HALF, ALL, ALL, NOTHING) == (20.0, 2)
    assert best(HALF, HALF) == (10.0, 1)


def test_a_failed_confirmation_counts_with_its_confirmed_mean():
    assert best(HALF, ALL, MORE, stop=Confirms({1: 5.0})) == (15.0, 2)
    assert best(HALF, ALL, NOTHING, stop=Confirms({1: 5.0})) == (10.0, 0)
    assert best(HALF, ALL, NOTHING, stop=Confirms({1: 12.0})) == (12.0, 1)
    assert best(HALF, ALL, MORE, stop=Confirms({1: 15.0})) == (15.0, 2)  # a tie, as ever
    seen = Confirms({1: 5.0})
    best(HALF, ALL, NOTHING, stop=seen)
    assert seen.best_scores == [20.0, 10.0]


def test_a_confirmed_stop_makes_the_confirmed_parameters_the_best():
    assert best(ALL, HALF, MORE, stop=Confirms({2: 14.0}, stops=[2])) == (14.0, 2)
    assert best(ALL, MORE, NOTHING, stop=Confirms({1: 14.0}, stops=[1])) == (14.0, 1)
    # A stop that nothing confirmed leaves the highest mean the best.
    assert best(ALL, HALF, stop=Confirms({}, stops=[1])) == (20.0, 0)


def test_another_callbacks_stop_confirms_nothing():
    failed, stops = Confirms({1: 5.0}), Confirms({}, stops=[1])
    assert best(HALF, ALL, stop=[failed, stops]) == (10.0, 0)
    assert best(HALF, ALL, stop=[stops, failed]) == (10.0, 0)


def test_the_confirmed_threshold_stops_on_a_true_mean_without_further_ado():
    events = []

    class Counts(EpochTestCallback):
        def callback(self, epoch, env_step, context):
            events.append(epoch)

    logger = MemoryLogger()
    result = puppet_trainer(
        test=[Play(HALF, HALF, MORE, ALL), Counts()],
        stop=EpochStopCallbackConfirmedRewardThreshold(episodes=70),
        logger=logger,
    ).run()
    assert (result.stopped, result.epoch, result.best_score, result.best_epoch) == (
        True,
        2,
        15.0,
        2,
    )
    assert events == [0, 1, 2]  # the confirmation called no test callback
    assert len(result.history) == 3  # and added no row
    assert [step for kind, step, _ in logger.rows] == [0, 2000, 4000]


def test_a_lucky_test_is_not_confirmed():
    # COIN returns 0 or 20 with a mean of 10 and a standard deviation of 1.25 over 64 episodes. The
    # threshold is put at each test's own mean, so the first test always passes; about half of the
    # confirming ones do not.
    class Lucky(EpochStopCallback):
        def __init__(self):
            self.confirmed = []

        def should_stop(self, mean_rewards, context):
            inner = EpochStopCallbackConfirmedRewardThreshold(mean_rewards + 0.0, episodes=64)
            stop = inner.should_stop(mean_rewards, context)
            assert stop == (context.confirmed_score >= mean_rewards)
            self.confirmed.append((mean_rewards, context.confirmed_score))
            return False

    lucky = Lucky()
    result = puppet_trainer(test=Play(*[COIN] * 7), stop=lucky, max_epochs=6).run()
    assert len(lucky.confirmed) == 6
    assert sum(first != again for first, again in lucky.confirmed) >= 4
    scores = [result.history[0].mean[0], *[again for _, again in lucky.confirmed]]
    assert result.best_score == max(scores)


def test_the_best_is_never_nan_where_there_is_a_number():
    # In the broken environment HALF returns NaN, ALL -20 and MORE -15.
    def best_of(*actions):
        broken = {"learner": puppet(values=BROKEN), "on_nan": "warn"}
        run = puppet_trainer(test=Play(*actions), max_epochs=len(actions) - 1, **broken)
        with pytest.warns(NonFiniteWarning, match="prefill"):
            result = run.run()
        return result.best_score, result.best_epoch

    assert best_of(HALF, ALL, HALF) == (-20.0, 1)
    assert best_of(HALF, ALL, HALF, MORE) == (-15.0, 3)


# --- testing ---


def test_every_test_is_one_complete_episode_per_environment(plain):
    lengths = [record.lengths for record in plain.history]
    assert all(a.shape == (1, 3) and (a >= 1).all() and (a <= 50).all() for a in lengths)
    for record in plain.history:  # a reward of 1 for each step
        np.testing.assert_array_equal(record.returns, record.lengths)
    result = puppet_trainer(test=Play(ALL), max_epochs=0, num_test_episodes=64).run()
    assert (result.history[0].lengths == 20).all()
    assert (result.history[0].returns == 20.0).all()


def test_short_episodes_do_not_win():
    # Half of all episodes end at step 1 with a return of 0, the others at step 20 with 20: the mean
    # is 10. Counting those that finish first, there would be 20 short ones for each long one.
    history = puppet_trainer(test=Play(*[COIN] * 4), max_epochs=3).run().history
    returns = np.concatenate([record.returns[0] for record in history])
    lengths = np.concatenate([record.lengths[0] for record in history])
    assert returns.shape == (256,)
    assert set(returns.tolist()) == {0.0, 20.0}
    np.testing.assert_array_equal(lengths, np.where(returns == 20.0, 20, 1))
    assert returns.mean() == pytest.approx(10.0, abs=2.5)  # four standard deviations
    assert len({record.mean[0] for record in history}) > 1  # each on other keys


class Evaluates(EpochTestCallback):
    """Tests again, twice in each test phase, and keeps what came out."""

    def __init__(self, episodes):
        self.episodes = episodes
        self.returns = []

    def callback(self, epoch, env_step, context):
        self.returns.append([context.evaluate(self.episodes), context.evaluate(self.episodes)])


@pytest.mark.parametrize("episodes", [1, 10, 64, 70])
def test_evaluate_gives_as_many_returns_as_asked(episodes):
    again = Evaluates(episodes)
    puppet_trainer(test=[Play(COIN, COIN), again], max_epochs=1).run()
    assert [r.shape for pair in again.returns for r in pair] == [(episodes,)] * 4
    assert set(np.concatenate([np.concatenate(p) for p in again.returns]).tolist()) <= {0.0, 20.0}


def test_evaluate_plays_on_fresh_keys_and_the_same_ones_in_the_same_run():
    runs = []
    for _ in range(2):
        again = Evaluates(64)
        result = puppet_trainer(test=[Play(COIN, COIN, COIN), again], max_epochs=2).run()
        tests = [record.returns[0] for record in result.history]
        runs.append([returns.tolist() for returns in [*np.concatenate(again.returns), *tests]])
    assert runs[0] == runs[1]
    assert len({tuple(returns) for returns in runs[0]}) == 9  # 2^-64 that two are alike by chance


def test_a_long_evaluation_does_not_repeat_its_rounds():
    class Long(EpochTestCallback):
        def callback(self, epoch, env_step, context):
            self.returns = context.evaluate(640)

    long = Long()
    puppet_trainer(test=[Play(COIN), long], max_epochs=0).run()
    assert len({tuple(part) for part in long.returns.reshape(10, 64).tolist()}) == 10
    assert long.returns.mean() == pytest.approx(10.0, abs=1.6)


def test_evaluation_changes_neither_training_nor_the_tests(plain):
    class Before(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            context.evaluate(7)

    # An epsilon of 1 makes returns of CartPole differ from key to key.
    noisy = functools.partial(trainer, learner=cartpole(epsilon_test=1.0))
    quiet = noisy().run()
    assert len({tuple(record.returns[0].tolist()) for record in quiet.history}) > 1
    assert_same_run(noisy(test=Evaluates(7)).run(), quiet)
    assert_same_run(noisy(Before()).run(), quiet)
    assert_same_run(noisy(stop=TestsAgain()).run(), quiet)
    assert differing(quiet.state, plain.state) == [".epsilon.inference"]


def test_tests_depend_on_the_seed_and_the_epoch_and_on_no_training_key():
    class OtherTraining(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            state = context.state
            words = np.asarray(jax.random.key_data(state.key)) + np.uint32(12345)
            context.state = state.replace(key=jax.random.wrap_key_data(words))

    still = cartpole(learning_rate=0.0, epsilon_test=1.0)  # the same parameters throughout
    one = trainer(learner=still).run()
    other = trainer(OtherTraining(), learner=still).run()
    assert ".buffer.action" in differing(one.state, other.state)
    assert ".key" in differing(one.state, other.state)
    assert [r.returns.tolist() for r in one.history] == [r.returns.tolist() for r in other.history]
    assert len({tuple(r.returns[0].tolist()) for r in one.history}) == 4


def test_training_does_not_depend_on_the_number_of_tests():
    states = []

    class Leaves(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            for _ in range(epoch):
                context.evaluate(3)
            states.append(context.snapshot())

    trainer(Leaves()).run()
    evaluated, states[:] = list(states), []

    class Only(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            states.append(context.snapshot())

    trainer(Only()).run()
    assert [differing(a, b) for a, b in zip(evaluated, states, strict=True)] == [[], [], []]


def test_evaluate_of_several_seeds():
    class Both(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            self.all = context.evaluate(4)

    class Own(EpochStopCallback):
        def __init__(self):
            self.own = []

        def should_stop(self, mean_rewards, context):
            self.own.append(context.evaluate(4).tolist())
            return context.seed == 1

    both = Both()
    learner = cartpole(epsilon_test=1.0)
    result = trainer(both, stop=Own(), learner=learner, num_seeds=3, max_epochs=2).run()
    assert both.all.shape == (3, 4)
    assert np.isnan(both.all[1]).all()  # stopped
    assert not np.isnan(both.all[[0, 2]]).any()
    for index, rounds in ((0, 2), (1, 1), (2, 2)):
        assert np.shape(result.callbacks[index].own) == (rounds, 4)
    alone = trainer(Both(), stop=Own(), learner=learner, seed=2, max_epochs=2).run()
    assert alone.callbacks[0].own[0] == result.callbacks[2].own[0]


@pytest.mark.parametrize("episodes", [0, -1, 2.5, None, True])
def test_evaluate_refuses_what_cannot_be_played(episodes):
    class Wrong(EpochTestCallback):
        def callback(self, epoch, env_step, context):
            with pytest.raises((TypeError, ValueError), match="episodes"):
                context.evaluate(episodes)

    trainer(test=Wrong(), max_epochs=0).run()


def test_an_environment_without_a_time_limit_is_refused_when_the_trainer_is_made():
    def reset(key):
        return jnp.int32(0), jnp.zeros((1,))

    def step(key, state, action):
        return state, jnp.zeros((1,)), 0.0, False, False

    endless = functional(reset, step, num_actions=2, time_limit=None, id="Endless-v0")
    learner = dataclasses.replace(puppet(), environment=endless)
    with pytest.raises(ValueError, match=r"Endless-v0.*time limit"):
        Trainer(learner, PUPPET)


# --- what callbacks may do to the state ---


def test_a_callback_reads_and_replaces_the_state():
    class Halves(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            if epoch == 1:
                self.before = arrays(context.state.params)
            if epoch == 2:
                params = jax.tree.map(lambda x: 0.5 * x, context.state.params)
                context.state = context.state.replace(params=params)
                assert differing(arrays(context.state.params), arrays(params)) == []
                assert differing(arrays(context.policy.params), arrays(params)) == []

    halves = Halves()
    result = trainer(halves, learner=cartpole(learning_rate=0.0)).run()
    assert differing([0.5 * a for a in halves.before], arrays(result.state.params)) == []


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_a_view_replaces_the_state_of_its_own_seed_only(vectorize_seeds):
    class Doubles(EpochStopCallback):
        def should_stop(self, mean_rewards, context):
            if context.seed == 1 and context.epoch == 1:
                params = jax.tree.map(lambda x: 2.0 * np.asarray(x), context.state.params)
                context.state = context.state.replace(params=params)
                context.policy.set_eps_training(0.625)
                context.policy.set_eps_inference(0.375)
                context.policy.set_learning_rate(0.25)
            return False

    params = {"num_seeds": 3, "max_epochs": 2, "vectorize_seeds": vectorize_seeds}
    learner = cartpole(learning_rate=0.0)
    plainly = trainer(learner=learner, **{**params, "max_epochs": 1}).run()
    result = trainer(stop=Doubles(), learner=learner, **{**params, "max_epochs": 1}).run()
    before, after = arrays(plainly.state.params), arrays(result.state.params)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(b, a * np.array([1, 2, 1]).reshape(3, *[1] * (a.ndim - 1)))
    learning_rates = np.asarray(result.state.hyperparams.learning_rate)
    assert learning_rates.tolist() == [0.0, 0.25, 0.0]
    inference = np.asarray(result.state.epsilon.inference)
    assert inference.tolist() == [0.0, 0.375, 0.0]
    assert result.state.epsilon.training.final.tolist()[1] == 0.625


def test_a_state_of_another_shape_structure_or_type_is_refused():
    class Wrong(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            state = context.state
            rate = np.asarray(state.hyperparams.learning_rate)
            for learning_rate in (rate[0], rate[None], np.zeros((2,), np.float32), 0.1):
                hyperparams = state.hyperparams.replace(learning_rate=learning_rate)
                with pytest.raises(ValueError, match=r"learning_rate.*shape"):
                    context.state = state.replace(hyperparams=hyperparams)
            hyperparams = state.hyperparams.replace(schedule_updates=np.ones((1,), np.float32))
            with pytest.raises(TypeError, match=r"schedule_updates.*dtype"):
                context.state = state.replace(hyperparams=hyperparams)
            with pytest.raises(TypeError, match="key"):
                context.state = state.replace(key=np.zeros((1,), np.uint32))
            with pytest.raises(ValueError, match="structure"):
                context.state = state.replace(params={"other": 1})
            with pytest.raises((TypeError, ValueError)):
                context.state = None
            assert differing(context.state, state) == []

    trainer(Wrong(), max_epochs=1).run()


def test_a_snapshot_outlives_the_next_epoch():
    class Keeps(EpochTrainCallback):
        def __init__(self):
            self.snapshots, self.values = [], []

        def callback(self, epoch, env_step, context):
            self.snapshots.append(context.snapshot())
            self.values.append(arrays(context.state))

    for num_seeds in (1, 3):
        keeps = Keeps()
        trainer(keeps, num_seeds=num_seeds).run()
        for snapshot, values in zip(keeps.snapshots, keeps.values, strict=True):
            assert differing(arrays(snapshot), values) == []
        assert differing(arrays(keeps.snapshots[0]), arrays(keeps.snapshots[1])) != []


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_what_setters_set_goes_to_the_device_with_the_chunk_and_is_not_written_to(
    num_seeds, monkeypatch
):
    """A transfer on its own takes as long as many vector steps; chunks consume what they get."""
    given = np.full(num_seeds, 0.25)

    class Sets(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            context.policy.set_eps_schedule(given, 0.125, 1000, env_step)
            context.policy.set_learning_rate(1e-3)

    own = trainer(Sets(), EpochTestCallbackDQNSetEps(0.5), num_seeds=num_seeds)
    own.init()
    puts, device_put = [], jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda *a, **k: puts.append(a) or device_put(*a, **k))
    records = [own.execute_epoch() for _ in range(2)]
    assert not puts
    assert given.tolist() == [0.25] * num_seeds
    monkeypatch.undo()
    for record in records:  # 0.25 falls by 0.125 within 1000 steps, of which so many are done
        expected = np.float32(0.25 - 0.125 * record.env_step / 1000)
        np.testing.assert_allclose(record.eps_training, [expected] * num_seeds, rtol=1e-6)
        assert record.eps_inference.tolist() == [0.5] * num_seeds


def test_setters_take_one_number_or_one_for_each_seed():
    class Sets(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            policy = context.policy
            if epoch == 1:
                policy.set_eps_training(np.array([0.125, 0.25, 0.5]))
                policy.set_eps_inference([0.0, 0.5, 1.0])
                policy.set_learning_rate(jnp.array([1.0, 2.0, 4.0]))
                assert policy.eps_training.tolist() == [0.125, 0.25, 0.5]
                assert policy.eps_inference.tolist() == [0.0, 0.5, 1.0]
                assert policy.learning_rate.tolist() == [1.0, 2.0, 4.0]
                for wrong in ([0.1, 0.2], np.zeros((1, 3)), np.zeros((3, 1))):
                    for setter in (policy.set_eps_training, policy.set_eps_inference):
                        with pytest.raises((TypeError, ValueError), match="shape"):
                            setter(wrong)
            elif epoch == 2:
                policy.set_eps(0.75)
                policy.set_learning_rate(0)
                assert policy.eps_training.tolist() == policy.eps_inference.tolist() == [0.75] * 3
                assert policy.learning_rate.tolist() == [0.0] * 3
            else:
                policy.set_eps_schedule([1.0, 0.5, 0.0], 0.25, [240, 480, 0], env_step)
                assert policy.eps_training == pytest.approx(
                    [1 - 0.75 * 2 / 3, 0.5 - 0.25 / 3, 0.25]
                )

    history = trainer(Sets(), num_seeds=3).run().history
    assert history[1].eps_training.tolist() == [0.125, 0.25, 0.5]
    assert history[1].eps_inference.tolist() == [0.0, 0.5, 1.0]
    assert history[2].eps_training.tolist() == history[2].eps_inference.tolist() == [0.75] * 3
    assert history[3].eps_training == pytest.approx([0.25, 0.375, 0.25], abs=3e-7)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-0.1, ValueError),
        (1.5, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (None, TypeError),
        ("0.5", TypeError),
        ([[0.1], [0.2, 0.3]], TypeError),
        (object(), TypeError),
    ],
)
def test_setters_refuse_what_is_no_epsilon(value, error):
    class Sets(EpochTestCallback):
        def callback(self, epoch, env_step, context):
            policy = context.policy
            before = arrays(policy.state.epsilon)
            for setter in (policy.set_eps_training, policy.set_eps_inference, policy.set_eps):
                with pytest.raises(error, match="epsilon"):
                    setter(value)
            with pytest.raises(error, match="epsilon"):
                policy.set_eps_schedule(value, 0.1, 100, 0)
            with pytest.raises(error, match="epsilon"):
                policy.set_eps_schedule(0.1, value, 100, 0)
            if value != 1.5:
                with pytest.raises(error, match="learning_rate"):
                    policy.set_learning_rate(value)
            assert differing(before, arrays(policy.state.epsilon)) == []

    trainer(test=Sets(), max_epochs=0).run()


def test_a_member_is_its_row_of_the_state():
    class Members(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            for index in range(3):
                expected = member(context.state, index)
                assert differing(as_dict(context.member(index)), expected) == []

    trainer(Members(), num_seeds=3, max_epochs=1).run()


def test_the_state_of_all_seeds_can_be_put_back_after_one_stopped():
    class Scales(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            state = context.state
            assert all(a.shape[0] == 3 for a in arrays(state.params))
            if epoch == 2:
                assert state.buffer.obs.shape[0] == state.rollout.obs.shape[0] == 2
                params = jax.tree.map(lambda x: np.asarray(x) * 0.5, state.params)
                context.state = state.replace(params=params)

    learner = cartpole(learning_rate=0.0)
    for vectorize_seeds in (False, True):
        params = {"num_seeds": 3, "max_epochs": 2, "vectorize_seeds": vectorize_seeds}
        stop = StopAt([NEVER, 1, NEVER])
        plainly = trainer(stop=stop, learner=learner, **params).run()
        result = trainer(Scales(), stop=stop, learner=learner, **params).run()
        for a, b in zip(arrays(plainly.state.params), arrays(result.state.params), strict=True):
            np.testing.assert_array_equal(b[[0, 2]], 0.5 * a[[0, 2]])
            np.testing.assert_array_equal(b[1], a[1])  # a stopped seed keeps what it has
        assert differing(arrays(plainly.state.key), arrays(result.state.key)) == []


# --- going on ---


class Patience(EpochStopCallback):
    """Stops after so many tests in a row without a new highest mean."""

    def __init__(self, patience):
        self.patience = patience
        self.best = float("-inf")
        self.since = 0
        self.seen: list[Any] = []

    def should_stop(self, mean_rewards, context):
        self.seen.append([context.epoch, mean_rewards])
        self.since = 0 if mean_rewards > self.best else self.since + 1
        self.best = max(self.best, mean_rewards)
        return self.since >= self.patience


class Warms(EpochTrainCallback):
    """Sets a learning rate that depends on how often it was called: a train callback's state."""

    def __init__(self):
        self.calls = 0

    def callback(self, epoch, env_step, context):
        self.calls += 1
        context.policy.set_learning_rate(0.001 * self.calls)


def resumable(num_seeds, stop, vectorize_seeds=None):
    return trainer(
        [EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 250), Warms()],
        EpochTestCallbackDQNSetEps(0.05),
        stop,
        num_seeds=num_seeds,
        vectorize_seeds=vectorize_seeds,
        max_epochs=5,
        seed=11,
    )


def stop_states(result):
    def plainly(callback):
        return {k: v for k, v in vars(callback).items() if k != "kept"}

    return [
        [plainly(c) for c in (own if isinstance(own, list) else [own])] for own in result.callbacks
    ]


@pytest.mark.parametrize(("num_seeds", "vectorize_seeds"), [(1, None), (3, False), (3, True)])
def test_resume_is_exact(num_seeds, vectorize_seeds):
    # Of three seeds, number 1 has stopped before the snapshot and number 0 stops after it.
    def stop():
        return [Patience(4), StopAt([NEVER, 1, NEVER] if num_seeds == 3 else [NEVER])]

    def made():
        return resumable(num_seeds, stop(), vectorize_seeds)

    straight = made().run()
    if num_seeds == 3:
        assert straight.epoch[1] == 1

    first = made()
    for record in first.epochs():
        if record.epoch == 2:
            break
    snapshot = first.snapshot()
    goes_on = first.run()  # using up what the snapshot was taken of
    assert_same_run(goes_on, straight)
    assert stop_states(goes_on) == stop_states(straight)

    second = made()
    second.restore(snapshot)
    assert (second.context.epoch, second.context.env_step) == (2, 160)
    resumed = second.run()
    assert_same_run(resumed, straight)
    assert stop_states(resumed) == stop_states(straight)
    warms = second.callbacks.epoch_train_callback[1]
    assert warms.calls == straight.history[-1].epoch

    third = made()  # a snapshot serves more than once
    third.restore(snapshot)
    assert_same_run(third.run(), straight)


def test_a_patience_counter_is_part_of_the_snapshot():
    # Tests return 20, 10, 10, 10 ...: patience 3 stops at epoch 4, resumed at 2 or not.
    def made():
        return puppet_trainer(test=Play(ALL, *[HALF] * 9), stop=Patience(3), max_epochs=9)

    assert made().run().epoch == 4
    first, second = made(), made()
    for record in first.epochs():
        if record.epoch == 2:
            break
    second.restore(first.snapshot())
    result = second.run()
    assert (result.stopped, result.epoch) == (True, 4)
    assert result.callbacks[0].seen == [[1, 10.0], [2, 10.0], [3, 10.0], [4, 10.0]]
    assert (result.best_score, result.best_epoch) == (20.0, 0)


def test_a_finished_run_restores_as_finished():
    run = trainer(stop=StopAt([2]))
    straight = run.run()
    twin = trainer(stop=StopAt([2]))
    twin.restore(run.snapshot())
    assert_same_run(twin.run(), straight)
    assert [record.epoch for record in twin.context.history] == [0, 1, 2]


@pytest.mark.parametrize(("num_seeds", "vectorize_seeds"), [(1, None), (3, False), (3, True)])
def test_a_trainer_goes_back_to_its_own_snapshot(num_seeds, vectorize_seeds):
    stop = StopAt([2, NEVER, 2])
    run = trainer(stop=stop, num_seeds=num_seeds, vectorize_seeds=vectorize_seeds)
    for record in run.epochs():
        if record.epoch == 1:
            break
    snapshot = run.snapshot()
    straight = run.run()
    run.restore(snapshot)
    assert run.context.epoch == 1
    assert_same_run(run.run(), straight)


def test_epochs_is_a_generator_and_run_goes_on_after_it(plain):
    held = trainer()
    seen = []
    for record in held.epochs():
        seen.append((record.epoch, held.context.epoch, held.context.env_step))
        if record.epoch == 1:
            break
    assert seen == [(0, 0, 0), (1, 1, 80)]
    assert held.result().epoch == 1
    assert_same_run(held.run(), plain)
    assert list(held.epochs()) == []  # done
    assert_same_run(held.result(), plain)


def test_an_epochs_generator_that_is_still_held_does_not_stand_in_the_way(plain):
    held = trainer()
    epochs = held.epochs()
    next(epochs), next(epochs)
    assert_same_run(held.run(), plain)
    assert list(epochs) == []


def test_a_result_in_between_outlives_the_next_epoch():
    held = trainer()
    epochs = held.epochs()
    next(epochs), next(epochs)
    between = held.result()
    expected = arrays(between.state)
    next(epochs)
    assert differing(arrays(between.state), expected) == []
    assert len(between.history) == 2


def test_a_callback_cannot_run_the_trainer_again():
    class Again(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            self.trainer.run()

    again = Again()
    again.trainer = run = trainer(again)
    with pytest.raises(JaxrlError, match=r"^Again\.callback, epoch 1: .*running"):
        run.run()


class Fails(EpochTrainCallback):
    def __init__(self, error):
        self.error = error

    def callback(self, epoch, env_step, context):
        if epoch == 2:
            raise self.error


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), StopIteration("mine")])
def test_an_error_of_a_callback_comes_out_as_it_is(error):
    failing = trainer(Fails(error))
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        failing.run()
    assert caught.value is error
    assert error.__notes__ == ["Fails.callback, epoch 2"]
    assert [record.epoch for record in failing.context.history] == [0, 1]


class FailsOnce(EpochTestCallback):
    """Raises in one epoch, the first time."""

    def __init__(self, epoch):
        self.epoch = epoch

    def callback(self, epoch, env_step, context):
        if epoch == self.epoch:
            self.epoch = None
            raise KeyError("mine")


@pytest.mark.parametrize("epoch", [0, 2, 3])
def test_a_run_goes_on_with_the_test_whose_callback_raised(epoch, plain):
    run = trainer(test=FailsOnce(epoch))
    with pytest.raises(KeyError, match="mine"):
        run.run()
    assert [record.epoch for record in run.context.history] == list(range(epoch))
    assert_same_run(run.run(), plain)


class AsksInVain(EpochStopCallback):
    """Raises the first time that seed 1 is asked about in epoch 2; stops seed 0 there."""

    asked: list = []  # noqa: RUF012, over the copies of all seeds
    has_failed = False

    def should_stop(self, mean_rewards, context):
        AsksInVain.asked.append((context.epoch, context.seed))
        if (context.epoch, context.seed) == (2, 1) and not AsksInVain.has_failed:
            AsksInVain.has_failed = True
            raise KeyError("mine")
        return (context.epoch, context.seed) == (2, 0)


def test_a_run_goes_on_with_the_seeds_whose_stop_callback_has_not_answered():
    run = trainer(stop=AsksInVain(), num_seeds=3)
    with pytest.raises(KeyError, match="mine"):
        run.run()
    result = run.run()
    assert result.epoch.tolist() == [2, 3, 3]
    assert [record.epoch for record in result.history] == [0, 1, 2, 3]
    expected = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert AsksInVain.asked == expected


# --- lengths ---


def test_epochs_that_the_environments_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="epoch_num_steps=82") as caught:
        trainer(epoch_num_steps=82)
    assert "80" in str(caught.value)
    assert "84" in str(caught.value)


def test_chunks_do_not_change_a_bit():
    def run(**params):
        decay = EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.05, 3000)
        learner = puppet(learning_rate=0.01)
        return puppet_trainer(decay, learner=learner, max_epochs=2, **params).run()

    params = dataclasses.replace(PUPPET, chunk_num_steps=700)
    assert params.chunk_lengths(8) == [84, 83, 83]
    whole, cut = run(), run(chunk_num_steps=700)
    assert whole.state.params["q"].any()
    assert differing(cut.state, whole.state) == []
    for mine, other in zip(rows(cut.history), rows(whole.history), strict=True):
        for name in ("train_loss", "train_return"):  # sums of float32, in another order
            np.testing.assert_allclose(mine.pop(name), other.pop(name), rtol=1e-5)
        assert differing(mine, other) == []


def test_chunk_lengths_add_up_in_at_most_two_sizes():
    for total in range(1, 40):
        for longest in range(1, 45):
            params = TrainerParams(epoch_num_steps=4 * total, chunk_num_steps=4 * longest)
            lengths = params.chunk_lengths(4)
            assert sum(lengths) == total
            assert max(lengths) <= longest
            assert len(set(lengths)) <= 2
            assert max(lengths) - min(lengths) <= 1


def test_environments_of_a_ladder_act_at_their_own_epsilon():
    """One step of 400 environments at 0.5 and 0.5^9: the first half is the more random one.

    The network is greedy for one action in all of them, so that whatever else was done was random.
    """
    settings = {"num_envs": 400, "buffer_size": 20_000, "start_timesteps": 0, "batch_size": 128}
    settings |= {"epsilon_start": 0.5, "epsilon_final": 0.5, "epsilon_ladder": 8.0}
    settings |= {"samples_per_insert": 0.0, "hidden_sizes": (4,), "epoch_num_steps": 20_000}
    config = resolve(None, "dqn", settings | {"max_epochs": 1})
    learner = config.build_learner(make("CartPole-v1"))
    state = Trainer(learner, config.trainer).run().state
    obs, action = (np.asarray(x)[0] for x in (state.buffer.obs, state.buffer.action))
    params = jax.tree.map(lambda x: x[0], state.params)
    q = jax.vmap(jax.vmap(learner.algorithm.q_values, (None, 0, None)), (None, 0, None))
    greedy = np.asarray(q(params, obs, None)).argmax(axis=-1)
    other = action != greedy  # half of the random ones
    expected = 0.5 ** (1 + 8 * np.arange(400) / 399) / 2
    for own in np.array_split(np.arange(400), 4):
        deviation = np.sqrt(expected[own].mean() / other[:, own].size)
        assert abs(other[:, own].mean() - expected[own].mean()) < 5 * deviation
