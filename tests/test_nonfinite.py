"""NaN and infinity: found at the chunk's end, told since when, and kept to the seed they are in.

At which step an environment gives which bad number stands in its state, where a callback writes it:
the runs that break and the one that does not are the same compiled program.
"""

import copy
import dataclasses
import functools
import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_trainer import NEVER as NO_EPOCH
from test_trainer import StopAt, arrays, assert_same_run, differing, member, rows

import jaxrl_cb
from jaxrl_cb.algorithms import DQN
from jaxrl_cb.display import Display, progress_text
from jaxrl_cb.envs import functional
from jaxrl_cb.envs.environment import checked
from jaxrl_cb.errors import ConfigError, JaxrlError, NonFiniteError, NonFiniteWarning
from jaxrl_cb.learners import (
    Exploration,
    OptimizerConfig,
    ReplayConfig,
    ReplayLearner,
    TargetConfig,
)
from jaxrl_cb.learners.acting import act_shape
from jaxrl_cb.networks import MLP
from jaxrl_cb.ops.counters import NEVER
from jaxrl_cb.ops.finite import all_finite, index_if_nonfinite, num_nonfinite
from jaxrl_cb.ops.randomness import draw
from jaxrl_cb.trainer import (
    EpochStopCallback,
    EpochTestCallback,
    EpochTrainCallback,
    MemoryLogger,
    Trainer,
    TrainerCallbacks,
    TrainerParams,
)

NAN, INF = float("nan"), float("inf")
ENVS, PREFILL, STEPS = 4, 10, 20  # environments; vector steps of the prefill and of an epoch


@functools.cache
def counting(reward=1.0, obs=1.0, *, at=NEVER, share=1.0, limit=90):
    """Environments that count their steps and may be broken from the start.

    Args:
        reward: of the step with the number that stands in the state under "at".
        obs: the second element of the observation that this step leads to.
        at: that number; 1 is the first step of an episode.
        share: of the episodes, at random, that it is written into; the others have `NEVER`.
        limit: steps of an episode, by default more than there are in a run.
    """

    def seen(count, second=1.0):
        return jnp.stack([count.astype(jnp.float32) / 100, jnp.float32(second)])

    def reset(key):
        breaks = jax.random.bernoulli(key, share)
        count, first = jnp.int32(0), jnp.where(breaks, at, NEVER).astype(jnp.int32)
        faults = {"reward": jnp.float32(reward), "obs": jnp.float32(obs)}
        return {"count": count, "at": first, **faults}, seen(count)

    def step(key, state, action):
        state = {**state, "count": state["count"] + 1}
        is_bad = state["count"] == state["at"]
        values = {name: jnp.where(is_bad, state[name], 1.0) for name in ("reward", "obs")}
        is_over = state["count"] >= limit
        return state, seen(state["count"], values["obs"]), values["reward"], False, is_over

    return functional(reset, step, num_actions=2, time_limit=limit, id="Counting-v0")


@functools.cache
def bad_after_an_end():
    """Episodes of 20 steps, after each of which the next one begins with NaN."""
    env = counting(limit=20)

    def step(*inputs):
        result = env.step(*inputs)
        return result._replace(obs=jnp.where(result.truncated, jnp.float32(NAN), result.obs))

    return checked(env.spec, env.reset, step, ("bad-after-an-end", env))


@functools.cache
def learner(environment, rate="1", learning_rate=1e-3):
    """`rate` gradient steps of a batch of 16 for each vector step of 4 environments."""
    samples_per_insert = {"0.3": 1.2, "1": 4.0, "2.5": 10.0, "3": 12.0}[rate]
    return ReplayLearner(
        environment,
        DQN(MLP(2, (16,))),
        ReplayConfig(
            num_envs=ENVS,
            buffer_size=400,
            batch_size=16,
            samples_per_insert=samples_per_insert,
            start_timesteps=ENVS * PREFILL,
        ),
        TargetConfig(tau=0.5),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        exploration=Exploration(epsilon_start=0.5, epsilon_final=0.5),
    )


