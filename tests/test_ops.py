"""The pure mathematics: every number by hand, by a plain loop, or by exact integers."""

import math
import random
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxrl_cb.ops.counters import take_credit, update_rate, updates_after
from jaxrl_cb.ops.epsilon import epsilon_greedy, ladder
from jaxrl_cb.ops.losses import LOSSES, huber, squared
from jaxrl_cb.ops.randomness import below, draw, uniform
from jaxrl_cb.ops.returns import n_step_transition
from jaxrl_cb.ops.segments import advance, linear_decay, segment, value_at
from jaxrl_cb.ops.targets import double_target, max_target

# jitted, as eager operations are compiled one by one
value_of = jax.jit(value_at)
advanced = jax.jit(advance, static_argnums=1)
choose = jax.jit(epsilon_greedy)
choose_each = jax.jit(jax.vmap(epsilon_greedy, (0, 0, None)))


def on_device(line):
    return jax.tree.map(jnp.asarray, line)


# --- epsilon: the line ---


@pytest.mark.parametrize(
    ("env_step", "expected"),
    # 1 - 0.95 * step / 1000 by hand; exactly final from step 1000 on
    [(0, 1.0), (1, 0.99905), (250, 0.7625), (999, 0.05095), (1000, 0.05), (10**12, 0.05)],
)
def test_linear_decay_at_its_boundaries(env_step, expected):
    assert linear_decay(1.0, 0.05, 1000, env_step) == pytest.approx(expected, abs=1e-15)
    set_then = on_device(segment(1.0, 0.05, 1000, env_step))
    assert value_of(set_then) == pytest.approx(expected, abs=6e-8)
    if env_step >= 1000:
        assert linear_decay(1.0, 0.05, 1000, env_step) == 0.05
        assert float(value_of(set_then)) == float(np.float32(0.05))


def test_no_decay_steps_means_the_final_epsilon_at_once():
    assert linear_decay(1.0, 0.05, 0, 0) == 0.05
    assert float(value_of(on_device(segment(1.0, 0.05, 0)))) == np.float32(0.05)


def test_epsilon_may_rise():
    assert linear_decay(0.1, 0.9, 10, 5) == pytest.approx(0.5)
    assert linear_decay(0.1, 0.9, 10, 10) == 0.9
    rising = advanced(on_device(segment(0.1, 0.9, 10)), 5)
    assert float(value_of(rising)) == pytest.approx(0.5, abs=1e-7)
    assert float(value_of(advanced(rising, 5))) == np.float32(0.9)


def test_decay_of_each_seed_has_its_own_numbers():
    start, final, steps = np.array([1.0, 0.5, 0.2]), np.array([0.0, 0.5, 1.0]), [100, 10, 0]
    expected = [0.75, 0.5, 1.0]  # at step 25: 1 - 25 / 100; constant; no decay steps at all
    np.testing.assert_allclose(linear_decay(start, final, steps, 25), expected)
    each = segment(start, final, steps, 25)
    assert {leaf.shape for leaf in jax.tree.leaves(each)} == {(3,)}
    np.testing.assert_array_equal(each.steps_left, [75, 0, 0])
    for i in range(3):
        one = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), each)
        assert float(value_of(one)) == pytest.approx(expected[i], abs=6e-8)


def test_leaves_of_a_segment_are_what_a_state_holds():
    leaves = segment(1, 0, 10)
    assert {leaf.dtype.name for leaf in (leaves.start, leaves.slope, leaves.final)} == {"float32"}
    assert {leaf.dtype.name for leaf in (leaves.steps_left, leaves.offset)} == {"int32"}
    assert {leaf.shape for leaf in jax.tree.leaves(leaves)} == {()}


@pytest.mark.parametrize(
    ("start", "final", "decay_steps", "set_at", "num_envs"),
    [
        (1.0, 0.05, 1000, 0, 1),
        (1.0, 0.05, 1000, 300, 7),  # 7 steps at a time jump over the end
        (0.0, 1.0, 12_345, 17, 48),
        (1.0, 0.01, 30_000_000, 16_777_215, 65_536),  # offsets beyond float32's whole numbers
    ],
)
def test_segment_followed_step_by_step_is_the_float64_line(
    start, final, decay_steps, set_at, num_envs
):
    count = (decay_steps - set_at) // num_envs + 3

    @jax.jit
    def values(line):
        return jax.lax.scan(lambda s, _: (advanced(s, num_envs), value_of(s)), line, length=count)

    last, found = values(on_device(segment(start, final, decay_steps, set_at)))
    found = np.asarray(found, np.float64)
    for i in range(count):
        step = set_at + i * num_envs
        fraction = step / decay_steps
        exact = start + (final - start) * fraction if step < decay_steps else final
        assert abs(found[i] - exact) <= 1e-6
        if step >= decay_steps:
            assert found[i] == np.float32(final)
    assert int(last.offset) == decay_steps - set_at  # it stays there


