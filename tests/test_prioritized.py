"""Prioritised replay: the sum tree, which windows can be drawn, how often, and with what weight."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxrl_cb
from jaxrl_cb.buffers import PrioritizedRing
from jaxrl_cb.buffers.priorities import BRANCHES, SumTree
from jaxrl_cb.buffers.ring import Draw, Place
from jaxrl_cb.config import resolve
from jaxrl_cb.envs import make
from jaxrl_cb.errors import CallbackValueError, ConfigError
from jaxrl_cb.learners import ReplayConfig
from jaxrl_cb.ops.segments import segment, value_at
from jaxrl_cb.trainer import EpochTrainCallback, TrainerCallbacks
from jaxrl_cb.types import Experience, Rollout, Transition

SIZES = [1, 15, 16, 17, 255, 256, 257, 5_000]


def tree_of(weights):
    """A tree over given weights, and it itself."""
    tree = SumTree(len(weights))
    leaves = jnp.arange(len(weights), dtype=jnp.int32)
    return tree, tree.changed(tree.init(), leaves, jnp.asarray(weights, jnp.float32))


def check_sums(levels):
    for below, level in itertools.pairwise(levels):
        sums = np.asarray(below).reshape(-1, BRANCHES).sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(level[: len(sums)], sums, rtol=1e-6)
        assert not np.any(level[len(sums) :])


# --- the tree ---


@pytest.mark.parametrize("size", SIZES)
def test_each_node_is_the_sum_of_its_children_whatever_is_changed(size):
    tree, rng = SumTree(size), np.random.default_rng(size)
    count = min(size, 5)

    @jax.jit
    def changed(levels, leaves, weights, start, weight):
        levels = tree.changed(levels, leaves, weights)
        return tree.filled(levels, count, (start, weight), (jnp.int32(0), weight))

    levels, expected = tree.init(), np.zeros(size, np.float32)
    for _ in range(20):
        leaves = rng.integers(0, size + 3, 12).astype(np.int32)  # the last ones are no leaves
        leaves = np.where(leaves < size, leaves, len(levels[0]))
        weights = rng.random(12, dtype=np.float32)
        start, weight = np.int32(rng.integers(0, size - count + 1)), np.float32(rng.random())
        levels = changed(levels, leaves, weights, start, weight)
        for leaf in set(leaves.tolist()) - {len(levels[0])}:
            expected[leaf] = weights[leaves == leaf].max()  # of those named twice the greatest
        expected[start : start + count] = weight
        expected[:count] = weight
        np.testing.assert_array_equal(levels[0][:size], expected)
        check_sums(levels)


@pytest.mark.parametrize("size", SIZES)
def test_leaves_are_drawn_in_proportion_to_their_weights(size):
    rng = np.random.default_rng(size)
    weights = rng.random(size) * (rng.random(size) < 0.7)
    weights[rng.integers(size)] = 3.0
    tree, levels = tree_of(weights)
    words = jax.random.bits(jax.random.key(size), (len(levels), 200_000))
    drawn = np.bincount(jax.jit(tree.draw)(levels, words), minlength=size)
    expected = 200_000 * weights / weights.sum()
    assert not drawn[weights == 0].any()
    few = expected < 20  # together, for the statistic
    observed = np.append(drawn[~few], drawn[few].sum())
    wanted = np.append(expected[~few], expected[few].sum())
    own = wanted > 0
    statistic = ((observed[own] - wanted[own]) ** 2 / wanted[own]).sum()
    freedom = own.sum() - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 1e-9


def test_a_weight_of_nothing_is_never_drawn():
    """Where sums are rounded most: after a number that the others hardly add to, and at the ends.

    The words are all ends of ranges, where a rounded sum would decide.
    """
    rng = np.random.default_rng(0)
    ends = np.array([0, 2**8, 2**31, 2**32 - 2**8, 2**32 - 1], np.uint32)
    for _ in range(200):
        weights = (10.0 ** rng.uniform(-8, 8, 256)).astype(np.float32)
        weights[rng.random(256) < 0.8] = 0.0
        weights[rng.integers(256)] = 1.0
        tree, levels = tree_of(weights)
        words = np.stack(np.meshgrid(*[ends] * len(levels)), axis=0).reshape(len(levels), -1)
        more = rng.integers(0, 2**32, (len(levels), 200), dtype=np.uint32)
        drawn = tree.draw(levels, jnp.asarray(np.concatenate([words, more], axis=1)))
        assert weights[np.asarray(drawn)].all()


# --- which windows can be drawn ---

ROWS, ENVS = 8, 3


def ring_of(n, alpha=0.5, time_limit=None):
    return PrioritizedRing(ROWS, ENVS, time_limit, n_step=n, alpha=alpha)


def experience(number, *, truncated=False):
    obs = jnp.full((ENVS, 1), number, jnp.float32)
    flags = jnp.zeros((ENVS,), bool)
    return Experience(
        obs=obs,
        action=jnp.zeros((ENVS,), jnp.int32),
        reward=jnp.full((ENVS,), number, jnp.float32),
        terminated=flags,
        truncated=flags | truncated,
        final_obs=obs + 0.5,
    )


def rollout_after(number):
    zeros = jnp.zeros((ENVS,), jnp.int32)
    obs = jnp.full((ENVS, 1), number + 1, jnp.float32)
    return Rollout(None, obs, zeros.astype(jnp.float32), zeros, jnp.int32(0))


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_window_can_be_drawn_when_it_is_whole_and_until_it_is_overwritten(n):
    """At every position of the head, three times around: by what each row holds."""
    ring = ring_of(n)
    buffer, add = ring.init(jnp.zeros((1,)), 2), jax.jit(ring.add)
    for number in range(3 * ROWS):
        buffer = add(buffer, experience(number))
        weights = np.asarray(buffer.priorities.levels[0][: ROWS * ENVS]).reshape(ROWS, ENVS)
        held = {i % ROWS: i for i in range(max(number - ROWS + 1, 0), number + 1)}
        for row in range(ROWS):
            is_whole = row in held and held[row] + n - 1 <= number
            np.testing.assert_array_equal(weights[row], float(is_whole), err_msg=f"{number} {row}")
        check_sums(buffer.priorities.levels)


def test_what_is_drawn_is_the_window_of_the_leaf():
    ring, gamma = ring_of(3), np.float32(0.5)
    buffer, add = ring.init(jnp.zeros((1,)), 2), jax.jit(ring.add)
    sample = jax.jit(functools.partial(ring.sample, n=3))
    for number in range(2 * ROWS + 3):
        buffer = add(buffer, experience(number))
        if number < 3:
            continue
        words = jax.random.bits(jax.random.key(number), (ring.num_words, 2, 100))
        draw = sample(words, buffer, rollout_after(number), gamma=gamma)
        row, env = np.divmod(np.asarray(draw.place.leaf), ENVS)
        first = number - (number - row) % ROWS  # the number that the row holds
        assert set(first.ravel().tolist()) == set(range(max(number - ROWS + 1, 0), number - 1))
        assert set(env.ravel().tolist()) == set(range(ENVS))
        np.testing.assert_array_equal(draw.transition.obs[..., 0], first)
        np.testing.assert_array_equal(
            draw.transition.reward, first + 0.5 * (first + 1) + 0.25 * (first + 2)
        )
        np.testing.assert_array_equal(draw.transition.next_obs[..., 0], first + 3)


def test_a_window_whose_end_is_not_known_is_drawn_once():
    """A time limit of 8 is declared, and every step is truncated: the second has no slot."""
    ring = ring_of(1, time_limit=8)
    buffer = ring.init(jnp.zeros((1,)), 2)
    for number in range(2):
        buffer = ring.add(buffer, experience(number, truncated=True))
    words = jax.random.bits(jax.random.key(0), (ring.num_words, 1, 50))
    draw = ring.sample(words, buffer, rollout_after(1), n=1, gamma=np.float32(0.9))
    is_masked = np.asarray(draw.place.leaf) >= ENVS
    np.testing.assert_array_equal(draw.weight, np.where(is_masked, 0.0, 1.0))
    buffer = ring.learned(buffer, ring.surprises(draw, jnp.ones((1, 50))))
    weights = np.asarray(buffer.priorities.levels[0])
    assert (weights[:ENVS] > 0).all()
    assert not weights[ENVS:].any()


# --- priorities and weights ---


def draw_of(leaves, priorities, weights=None):
    shape = np.shape(leaves)
    weights = np.ones(shape, np.float32) if weights is None else weights
    place = Place(jnp.asarray(leaves, jnp.int32), jnp.asarray(priorities, jnp.float32))
    return Draw(None, jnp.asarray(weights, jnp.float32), place)  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_weights_make_up_for_drawing_some_more_often(beta):
    priorities, total, number = np.array([[1.0, 4.0, 2.0], [9.0, 3.0, 3.0]]), 40.0, 12
    draw = draw_of(np.zeros((2, 3)), priorities, [[1, 0, 1], [1, 1, 1]])
    weights = ring_of(1).weighted(draw, np.float32(beta)).weight
    for row in range(2):
        raw = [(number * p / total) ** -beta for p in priorities[row]]  # Schaul et al.
        expected = [
            w / max(raw) * k for w, k in zip(raw, np.asarray(draw.weight)[row], strict=True)
        ]
        np.testing.assert_allclose(weights[row], expected, rtol=1e-6)


def test_priorities_are_powers_of_errors_and_new_rows_have_the_greatest():
    ring = ring_of(1, alpha=0.6)
    buffer = ring.init(jnp.zeros((1,)), 2)
    for number in range(2):
        buffer = ring.add(buffer, experience(number))
    errors = np.array([[2.0, 0.0, np.nan, 3.0], [1.0, 0.25, 0.5, 9.0]], np.float32)
    draw = draw_of([[0, 1, 2, 3], [3, 3, 4, 0]], np.ones((2, 4)))
    surprises = ring.surprises(draw, jnp.asarray(errors))
    drawn = surprises.drawn.at[1, 3].set(False)  # this one is nothing
    buffer = jax.jit(ring.learned)(buffer, surprises._replace(drawn=drawn))
    weights = np.asarray(buffer.priorities.levels[0])

    def power(error):
        return (error + 1e-6) ** 0.6

    expected = [power(2.0), power(0.0), 1.0, power(3.0), power(0.5), 1.0]
    np.testing.assert_allclose(weights[:6], expected, rtol=1e-5)
    check_sums(buffer.priorities.levels)
    buffer = ring.add(buffer, experience(2))
    np.testing.assert_allclose(buffer.priorities.levels[0][6:9], power(3.0), rtol=1e-5)


# --- in a run ---


def settings_of(**changes):
    settings = {key: value for key, value in tiny.TINY.items() if key != "verbose"}
    return settings | tiny.SHORT | {"priority_alpha": 0.6, "n_step": 1} | changes


def learner_and_state(**changes):
    config = resolve("CartPole-v1", "dqn", settings_of(**changes))
    learner = config.build_learner(make("CartPole-v1", config.env.env_kwargs))
    return learner, jax.jit(learner.init)(np.uint32(0), *learner.initial_values(1000))


QUICK = {"xla_backend_optimization_level": 0}


def test_a_gradient_step_counts_each_sample_by_its_weight():
    learner, state = learner_and_state(double=False, loss="squared")
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 16, 4)).astype(np.float32)
    action = rng.integers(0, 2, 16).astype(np.int32)
    reward, discount = rng.random((2, 16)).astype(np.float32)
    transition = Transition(obs, action, reward, discount, next_obs)
    weight = np.where(np.arange(16) < 8, 0.0, rng.random(16)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    update = jax.jit(learner._update, compiler_options=QUICK)
    q_values = jax.vmap(learner.algorithm.q_values, (None, 0, None))

    after, (loss, _, errors) = update(state, transition, weight, keys)
    q_next = np.asarray(q_values(state.target_params, next_obs, None))
    q = np.asarray(q_values(state.params, obs, None))[np.arange(16), action]
    error = q - (reward + discount * q_next.max(axis=1))
    np.testing.assert_allclose(errors, abs(error), rtol=1e-4, atol=1e-6)
    assert float(loss) == pytest.approx(float(np.mean(weight * error**2 / 2)), rel=1e-4)

    other = transition.replace(obs=np.where(weight[:, None] == 0, 9, obs).astype(np.float32))
    same, _ = update(state, other, weight, keys)
    jax.tree.map(np.testing.assert_array_equal, same.params, after.params)
    all_count, _ = update(state, transition, np.ones_like(weight), keys)
    for own, all_own in zip(*map(jax.tree.leaves, (after.params, all_count.params)), strict=True):
        assert (np.asarray(own) != all_own).any()


def test_what_is_learned_follows_beta():
    learner, state = learner_and_state()
    step = jax.jit(learner.step, compiler_options=QUICK)
    for _ in range(3):
        state, _ = step(state)
    assert len(np.unique(state.buffer.priorities.levels[0])) > 10

    def learned(beta):
        numbers = state.hyperparams.replace(priority_beta=segment(beta, beta, 0))
        return jax.tree.leaves(step(state.replace(hyperparams=numbers))[0].params)

    without, with_weights = learned(0.0), learned(1.0)
    assert all((np.asarray(a) != b).any() for a, b in zip(without, with_weights, strict=True))


@pytest.mark.parametrize("rate", [16.0, 6.0, 1.0])
def test_each_vector_step_writes_the_priorities_of_what_it_drew(rate):
    """Rates of 4, 1.5 and 0.25 gradient steps: as many leaves change as were drawn, or fewer."""
    learner, state = learner_and_state(samples_per_insert=rate)
    step = jax.jit(learner.step, compiler_options=QUICK)
    changes = []
    for _ in range(4):
        before = np.asarray(state.buffer.priorities.levels[0])
        updates, row = int(state.num_updates), int(state.buffer.cursor.position)
        state, _ = step(state)
        after = np.asarray(state.buffer.priorities.levels[0])
        known = np.arange(len(after)) // 4 != row  # the new row's own
        changed, drawn = (before != after) & known, 16 * (int(state.num_updates) - updates)
        changes.append((changed.sum(), drawn))
        assert changed.sum() <= drawn
        check_sums(state.buffer.priorities.levels)
    assert sum(found for found, _ in changes) > 0
    assert any(drawn == 0 for _, drawn in changes) == (rate == 1.0)


def test_beta_rises_over_the_run_and_callbacks_set_it(compiles):
    class Sets(EpochTrainCallback):
        def __init__(self, values):
            self.values, self.seen = values, []

        def callback(self, epoch, env_step, context):
            self.seen.append(context.policy.priority_beta)
            if epoch in self.values:
                context.policy.set_priority_beta(self.values[epoch])

    quiet = settings_of(max_epochs=4, priority_beta=0.2, num_seeds=2, verbose=False)
    rises, sets = Sets({}), Sets({2: np.array([0.5, 0.9]), 3: 0.7})
    jaxrl_cb.train("CartPole-v1", callbacks=TrainerCallbacks(rises), **quiet)
    np.testing.assert_allclose(np.transpose(rises.seen), [[0.2, 0.4, 0.6, 0.8]] * 2, rtol=1e-5)
    compiles()
    result = jaxrl_cb.train("CartPole-v1", callbacks=TrainerCallbacks(sets), **quiet)
    assert compiles() == 0
    np.testing.assert_allclose(sets.seen[2], [0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(sets.seen[3], [0.7, 0.7], rtol=1e-6)
    own = jax.tree.map(lambda x: x[0], result.state.hyperparams.priority_beta)
    assert float(value_at(own)) == pytest.approx(0.7)


def test_there_is_no_beta_without_priorities():
    class Sets(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            assert context.policy.priority_beta is None
            context.policy.set_priority_beta(0.5)

    with pytest.raises(CallbackValueError, match=r"say priority_alpha=0\.5 to train"):
        jaxrl_cb.train(
            "CartPole-v1",
            callbacks=TrainerCallbacks(Sets()),
            **settings_of(priority_alpha=0.0, max_epochs=1, verbose=False),
        )


def test_more_transitions_than_are_counted_are_refused():
    sizes = {"num_envs": 64, "buffer_size": 2**31 - 64}
    ReplayConfig(**sizes)
    with pytest.raises(ConfigError, match="take priority_alpha=0"):
        ReplayConfig(**sizes, priority_alpha=0.5)


def test_seeds_in_one_batched_program_are_those_one_by_one():
    quiet = settings_of(max_epochs=2, num_seeds=2, samples_per_insert=6.0, n_step=3, verbose=False)
    together, apart = (
        jaxrl_cb.train("CartPole-v1", vectorize_seeds=vectorize, **quiet)
        for vectorize in (True, False)
    )
    for own, other in zip(
        jax.tree.leaves((together.state.params, together.state.buffer.priorities)),
        jax.tree.leaves((apart.state.params, apart.state.buffer.priorities)),
        strict=True,
    ):
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-5)