class Breaks(EpochTrainCallback):
    """Before epoch `epoch`, writes the vector step since then that breaks, of some seeds, and what
    is bad then: "reward" or "obs", a NaN reward if nothing is said.
    """

    def __init__(self, steps, epoch=1, envs=(2,), **fault):
        self.steps = dict(steps)  # by index of the seed
        self.epoch = epoch
        self.envs = list(envs)
        self.fault = fault or FAULTS["reward"]

    def callback(self, epoch, env_step, context):
        if epoch != self.epoch:
            return
        state = context.state
        env_state = jax.tree.map(np.array, state.rollout.env_state)
        for index, step in self.steps.items():
            counts = env_state["count"][index, self.envs]
            env_state["at"][index, self.envs] = counts + step
            for name in self.fault.keys() & env_state.keys():
                env_state[name][index, self.envs] = self.fault[name]
        context.state = state.replace(rollout=state.rollout.replace(env_state=env_state))


FAULTS = {"reward": {"reward": NAN}, "observation": {"obs": INF}}
PARAMS = TrainerParams(max_epochs=3, epoch_num_steps=ENVS * STEPS, num_test_episodes=3)


def trainer(environment, train=None, test=None, stop=None, *, logger=None, **params):
    own = {name: params.pop(name) for name in ("rate", "learning_rate") if name in params}
    return Trainer(
        learner(environment, **own),
        dataclasses.replace(PARAMS, **params),
        TrainerCallbacks(train, test, stop),
        logger,
    )