def test_offset_of_a_segment_never_overflows():
    longest = segment(1.0, 0.05, 2**31 - 1)
    line = on_device(longest.replace(offset=np.int32(2**31 - 20)))
    for _ in range(3):
        line = advanced(line, 16)
        assert 2**31 - 20 < int(line.offset) <= 2**31 - 1
    assert int(line.offset) == 2**31 - 1
    assert float(value_of(line)) == np.float32(0.05)
    done = advanced(on_device(segment(1.0, 0.05, 10)), 2**31 - 1)
    assert int(done.offset) == 10


@pytest.mark.parametrize("decay_steps", [2**31 - 1, 2**31, 2**33])
def test_decay_longer_than_int32_keeps_its_slope(decay_steps):
    line = advanced(on_device(segment(1.0, 0.0, decay_steps)), 2**30)
    assert float(value_of(line)) == pytest.approx(1.0 - 2**30 / decay_steps, abs=1e-6)


# --- epsilon: the coin ---


def random_words(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)


def test_epsilon_zero_is_greedy_and_takes_the_first_of_equal_values():
    q = jnp.array([[1.0, 3.0, 2.0], [5.0, -1.0, 5.0], [0.0, 0.0, 0.0], [-3.0, -2.0, -1.0]])
    for seed in range(20):
        words = random_words(seed, 2, 4)
        words[:, 0] = 0  # the smallest coin that there is
        action = choose(jnp.asarray(words), q, jnp.float32(0.0))
        assert action.tolist() == [1, 0, 0, 2]
        assert action.dtype == jnp.int32


def test_epsilon_one_is_uniform_over_all_actions_and_never_greedy():
    num = 70_000
    words = random_words(1, 2, num)
    words[0, 0] = 2**32 - 1  # the largest coin that there is
    words[1, 0] = 2**32 - 1
    q = jnp.zeros((num, 7)).at[:, 3].set(9.0)
    action = np.asarray(choose(jnp.asarray(words), q, jnp.float32(1.0)))
    assert action[0] == 6
    assert stats.chisquare(np.bincount(action, minlength=7)).pvalue > 1e-3


def test_epsilon_is_the_frequency_of_random_actions():
    num = 60_000
    q = jnp.zeros((num, 3)).at[:, 1].set(1.0)
    action = choose(jnp.asarray(random_words(2, 2, num)), q, jnp.float32(0.3))
    expected = num * np.array([0.1, 0.8, 0.1])  # 0.3 / 3 each, and 0.7 on the greedy one
    assert stats.chisquare(np.bincount(np.asarray(action)), expected).pvalue > 1e-3


def test_each_environment_has_a_coin_of_its_own():
    q = jnp.zeros((1000, 2, 50)).at[:, :, 0].set(1.0)
    words = jnp.asarray(random_words(3, 1000, 2, 2))  # 1000 steps of two environments
    action = np.asarray(choose_each(words, q, jnp.float32(0.5)))
    explored = action > 0
    table = [
        [np.sum((explored[:, 0] == a) & (explored[:, 1] == b)) for b in (0, 1)] for a in (0, 1)
    ]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    # one environment's words have no influence on the other's action
    changed = words.at[:, :, 1].set(~words[:, :, 1])
    again = np.asarray(choose_each(changed, q, jnp.float32(0.5)))
    np.testing.assert_array_equal(again[:, 0], action[:, 0])
    assert np.any(again[:, 1] != action[:, 1])


def test_epsilon_may_differ_between_environments():
    q = jnp.zeros((2, 10)).at[:, 9].set(1.0)
    words = jnp.array([[2**31, 2**31], [0, 0]], jnp.uint32)  # both coins are 0.5, both draws 0
    assert choose(words, q, jnp.array([0.4, 0.6])).tolist() == [9, 0]


# --- n-step transitions ---


def by_loop(rewards, terminated, truncated, gamma):
    """Reward, discount and row of the next observation, one row after another."""
    total, discount = 0.0, 1.0
    for i in range(len(rewards)):
        total += discount * rewards[i]
        discount *= gamma
        if terminated[i]:
            return total, 0.0, i
        if truncated[i]:
            return total, discount, i
    return total, discount, len(rewards) - 1


@jax.jit
def transitions(obs, actions, rewards, flags, following, gammas):
    def one(obs, action, rewards, flags, following, gamma):
        return n_step_transition(
            *(obs, action, rewards),
            terminated=flags[0],
            truncated=flags[1],
            next_obs_after=lambda row: following[row],
            gamma=gamma,
        )

    return jax.vmap(one)(obs, actions, rewards, flags, following, gammas)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_n_step_transition_is_the_plain_loop(n):
    rng = np.random.default_rng(n)
    count = 400
    obs = rng.normal(size=(count, 2)).astype(np.float32)
    actions = rng.integers(0, 4, count).astype(np.int32)
    rewards = rng.normal(size=(count, n)).astype(np.float32)
    flags = rng.random((count, 2, n)) < 0.3
    flags[:20] = False
    following = rng.normal(size=(count, n, 2)).astype(np.float32)
    gammas = rng.choice(np.float32([0.0, 0.5, 0.9, 0.99, 1.0]), count)
    found = transitions(obs, actions, rewards, flags, following, gammas)
    np.testing.assert_array_equal(found.obs, obs)
    np.testing.assert_array_equal(found.action, actions)
    for i in range(count):
        reward, discount, row = by_loop(rewards[i].astype(float), *flags[i], float(gammas[i]))
        assert float(found.reward[i]) == pytest.approx(reward, abs=2e-6)
        assert float(found.discount[i]) == pytest.approx(discount, abs=1e-6)
        assert (float(found.discount[i]) == 0.0) == (discount == 0.0)
        np.testing.assert_array_equal(found.next_obs[i], following[i, row])


def window(terminated, truncated, rewards=(1.0, 10.0, 100.0)):
    found = transitions(
        np.array([-1.0], np.float32),
        np.array([2], np.int32),
        np.array([rewards], np.float32),
        np.array([[terminated, truncated]], bool),
        np.array([[70.0, 80.0, 90.0]], np.float32),
        np.array([0.5], np.float32),
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], found)


@pytest.mark.parametrize(
    ("terminated", "truncated", "reward", "discount", "next_obs"),
    [
        ((0, 0, 0), (0, 0, 0), 31.0, 0.125, 90.0),  # 1 + 10 / 2 + 100 / 4, 1 / 8
        ((1, 0, 0), (0, 0, 0), 1.0, 0.0, 70.0),
        ((0, 0, 0), (1, 0, 0), 1.0, 0.5, 70.0),  # cut short: still worth 1 / 2
        ((0, 1, 0), (0, 0, 0), 6.0, 0.0, 80.0),
        ((0, 0, 0), (0, 1, 0), 6.0, 0.25, 80.0),
        ((0, 0, 0), (0, 0, 1), 31.0, 0.125, 90.0),
        ((0, 1, 0), (0, 1, 0), 6.0, 0.0, 80.0),  # both flags: terminated wins
        ((0, 0, 1), (1, 0, 0), 1.0, 0.5, 70.0),  # the end of the next episode is of no concern
        ((1, 0, 0), (0, 1, 0), 1.0, 0.0, 70.0),
    ],
)
def test_window_is_cut_where_the_episode_ends(terminated, truncated, reward, discount, next_obs):
    found = window(terminated, truncated)
    assert (float(found.reward), float(found.discount)) == (reward, discount)
    assert (float(found.next_obs), float(found.obs), int(found.action)) == (next_obs, -1.0, 2)


def test_rewards_behind_the_cut_are_ignored_even_if_not_numbers():
    assert float(window((0, 1, 0), (0, 0, 0), (1.0, 10.0, math.nan)).reward) == 6.0
    assert float(window((0, 0, 0), (1, 0, 0), (1.0, math.inf, math.nan)).reward) == 1.0


# --- targets and losses ---


def test_max_target_by_hand():
    q = jnp.array([1.0, 4.0, -2.0])
    assert float(max_target(jnp.float32(2.0), jnp.float32(0.5), q)) == 4.0  # 2 + 0.5 * 4
    assert float(max_target(jnp.float32(2.0), jnp.float32(0.0), q)) == 2.0
    negative = jnp.array([-7.0, -4.0])
    assert float(max_target(jnp.float32(0.0), jnp.float32(1.0), negative)) == -4.0