def caught(run):
    """The result of a run, and the texts of its warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = run.run()
    assert all(w.category is NonFiniteWarning for w in found)
    return result, [str(w.message) for w in found]


def told(text):
    """What a text says: seed, epoch, first bad environment step and gradient update."""

    def number(pattern):
        match = re.search(pattern, text)
        return int(match.group(1)) if match else None

    patterns = (r"seed (\d+)", r"epoch (\d+)", r"environment step (\d+)", r"update (\d+)")
    return tuple(number(pattern) for pattern in patterns)


MODES = [(1, None), (3, False), (3, True)]  # seeds, and whether they are vectorized


# --- the mathematics ---


def test_places_with_a_bad_number_are_counted_once():
    a = jnp.array([[1.0, NAN], [0.0, 0.0], [INF, NAN], [0.0, 1.0]])
    b = jnp.array([1.0, -INF, 0.0, 2.0])
    assert int(num_nonfinite(a, b)) == 3
    assert int(num_nonfinite(b)) == 1
    assert int(num_nonfinite(jnp.zeros((4, 2), jnp.int32), jnp.zeros(4, bool))) == 0
    assert num_nonfinite(a, b).dtype == num_nonfinite(jnp.zeros(3, bool)).dtype == jnp.int32


def test_an_index_is_kept_where_the_value_is_bad():
    found = [int(index_if_nonfinite(jnp.float32(x), jnp.int32(7))) for x in (0.0, NAN, INF, -INF)]
    assert found == [NEVER, 7, 7, 7]


def test_a_tree_is_finite_where_all_its_leaves_are():
    fine = {"a": jnp.ones((2, 2)), "b": jnp.int32(3)}
    assert bool(all_finite(fine))
    assert not bool(all_finite({**fine, "c": jnp.array([0.0, NAN])}))


# --- where it is found ---


@pytest.mark.parametrize(
    ("fault", "step"), [("reward", 1), ("reward", 20), ("observation", 1), ("observation", 20)]
)
def test_the_first_bad_environment_step_is_told(fault, step):
    run = trainer(counting(), Breaks({0: step}, **FAULTS[fault]), seed=5)
    _, (text,) = caught(run)
    seed, epoch, env_step, _ = told(text)
    assert (seed, epoch, env_step) == (5, 1, ENVS * step)
    assert "a reward or an observation" in text
    assert f"vector step {step} of 4 environments" in text


@pytest.mark.parametrize("chunk_num_steps", [28, 1000])
def test_chunks_do_not_change_what_is_told(chunk_num_steps):
    run = trainer(counting(), Breaks({0: 11}, epoch=2), chunk_num_steps=chunk_num_steps)
    result, (text,) = caught(run)
    assert told(text)[:3] == (0, 2, ENVS * (STEPS + 11))
    end = {28: 14, 1000: 20}[chunk_num_steps]  # of the chunk that it is in: 7, 7, 6 or 20 steps
    assert result.env_step == ENVS * (STEPS + end)
    assert int(result.state.num_updates) == result.history[-1].num_updates == STEPS + end


def test_a_bad_first_observation_of_an_episode_is_found_at_the_step_before_it():
    _, (text,) = caught(trainer(bad_after_an_end()))
    assert told(text)[2] == ENVS * (20 - PREFILL)


def first_update_with_a_bad_reward(learner, bad_step, num_vector_steps):
    """By hand: the first gradient step with a NaN reward in its minibatch.

    Each step is taken alone, and its minibatches are drawn once more.
    """
    ring, rate = learner._ring(), learner.replay.rate
    most = -(-rate.numerator // rate.denominator)
    shapes = (act_shape(ENVS, jax.random.key(0)), (2, most, learner.replay.batch_size), (most, 4))

    @jax.jit
    def stepped(state):
        _, _, words, _ = draw(state.key, *shapes)
        state, _ = learner.step(state)
        gamma = state.hyperparams.gamma
        drawn = ring.sample(words, state.buffer, state.rollout, n=1, gamma=gamma).transition
        return state, jnp.any(jnp.isnan(drawn.reward), axis=1)

    state = jax.jit(learner.init)(np.uint32(0), *learner.initial_values(240))
    env_state = state.rollout.env_state
    at = env_state["at"].at[2].set(env_state["count"][2] + bad_step)
    env_state = {**env_state, "at": at, "reward": env_state["reward"].at[2].set(NAN)}
    state = state.replace(rollout=state.rollout.replace(env_state=env_state))
    found = []
    for number in range(num_vector_steps):
        state, is_bad = stepped(state)
        num_due = learner.num_updates(number + 1) - learner.num_updates(number)
        found += np.asarray(is_bad)[:num_due].tolist()
    return found.index(True) + 1


@pytest.mark.parametrize("rate", ["0.3", "2.5"])
def test_the_first_bad_gradient_step_is_told_for_every_rate(rate):
    expected = first_update_with_a_bad_reward(learner(counting(), rate), 3, 60)
    settings = {"rate": rate, "max_epochs": 1, "epoch_num_steps": 240}
    _, (text,) = caught(trainer(counting(), Breaks({0: 3}), **settings))
    assert told(text) == (0, 1, 12, expected)


@pytest.mark.parametrize(("rate", "chunk_num_steps"), [("0.3", 20), ("3", 1000)])
def test_a_learning_rate_that_diverges_is_found_at_its_second_step(rate, chunk_num_steps):
    # The loss of the first step is that of the first parameters; Adam's first step then has the
    # size of the learning rate, so that the next loss, a square, is beyond float32.
    settings = {"rate": rate, "chunk_num_steps": chunk_num_steps}
    _, (text,) = caught(trainer(counting(), learning_rate=1e30, **settings))
    assert told(text) == (0, 1, None, 2)
    assert "learning_rate=1e+30" in text


def test_the_step_found_is_the_first_whose_loss_is_not_finite():
    # One chunk for each step: the records have the losses of all steps.
    settings = {"learning_rate": 1e18, "max_epochs": 30, "epoch_num_steps": ENVS}
    run = trainer(counting(), on_nan="warn", **settings)
    result, (text,) = caught(run)
    losses = np.array([record.train_loss[0] for record in result.history[1:]])
    first = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
    assert told(text) == (0, first, None, first)
    _, (whole,) = caught(trainer(counting(), learning_rate=1e18, max_epochs=1))
    assert told(whole) == (0, 1, None, first)


def test_parameters_that_are_not_finite_after_a_chunk_are_found():
    class Spoils(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            if epoch == 2:
                params = jax.tree.map(
                    lambda x: np.full(x.shape, INF, x.dtype), context.state.params
                )
                context.state = context.state.replace(params=params)

    # One vector step in each epoch, and no gradient step yet: no loss can tell.
    settings = {"rate": "0.3", "max_epochs": 3, "epoch_num_steps": ENVS}
    result, (text,) = caught(trainer(counting(), Spoils(), **settings))
    assert f"parameters are NaN or infinite at environment step {2 * ENVS}" in text
    assert (result.diverged, result.epoch, result.best_epoch) == (True, 2, 1)


# --- what becomes of it ---


def test_raise_raises_before_any_test():
    tested = []

    class Tested(EpochTestCallback):
        def callback(self, epoch, env_step, context):
            tested.append(epoch)

    run = trainer(counting(), Breaks({0: 7}, epoch=2), Tested(), seed=9, on_nan="raise")
    with pytest.raises(NonFiniteError) as error:
        run.run()
    assert isinstance(error.value, JaxrlError)
    assert isinstance(error.value, FloatingPointError)
    text = str(error.value)
    assert told(text)[:3] == (9, 2, ENVS * (STEPS + 7))
    for words in ("lower learning_rate=0.001", "jaxrl_cb.check_environment", "debug=True"):
        assert words in text
    assert tested == [0, 1]
    assert [record.epoch for record in run.context.history] == [0, 1]


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_raise_names_every_seed_that_broke(vectorize_seeds):
    breaks = Breaks({0: 3, 2: 5})
    params = {"num_seeds": 3, "seed": 4, "vectorize_seeds": vectorize_seeds}
    with pytest.raises(NonFiniteError) as error:
        trainer(counting(), breaks, on_nan="raise", **params).run()
    assert re.findall(r"seed (\d+)", str(error.value)) == ["4", "6"]


@pytest.mark.parametrize(("num_seeds", "vectorize_seeds"), MODES)
def test_warn_warns_once_for_each_seed_and_changes_nothing(num_seeds, vectorize_seeds):
    params = {"num_seeds": num_seeds, "vectorize_seeds": vectorize_seeds}
    breaks = Breaks({num_seeds - 1: 7})
    run = trainer(counting(), breaks, on_nan="warn", **params)
    result, (text,) = caught(run)
    assert told(text)[0] == num_seeds - 1
    assert not np.any(result.diverged)
    assert np.all(np.atleast_1d(result.epoch) == 3)
    assert np.isnan(result.history[-1].train_loss[-1])
    assert not np.isnan(result.history[-1].returns).any()
    assert run.progress.diverged == {}


class Counts(EpochStopCallback):
    """Keeps the epochs it was asked in, and never stops."""

    def __init__(self):
        self.epochs = []

    def should_stop(self, mean_rewards, context):
        self.epochs.append(context.epoch)
        return False


@pytest.mark.parametrize("fault", FAULTS)
def test_stop_ends_a_run_of_one_seed(fault):
    stop, logger = Counts(), MemoryLogger()
    breaks = Breaks({0: 7}, epoch=2, **FAULTS[fault])
    run = trainer(counting(), breaks, stop=stop, logger=logger, seed=3)
    result, (text,) = caught(run)
    assert told(text)[:3] == (3, 2, ENVS * (STEPS + 7))
    assert (result.diverged, result.stopped, result.epoch) == (True, False, 2)
    assert type(result.diverged) is bool
    assert result.env_step == 2 * ENVS * STEPS
    assert stop.epochs == [1]
    record = result.history[-1]
    assert record.epoch == 2
    assert np.isnan(record.returns).all()
    assert (record.lengths == -1).all()
    for name in ("train_loss", "train_return", "eps_training", "eps_inference", "mean"):
        assert np.isnan(getattr(record, name)).all(), name
    assert record.num_masked.tolist() == [-1]
    assert [r.epoch for r in result.history] == [0, 1, 2]
    assert result.best_epoch in (0, 1)
    assert np.isfinite(result.best_score)
    assert all(np.isfinite(a).all() for a in arrays(result.best_policy.params))
    assert json.loads(json.dumps(run.progress.diverged)) == {"0": text}
    tests = [row for kind, _, row in logger.rows if kind == "test/env_step"]
    assert len(tests) == 3
    assert "diverged=True" in repr(result)


@pytest.fixture(scope="module")
def healthy():
    """By whether it is vectorized, a run of three seeds in which nothing breaks."""

    def run(vectorize_seeds):
        params = {"num_seeds": 3, "seed": 5, "vectorize_seeds": vectorize_seeds}
        return trainer(counting(), Breaks({}), **params).run()

    return functools.cache(run)


@pytest.mark.parametrize("chunk_num_steps", [1000, 32])
@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_the_other_seeds_do_not_notice(vectorize_seeds, chunk_num_steps, healthy):
    params = {"num_seeds": 3, "seed": 5, "vectorize_seeds": vectorize_seeds}
    params |= {"chunk_num_steps": chunk_num_steps}
    stop = StopAt([NO_EPOCH] * 3)
    run = trainer(counting(), Breaks({1: 3}, epoch=2), stop=stop, **params)
    result, (text,) = caught(run)
    assert told(text)[:3] == (6, 2, ENVS * (STEPS + 3))
    assert list(run.progress.diverged) == [1]
    assert result.diverged.tolist() == [False, True, False]
    assert result.stopped.tolist() == [False, False, False]
    assert result.epoch.tolist() == [3, 2, 3]
    end = run.params.chunk_lengths(ENVS)[0]
    assert result.env_step.tolist() == [240, 80 + ENVS * end, 240]
    assert [[asked[1] for asked in c.asked] for c in result.callbacks] == [
        [1, 2, 3],
        [1],
        [1, 2, 3],
    ]
    plain = healthy(vectorize_seeds)
    for index in (0, 2):
        small = [run.state.replace(buffer=None, rollout=None) for run in (result, plain)]
        assert differing(*(member(state, index) for state in small)) == []
        for a, b in zip(rows(result.history, index), rows(plain.history, index), strict=True):
            for name in ("train_loss", "train_return"):  # sums, by chunk
                np.testing.assert_allclose(a.pop(name), b.pop(name), rtol=1e-5)
            assert differing(a, b) == []
        assert differing(result.policy[index].params, plain.policy[index].params) == []
    # Replay and rollout are those of the seeds that still run.
    large = [arrays((run.state.buffer, run.state.rollout)) for run in (result, plain)]
    for a, b in zip(*large, strict=True):
        np.testing.assert_array_equal(a, b[[0, 2]] if a.shape != b.shape else b)
    for record in result.history[2:]:
        assert np.isnan(record.returns[1]).all()
        assert (record.lengths[1] == -1).all()
        assert np.isnan([record.train_loss[1], record.eps_training[1]]).all()
    assert result.best_score[1] == max(r.mean[1] for r in result.history[:2])


def test_a_seed_that_diverged_is_the_run_alone_that_did():
    params = {"num_seeds": 3, "seed": 5, "vectorize_seeds": False}
    together, _ = caught(trainer(counting(), Breaks({1: 3}, epoch=2), **params))
    alone, _ = caught(trainer(counting(), Breaks({0: 3}, epoch=2), seed=6))
    others = trainer(counting(), Breaks({}), seed=7).run()
    for field in ("params", "opt_state", "key", "epsilon"):
        for index, run in ((1, alone), (2, others)):
            mine = [a[index : index + 1] for a in arrays(getattr(together.state, field))]
            assert differing(mine, arrays(getattr(run.state, field))) == [], field
    assert differing(rows(together.history[:3], 1), rows(alone.history)) == []


def test_seeds_that_break_in_different_chunks_end_the_run_together():
    params = {"num_seeds": 3, "vectorize_seeds": True, "chunk_num_steps": 20}  # 5 vector steps
    run = trainer(counting(), Breaks({0: 2, 1: 13, 2: 9}), **params)
    result, texts = caught(run)
    assert [told(text)[:3] for text in texts] == [(0, 1, 8), (2, 1, 36), (1, 1, 52)]
    assert result.env_step.tolist() == [20, 60, 40]
    assert [record.epoch for record in result.history] == [0, 1]
    assert result.history[1].env_step == 60  # the last chunk was not needed
    assert result.history[1].num_updates == 15
    assert result.best_epoch.tolist() == [0, 0, 0]


def test_no_stop_of_a_diverged_seed_compiles(compiles):
    for vectorize_seeds in (False, True):
        params = {"num_seeds": 3, "max_epochs": 4, "vectorize_seeds": vectorize_seeds}
        run = trainer(counting(), Breaks({0: 3, 2: 30}, epoch=2), **params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NonFiniteWarning)
            epochs = run.epochs()
            next(epochs), next(epochs)
            compiles()
            assert [record.epoch for record in epochs] == [2, 3, 4]
            assert run.result().diverged.tolist() == [True, False, True]
        assert compiles() == 0


# --- the prefill ---


def prefill_seeds(environment):
    """The first of three seeds of which only the second has an environment that breaks."""
    own = learner(environment)
    init = jax.jit(jax.vmap(lambda seed: own.init(seed, *own.initial_values(240))))
    at = np.asarray(init(np.arange(40, dtype=np.uint32)).rollout.env_state["at"])
    breaks = (at != NEVER).any(axis=1).tolist()
    return next(seed for seed in range(38) if breaks[seed : seed + 3] == [False, True, False])


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_a_bad_prefill_ends_a_seed_before_training(vectorize_seeds):
    environment = counting(reward=NAN, at=3, share=0.05)
    first = prefill_seeds(environment)
    params = {"num_seeds": 3, "seed": first, "vectorize_seeds": vectorize_seeds, "max_epochs": 1}
    run = trainer(environment, **params)
    result, (text,) = caught(run)
    assert told(text) == (first + 1, 0, None, None)
    assert "in the prefill" in text
    assert result.diverged.tolist() == [False, True, False]
    assert result.epoch.tolist() == [1, 0, 1]
    assert result.env_step.tolist() == [80, 0, 80]
    assert np.isnan([record.mean[1] for record in result.history]).all()
    assert np.isnan(result.best_score[1])
    assert result.best_epoch[1] == 0
    assert differing(result.best_policy[1].params, result.policy[1].params) == []


@pytest.mark.parametrize("on_nan", ["stop", "raise", "warn"])
def test_a_bad_prefill_of_one_seed(on_nan):
    run = trainer(counting(obs=INF, at=PREFILL), on_nan=on_nan, seed=8)
    if on_nan == "raise":
        with pytest.raises(NonFiniteError, match=r"seed 8, epoch 0: .* in the prefill"):
            run.run()
        return
    result, texts = caught(run)
    assert told(texts[0]) == (8, 0, None, None)
    assert len(texts) == 1
    assert len(result.history) == {"stop": 1, "warn": 4}[on_nan]
    assert result.diverged is (on_nan == "stop")


def test_a_step_after_the_prefill_is_not_the_prefills():
    _, (text,) = caught(trainer(counting(obs=INF, at=PREFILL + 1)))
    assert told(text)[:3] == (0, 1, ENVS)


# --- going on ---


@pytest.mark.parametrize(("num_seeds", "vectorize_seeds"), MODES)
def test_resume_with_a_diverged_seed_is_exact(num_seeds, vectorize_seeds):
    def made():
        params = {"num_seeds": num_seeds, "vectorize_seeds": vectorize_seeds, "max_epochs": 4}
        return trainer(counting(), Breaks({num_seeds // 2: 3}, epoch=2), **params)

    straight, _ = caught(made())
    first = made()
    epochs = first.epochs()
    next(epochs), next(epochs)
    with pytest.warns(NonFiniteWarning):
        next(epochs)
    snapshot = copy.deepcopy(first.snapshot())
    second = made()
    second.restore(snapshot)
    assert second.progress.diverged == first.progress.diverged
    for run in (first, second):  # no warning: it was told before
        result = run.run()
        assert_same_run(result, straight)
        np.testing.assert_array_equal(result.diverged, straight.diverged)


def test_a_trainer_that_goes_back_finds_it_again():
    run = trainer(counting(), Breaks({0: 3}, epoch=2))
    for record in run.epochs():
        if record.epoch == 1:
            break
    snapshot = run.snapshot()
    straight, first = caught(run)
    run.restore(snapshot)
    assert run.progress.diverged == {}
    again, second = caught(run)
    assert first == second
    assert_same_run(again, straight)


# --- debug ---


def divide_by_zero():
    """An environment that divides nothing by nothing at the step that stands in its state."""

    def reset(key):
        return {"count": jnp.int32(0), "at": jnp.int32(NEVER)}, jnp.ones(2)

    def step(key, state, action):
        state = {**state, "count": state["count"] + 1}
        left = jnp.minimum(jnp.abs(state["at"] - state["count"]), 1).astype(jnp.float32)
        reward = left / left  # the fault
        return state, jnp.ones(2), reward, False, state["count"] >= 90

    return functional(reset, step, num_actions=2, time_limit=90)


DIVIDES = divide_by_zero()
with open(__file__) as source:
    FAULT_LINE = 1 + next(i for i, line in enumerate(source) if "# the fault" in line)


@pytest.mark.parametrize(("num_seeds", "vectorize_seeds"), MODES)
def test_debug_tells_the_operation_and_its_line(num_seeds, vectorize_seeds):
    params = {"num_seeds": num_seeds, "vectorize_seeds": vectorize_seeds, "debug": True}
    breaks = Breaks({num_seeds // 2: 7}, epoch=2)
    _, (text,) = caught(trainer(DIVIDES, breaks, max_epochs=2, **params))
    assert told(text)[:3] == (num_seeds // 2, 2, ENVS * (STEPS + 7))
    assert "vector step 7 of the chunk's 20" in text
    assert "nan generated by primitive: div" in text
    assert f"test_nonfinite.py:{FAULT_LINE}" in text
    assert "debug=True" not in text


def test_debug_tells_what_became_infinite():
    _, (text,) = caught(trainer(counting(), Breaks({0: 7}, obs=INF), debug=True))
    assert "vector step 7 of the chunk's 20: no operation made NaN" in text
    assert "but an observation became infinite" in text
    _, (text,) = caught(trainer(counting(), Breaks({0: 1}, reward=INF), debug=True))
    assert "vector step 1 of the chunk's 20: no operation made NaN" in text
    assert "but a reward became infinite" in text


def test_debug_changes_no_bit_and_leaves_a_good_run_alone(compiles):
    plain = trainer(counting()).run()
    compiles()
    assert_same_run(trainer(counting(), debug=True).run(), plain)
    assert compiles() == 0


# --- settings, and what is shown and written ---


def test_on_nan_and_debug_are_checked_settings():
    with pytest.raises(ConfigError, match="on_nan='ignore' is not one of 'stop', 'raise', 'warn'"):
        TrainerParams(on_nan="ignore")
    with pytest.raises(ConfigError, match="debug=1 is an int"):
        TrainerParams(debug=1)
    assert (TrainerParams().on_nan, TrainerParams().debug) == ("stop", False)


TINY = {
    "num_envs": 4,
    "batch_size": 16,
    "buffer_size": 400,
    "start_timesteps": 40,
    "epoch_num_steps": 80,
    "num_test_episodes": 3,
    "hidden_sizes": (16,),
    "max_epochs": 3,
}


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_train_writes_and_shows_what_diverged(num_seeds, tmp_path, capsys):
    with pytest.warns(NonFiniteWarning, match="update 2"):
        result = jaxrl_cb.train(
            counting(),
            learning_rate=1e30,
            on_nan="stop",
            num_seeds=num_seeds,
            run_dir=tmp_path / "run",
            **TINY,
        )
    assert "NaN or infinity ended the run" in capsys.readouterr().out
    data = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert data["diverged"] == [True] * num_seeds
    assert data["stopped"] == [False] * num_seeds
    assert (tmp_path / "run" / "learning_curve.png").is_file()
    best = jaxrl_cb.load_policy(tmp_path / "run")
    assert all(np.isfinite(a).all() for a in arrays(best.params))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert np.atleast_1d(last["test/return_mean"]).tolist() == [None] * num_seeds
    with Display() as shown:
        shown.on_epoch(result.history[0])
        shown.on_epoch(result.history[-1])
    shown.summary(result, tmp_path)
    text = capsys.readouterr().out
    assert "diverged" in text
    assert "budget used" not in text


def test_progress_of_some_seeds_counts_those_that_run():
    run = trainer(counting(), Breaks({1: 3}), num_seeds=3, max_epochs=1)
    result, _ = caught(run)
    assert progress_text(result.history[-1]).startswith("2/3 seeds")