def test_double_target_values_the_choice_of_the_online_network():
    q_next, q_select = jnp.array([1.0, 4.0, -2.0]), jnp.array([0.0, 1.0, 3.0])
    reward, discount = jnp.float32(2.0), jnp.float32(0.5)
    assert float(double_target(reward, discount, q_next, q_select)) == 1.0  # 2 + 0.5 * -2
    assert float(double_target(reward, discount, q_next, q_next)) == 4.0  # the max target
    assert float(double_target(reward, jnp.float32(0.0), q_next, q_select)) == 2.0


def test_losses_by_hand():
    errors = jnp.array([0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0])
    assert squared(errors).tolist() == [0.0, 0.125, 0.125, 0.5, 0.5, 4.5, 4.5]
    assert huber(errors).tolist() == [0.0, 0.125, 0.125, 0.5, 0.5, 2.5, 2.5]  # |x| - 1/2 outside
    assert (LOSSES["squared"], LOSSES["huber"]) == (squared, huber)


def test_slope_of_huber_is_the_error_clipped_to_one():
    for error in (-3.0, -1.5, -0.25, 0.0, 0.75, 2.0):
        assert float(jax.grad(huber)(jnp.float32(error))) == max(-1.0, min(1.0, error))
        assert float(jax.grad(squared)(jnp.float32(error))) == error


# --- counters ---

DECIMALS = {
    0.7: Fraction(7, 10),
    0.1: Fraction(1, 10),
    8: Fraction(8),
    12.8: Fraction(64, 5),
    0.3333: Fraction(3333, 10_000),
    1e-05: Fraction(1, 100_000),
    0: Fraction(0),
}


@pytest.mark.parametrize("samples_per_insert", DECIMALS)
def test_rate_is_the_decimal_that_was_written(samples_per_insert):
    rate = update_rate(16, samples_per_insert, 128)
    assert rate == DECIMALS[samples_per_insert] * 16 / 128
    assert isinstance(rate, Fraction)


@pytest.mark.parametrize("num_envs", [1, 3, 16, 48, 1024])
@pytest.mark.parametrize("samples_per_insert", [0.7, 0.1, 8, 12.8, 0.3333])
def test_gradient_steps_are_exact_after_every_vector_step(samples_per_insert, num_envs):
    tens = {0.7: (7, 10), 0.1: (1, 10), 8: (8, 1), 12.8: (128, 10), 0.3333: (3333, 10_000)}
    over, under = tens[samples_per_insert]
    for batch_size in (32, 100, 128):
        rate = update_rate(num_envs, samples_per_insert, batch_size)
        for t in range(2001):
            due = (t * num_envs * over) // (batch_size * under)  # whole numbers, no rounding
            assert updates_after(t, rate) == due


def test_gradient_steps_are_exact_for_more_steps_than_floats_can_count():
    rate = update_rate(3, 0.7, 100)  # 21 / 1000
    assert updates_after(10**18, rate) == 21 * 10**15
    assert updates_after(10**18 - 1, rate) == 21 * 10**15 - 1


def test_credit_on_the_device_pays_out_exactly_what_is_due():
    cases = [
        (num_envs, spi, batch)
        for num_envs in (1, 3, 16, 48, 1024)
        for spi in (0.7, 0.1, 8, 12.8, 0.3333)
        for batch in (32, 100, 128)
    ]
    rates = [update_rate(*case) for case in cases]
    numerators = jnp.array([rate.numerator for rate in rates], jnp.int32)
    denominators = jnp.array([rate.denominator for rate in rates], jnp.int32)

    class TracedRate:
        """A rate whose parts are arrays, so that all cases share a program."""

        def __init__(self, numerator, denominator):
            self.numerator, self.denominator = numerator, denominator

    @jax.jit
    def extras(numerators, denominators):
        rate = TracedRate(numerators, denominators)

        def step(credit, _):
            credit, extra = take_credit(credit, rate)
            return credit, (credit, extra)

        return jax.lax.scan(step, jnp.zeros_like(numerators), length=2000)[1]

    credits, extra = map(np.asarray, extras(numerators, denominators))
    steps = np.arange(1, 2001)
    for i, (num_envs, spi, batch) in enumerate(cases):
        rate = DECIMALS[spi] * num_envs / batch
        whole = rate.numerator // rate.denominator
        done = whole * steps + np.cumsum(extra[:, i])
        due = [t * rate.numerator // rate.denominator for t in range(1, 2001)]
        np.testing.assert_array_equal(done, due)
        owed = [t * rate.numerator % rate.denominator for t in range(1, 2001)]
        np.testing.assert_array_equal(credits[:, i], owed)


def test_credit_does_not_overflow_at_the_largest_rate_that_is_counted():
    rate = Fraction(2**30 - 2, 2**30 - 1)  # numerator + denominator just below 2**31
    credit = jnp.int32(rate.denominator - 1)
    credit, extra = take_credit(credit, rate)
    assert (int(credit), bool(extra)) == (2**30 - 3, True)


# --- randomness ---


def test_below_is_the_high_word_of_the_exact_product():
    generator = random.Random(0)
    words = [0, 1, 0xFFFF, 0x10000, 2**31, 2**32 - 1]
    bounds = [1, 2, 3, 0xFFFF, 0x10000, 0x10001, 2**31 - 1]
    pairs = [(w, b) for w in words for b in bounds]
    pairs += [
        (generator.getrandbits(32), max(1, generator.getrandbits(31) >> generator.randrange(31)))
        for _ in range(5000)
    ]
    found = jax.jit(below)(
        jnp.array([w for w, _ in pairs], jnp.uint32), jnp.array([b for _, b in pairs], jnp.int32)
    )
    assert found.dtype == jnp.int32
    assert found.tolist() == [(w * b) >> 32 for w, b in pairs]


def test_below_takes_one_bound_for_all():
    words = random_words(5, 3, 4)
    expected = [[(int(w) * 5) >> 32 for w in row] for row in words]
    assert below(jnp.asarray(words), jnp.int32(5)).tolist() == expected


def test_uniform_is_in_zero_to_one_and_never_one():
    words = jnp.array([0, 255, 256, 2**31, 2**32 - 1], jnp.uint32)
    assert uniform(words).tolist() == [0.0, 0.0, 2.0**-24, 0.5, 1.0 - 2.0**-24]
    many = np.asarray(uniform(jnp.asarray(random_words(6, 50_000))))
    assert stats.kstest(many, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_draw_goes_on_with_a_new_key_every_time(impl):
    @jax.jit
    def chain(key):
        def step(key, _):
            key, words = draw(key, (3,))
            return key, (jax.random.key_data(key), words)

        return jax.lax.scan(step, key, length=2000)[1]

    first = jax.random.key(0, impl=impl)
    keys, words = chain(first)
    keys = [tuple(key) for key in np.asarray(keys).tolist()]
    assert len({tuple(jax.random.key_data(first).tolist()), *keys}) == 2001
    assert len(np.unique(words)) >= 5990  # 6000 of 2**32 words: a repetition is rare
    key, _ = draw(first, (1,))
    assert jax.random.key_impl(key) == jax.random.key_impl(first)


def test_parts_of_a_draw_share_no_words_with_each_other_or_with_the_key():
    key, a, b, empty, scalar = draw(jax.random.key(7), (2, 50), (60,), (0, 3), ())
    assert (a.shape, b.shape, empty.shape, scalar.shape) == ((2, 50), (60,), (0, 3), ())
    parts = [jax.random.key_data(key), a, b, scalar]
    assert {part.dtype.name for part in parts} == {"uint32"}
    assert len(np.unique(np.concatenate([np.ravel(part) for part in parts]))) == 2 + 100 + 60 + 1


def test_what_a_draw_begins_with_does_not_depend_on_what_follows():
    key = jax.random.key(11)
    next_short, a_short = draw(key, (5,))
    next_long, a_long, _ = draw(key, (5,), (1000,))
    np.testing.assert_array_equal(jax.random.key_data(next_short), jax.random.key_data(next_long))
    np.testing.assert_array_equal(a_short, a_long)


def test_different_keys_draw_different_words():
    words = [np.asarray(draw(jax.random.key(seed), (4,))[1]) for seed in range(100)]
    assert len(np.unique(words)) == 400


def test_a_ladder_gives_every_environment_its_own_epsilon():
    found = ladder(jnp.float32(0.4), 4, 7.0)
    np.testing.assert_allclose(found, [0.4, 0.4 ** (10 / 3), 0.4 ** (17 / 3), 0.4**8], rtol=1e-5)
    np.testing.assert_allclose(ladder(jnp.float32(0.3), 1, 7.0), [0.3], rtol=1e-6)
    np.testing.assert_array_equal(ladder(jnp.float32(1.0), 3, 7.0), [1, 1, 1])
    np.testing.assert_array_equal(ladder(jnp.float32(0.0), 3, 7.0), [0, 0, 0])
