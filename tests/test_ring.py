"""The replay ring against a model in plain Python lists that stores everything."""

import functools
import random
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxrl_cb.buffers.ring import CONTINUES, MASKED, TERMINATED, TRUNCATED, ReplayRing
from jaxrl_cb.ops.packing import BitPacking
from jaxrl_cb.ops.returns import n_step_transition
from jaxrl_cb.types import Experience

ROWS, ADDS, GAMMA = 8, 27, 0.5  # powers of a half, and small whole rewards: sums are exact

# Every one of b <= 64 numbers is drawn by one of these words; so are the first and the last word.
ALL_WORDS = np.array([*(i << 26 for i in range(64)), 2**32 - 1], np.uint32)


class Row(NamedTuple):
    """What happened to one environment in one vector step."""

    obs: float
    action: int
    reward: float
    terminated: bool
    truncated: bool
    final_obs: float


class History(NamedTuple):
    """All rows of one environment, and the observation after each number of rows."""

    rows: list[Row]
    newest_obs: list[float]
    running: list[int]  # steps of the running episode, before each row and after the last one


def play(generator, env, time_limit):
    """A history with ends of both kinds; two truncations are `time_limit` or more steps apart.

    One history in two is what a time limit does: it cuts an episode exactly when it is that long.
    The other cuts as soon as the ring's promise allows. No two observations are equal.
    """
    strict = generator.random() < 0.5
    rows, running, since_cut = [], [0], time_limit or 1
    dies, cuts = generator.choice([0.0, 0.1, 0.3, 0.6]), generator.choice([0.1, 0.5, 1.0])
    for t in range(ADDS):
        length = running[-1] + 1
        terminated = generator.random() < dies
        if strict and time_limit:
            truncated = length == time_limit
        else:
            truncated = since_cut >= (time_limit or 1) and generator.random() < cuts
        since_cut = 1 if truncated else since_cut + 1
        obs, final_obs = 1000.0 * env + t, 1000.0 * env + t + 1
        if terminated or truncated:
            final_obs += 0.5  # the next row's observation is one of another episode
        action, reward = generator.randrange(3), float(generator.randint(-8, 8))
        rows.append(Row(obs, action, reward, terminated, truncated, final_obs))
        running.append(0 if terminated or truncated else length)
    return History(rows, [1000.0 * env + t for t in range(ADDS + 1)], running)


def transition_of(history, start, num_added, n):
    """(obs, action, reward, discount, next_obs) of a start, or None if it is not all there.

    The next observation of a terminated episode is None: it is worth nothing.
    """
    if not max(0, num_added - ROWS) <= start < num_added:
        return None
    reward, discount = 0.0, 1.0
    for t in range(start, start + n):
        if t >= num_added:  # not written yet
            return None
        row = history.rows[t]
        reward, discount = reward + discount * row.reward, discount * GAMMA
        if row.terminated or row.truncated or t == start + n - 1:
            break
    first = history.rows[start]
    if row.terminated:
        return first.obs, first.action, reward, 0.0, None
    # be it stored in the next row, acted upon just now (`Rollout.obs`), or the last of an episode
    return first.obs, first.action, reward, discount, row.final_obs


def stacked(histories):
    """[ADDS, E] experience, [ADDS, E] newest observation and running length after each row."""
    columns = [[[h.rows[t][f] for h in histories] for t in range(ADDS)] for f in range(6)]
    types = (np.float32, np.int32, np.float32, bool, bool, np.float32)
    obs, action, reward, terminated, truncated, final_obs = (
        np.array(column, dtype) for column, dtype in zip(columns, types, strict=True)
    )
    # observations are vectors [2], the second number being the first's negative
    obs, final_obs = (np.stack([x, -x], axis=-1) for x in (obs, final_obs))
    experience = Experience(obs, action, reward, terminated, truncated, final_obs)
    newest = np.array([[h.newest_obs[t + 1] for h in histories] for t in range(ADDS)], np.float32)
    running = np.array([[h.running[t + 1] for h in histories] for t in range(ADDS)], np.int32)
    return experience, np.stack([newest, -newest], axis=-1), running


def read(ring, buffer, newest_obs, age, env, n):
    """The transition and the weight of one start, as the learner makes them."""
    window = ring.window(buffer, age, env, n=n)
    transition = n_step_transition(
        window.obs,
        window.action,
        window.rewards,
        terminated=window.ending == TERMINATED,
        truncated=(window.ending == TRUNCATED) | (window.ending == MASKED),
        next_obs_after=lambda row: ring.next_obs(buffer, newest_obs, age - row, env),
        gamma=jnp.float32(GAMMA),
    )
    return transition, ring.weight(window)


STEPS = (1, 2, 3)  # n, all in one program: compiling is what takes the time here


@functools.cache
def program(num_envs, time_limit):
    """Adds row after row; after each, for each n, all starts drawn and every start's transition."""
    ring = ReplayRing(ROWS, num_envs, time_limit)
    env_words = np.array([(2 * e + 1) * 2**31 // num_envs for e in range(num_envs)], np.uint32)
    words = np.stack(np.broadcast_arrays(env_words[:, None], ALL_WORDS[None, :]))
    ages, envs = (x.astype(np.int32) for x in np.mgrid[1 : ROWS + 1, 0:num_envs])

    def step(buffer, row):
        experience, newest_obs, running = row
        buffer = ring.add(buffer, experience)
        found = []
        for n in STEPS:
            drawn = ring.sample_starts(jnp.asarray(words), buffer, running, n=n)
            each = functools.partial(read, ring, buffer, newest_obs, n=n)
            found.append((drawn, jax.vmap(jax.vmap(each))(jnp.asarray(ages), jnp.asarray(envs))))
        return buffer, found

    def run(rows):
        buffer = ring.init(jnp.zeros((2,), jnp.float32), num_actions=3)
        return jax.lax.scan(step, buffer, rows)

    return jax.jit(jax.vmap(run), compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def played(num_envs, time_limit):
    """Twelve worlds, and what the ring made of them."""
    generator = random.Random(f"{num_envs} {time_limit}")
    worlds = [[play(generator, e, time_limit) for e in range(num_envs)] for _ in range(12)]
    rows = jax.tree.map(lambda *x: np.stack(x), *map(stacked, worlds))
    return worlds, *jax.device_get(program(num_envs, time_limit)(rows))


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize(
    ("num_envs", "time_limit"), [(2, None), (2, 3), (2, 5), (2, 8), (2, 20), (1, 3)]
)
def test_starts_and_transitions_are_those_of_the_model_at_every_head_position(
    num_envs, time_limit, n
):
    worlds, buffer, by_n = played(num_envs, time_limit)
    (ages, envs), (transitions, weights) = by_n[STEPS.index(n)]
    assert np.all(buffer.num_masked == 0)
    np.testing.assert_array_equal(transitions.obs[..., 1], -transitions.obs[..., 0])
    np.testing.assert_array_equal(transitions.next_obs[..., 1], -transitions.next_obs[..., 0])
    fields = [transitions.obs[..., 0], transitions.action, transitions.reward]
    fields += [transitions.discount, transitions.next_obs[..., 0], weights]
    num_cut = num_newest = 0
    for w, world in enumerate(worlds):
        for num_added in range(n, ADDS + 1):  # the ring asks for n rows before anything is drawn
            expected = {}
            for env, history in enumerate(world):
                for age in range(1, ROWS + 1):
                    transition = transition_of(history, num_added - age, num_added, n)
                    if transition is not None:
                        expected[age, env] = transition
            at = w, num_added - 1
            drawn = set(zip(ages[at].ravel().tolist(), envs[at].ravel().tolist(), strict=True))
            assert drawn == set(expected)
            found = [field[at].tolist() for field in fields]
            for (age, env), transition in expected.items():
                *of_start, next_obs, weight = (field[age - 1][env] for field in found)
                assert of_start == list(transition[:4])
                assert weight == 1.0
                if transition[4] is not None:
                    assert next_obs == transition[4]
                    num_cut += next_obs % 1 == 0.5
                    num_newest += next_obs % 1000 == num_added
    assert num_cut > 40  # the histories hold what is to be shown
    assert num_newest > 10


# --- by hand ---


def experience(t, obs_shape=(), *, terminated=False, truncated=False):
    """One row of one environment: observation t, final observation t + 0.5, reward t."""
    obs = np.full((1, *obs_shape), t, np.float32)
    flags = np.array([terminated]), np.array([truncated])
    return Experience(obs, np.array([0], np.int32), obs.reshape(1, -1)[:, 0], *flags, obs + 0.5)


def filled(ring, ends):
    """A ring of one environment after one row for each letter: "-", "d" died, "c" cut, "b" both."""
    add = jax.jit(ring.add)
    buffer = ring.init(jnp.zeros((), jnp.float32), num_actions=2)
    for t, end in enumerate(ends):
        buffer = add(buffer, experience(t, terminated=end in "db", truncated=end in "cb"))
    return buffer


@functools.cache
def reader(ring, n):
    def read_all(buffer, newest_obs):
        ages = jnp.arange(1, ring.num_rows + 1, dtype=jnp.int32)
        return jax.vmap(lambda age: read(ring, buffer, newest_obs, age, jnp.int32(0), n))(ages)

    return jax.jit(read_all)


def read_back(ring, buffer, n, newest_obs=99.0):
    """By age, oldest last: next observations, discounts and weights of every start."""
    transition, weight = reader(ring, n)(buffer, np.array([newest_obs], np.float32))
    return tuple(np.asarray(x).tolist() for x in (transition.next_obs, transition.discount, weight))


def test_second_truncation_within_the_declared_limit_is_masked_and_counted():
    ring = ReplayRing(8, 1, time_limit=4)  # blocks of vector steps 0-3 and 4-7
    buffer = filled(ring, "-c-c-c--")
    assert int(buffer.num_masked) == 1  # of step 3; the one of step 5 is the first of its block
    ending = [CONTINUES, TRUNCATED, CONTINUES, MASKED, CONTINUES, TRUNCATED, CONTINUES, CONTINUES]
    assert np.asarray(buffer.ending)[:, 0].tolist() == ending
    # ages 8..1 are steps 0..7; with n = 1 only the window of step 3 has no weight
    next_obs, discount, weight = (x[::-1] for x in read_back(ring, buffer, 1))
    assert weight == [1, 1, 1, 0, 1, 1, 1, 1]
    kept = [x for x, w in zip(next_obs, weight, strict=True) if w]
    assert kept == [1.0, 1.5, 3.0, 5.0, 5.5, 7.0, 99.0]
    assert discount == [0.5] * 8
    # with n = 3 the windows of steps 2 and 3 end at step 3; that of step 0 is cut before, at 1
    _, discount, weight = (x[::-1] for x in read_back(ring, buffer, 3))
    assert weight == [1, 1, 0, 0, 1, 1, 1, 1]
    assert discount[:6] == [0.25, 0.5, 0.25, 0.5, 0.25, 0.5]


def test_masked_truncations_are_counted_over_all_time():
    ring = ReplayRing(4, 1, time_limit=4)
    assert int(filled(ring, "cccc" * 3).num_masked) == 9  # three of every block of four


def test_truncations_without_a_declared_limit_are_all_kept():
    ring = ReplayRing(4, 1, time_limit=None)
    buffer = filled(ring, "c" * 11)
    next_obs, _, weight = read_back(ring, buffer, 1)
    assert next_obs == [10.5, 9.5, 8.5, 7.5]
    assert weight == [1.0] * 4
    assert int(buffer.num_masked) == 0


def test_termination_wins_where_both_flags_are_set_and_takes_no_slot():
    ring = ReplayRing(8, 1, time_limit=4)
    buffer = filled(ring, "b-c-")
    assert np.asarray(buffer.ending)[:4, 0].tolist() == [
        TERMINATED,
        CONTINUES,
        TRUNCATED,
        CONTINUES,
    ]
    next_obs, discount, weight = read_back(ring, buffer, 1)
    assert discount[3] == 0.0
    assert next_obs[1] == 2.5
    assert (weight[:4], int(buffer.num_masked)) == ([1.0] * 4, 0)


def test_truncations_exactly_one_limit_apart_are_never_masked():
    for shift in range(5):
        ring = ReplayRing(16, 1, time_limit=5)
        ends = "-" * shift + "c----" * 7
        buffer = filled(ring, ends)
        assert int(buffer.num_masked) == 0
        next_obs, _, _ = read_back(ring, buffer, 1)
        newest = len(ends) - 1
        for age in range(1, 17):
            t = newest - age + 1
            expected = t + 0.5 if ends[t] == "c" else (99.0 if age == 1 else t + 1.0)
            assert next_obs[age - 1] == expected


@pytest.mark.parametrize(
    ("num_rows", "time_limit", "num_slots"),
    # ceil(rows / limit) blocks cover the rows if they begin together, one more if they do not
    [(1000, 500, 3), (1000, 300, 5), (8, 3, 4), (8, 8, 2), (8, 20, 2), (8, 1, 9), (8, None, 9)],
)
def test_number_of_slots_for_final_observations(num_rows, time_limit, num_slots):
    assert ReplayRing(num_rows, 4, time_limit).num_slots == num_slots


def test_bytes_of_a_transition():
    ring = ReplayRing(num_rows=1000, num_envs=4, time_limit=500)
    obs = jax.ShapeDtypeStruct((10, 10, 4), jnp.uint8)
    buffer = jax.eval_shape(lambda: ring.init(jnp.zeros(obs.shape, obs.dtype), num_actions=6))
    assert buffer.obs.shape == (1000, 4, 10, 10, 4)  # each observation once
    assert buffer.final_obs.shape == (3, 4, 10, 10, 4)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(buffer))
    # observation 400, action 1, reward 4, ending 1; three slots; slot_used; five int32 scalars
    assert size == 4000 * (400 + 1 + 4 + 1) + 3 * 4 * 400 + 4 + 5 * 4


def test_a_million_binary_transitions_take_58_megabytes():
    # 10 x 10 x 4 bits are 50 bytes; action 1, reward 4, ending 1
    packing = BitPacking((10, 10, 4), "float32")
    ring = ReplayRing(num_rows=7_813, num_envs=128, time_limit=1000, packing=packing)
    buffer = jax.eval_shape(lambda: ring.init(jnp.zeros((10, 10, 4)), num_actions=3))
    assert buffer.obs.shape == (7_813, 128, 50)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(buffer))
    assert size == 7_813 * 128 * 56 + 9 * 128 * 50 + 128 + 5 * 4
    assert size < 58e6


def test_binary_observations_come_back_from_bits_and_others_are_counted():
    packing = BitPacking((3, 5), "float32")
    ring = ReplayRing(4, 2, time_limit=3, packing=packing)
    generator = np.random.default_rng(0)
    obs = generator.integers(0, 2, (7, 2, 3, 5)).astype(np.float32)
    add, buffer = jax.jit(ring.add), ring.init(jnp.zeros((3, 5)), num_actions=2)
    for t in range(6):
        cut = np.full(2, t == 4)
        row = Experience(
            obs=obs[t],
            action=np.zeros(2, np.int32),
            reward=np.zeros(2, np.float32),
            terminated=np.zeros(2, bool),
            truncated=cut,
            final_obs=1 - obs[t + 1] if t == 4 else obs[t + 1],
        )
        buffer = add(buffer, row)
    first_obs = jax.jit(lambda *start: ring.window(*start, n=1).obs)
    next_obs = jax.jit(ring.next_obs)
    for age in (1, 2, 3, 4):
        for env in (0, 1):
            start = (jnp.int32(age), jnp.int32(env))
            t = 6 - age
            np.testing.assert_array_equal(first_obs(buffer, *start), obs[t, env])
            expected = 1 - obs[t + 1, env] if t == 4 else obs[t + 1, env]
            np.testing.assert_array_equal(next_obs(buffer, obs[6], *start), expected)
    assert int(buffer.num_lossy) == 0
    half = row.replace(obs=np.stack([obs[0, 0], obs[0, 1] * 0.5 + 0.1]))
    assert int(add(buffer, half).num_lossy) == 1
    nan = row.replace(final_obs=np.full_like(obs[0], np.nan))
    assert int(add(buffer, nan).num_lossy) == 0  # of an episode that goes on: not kept
    for truncated, number in [((True, True), 2), ((False, True), 1)]:
        cut = nan.replace(truncated=np.array(truncated))
        assert int(add(buffer, cut).num_lossy) == number
    died = nan.replace(terminated=np.ones(2, bool), truncated=np.ones(2, bool))
    assert int(add(buffer, died).num_lossy) == 0


@pytest.mark.parametrize(("num_actions", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "int32")])
def test_action_takes_one_byte_as_long_as_it_fits(num_actions, dtype):
    ring = ReplayRing(4, 1)
    buffer = ring.init(jnp.zeros((), jnp.float32), num_actions)
    assert buffer.action.dtype.name == dtype
    row = experience(0).replace(action=np.array([num_actions - 1], np.int32))
    buffer = jax.jit(ring.add)(buffer, row)
    action = jax.jit(lambda *start: ring.window(*start, n=1).action)
    found = action(buffer, jnp.int32(1), jnp.int32(0))
    assert (int(found), found.dtype) == (num_actions - 1, jnp.int32)


def test_observations_of_any_shape_and_type_come_back_as_they_were():
    ring = ReplayRing(4, 2, time_limit=3)
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 256, (6, 2, 3, 2), dtype=np.uint8)
    finals = generator.integers(0, 256, (6, 2, 3, 2), dtype=np.uint8)
    add = jax.jit(ring.add)
    buffer = ring.init(jnp.zeros((3, 2), jnp.uint8), num_actions=2)
    for t in range(5):  # both are cut at steps 2, the second environment alone at step 4
        truncated = np.array([t == 2, t in (1, 4)])
        zeros = np.zeros((2,), np.int32)
        flags = truncated & False, truncated
        buffer = add(buffer, Experience(rows[t], zeros, zeros * np.float32(0), *flags, finals[t]))
    next_obs = jax.jit(ring.next_obs)
    for env in (0, 1):
        for t in range(1, 5):
            cut = t == 2 if env == 0 else t in (1, 4)
            found = next_obs(buffer, rows[5], jnp.int32(5 - t), jnp.int32(env))
            assert found.dtype == jnp.uint8
            np.testing.assert_array_equal(found, finals[t, env] if cut else rows[t + 1, env])


# --- sampling ---


def test_every_valid_start_is_drawn_with_its_own_share():
    # 8 rows, n = 3. Running episodes are 5 and 1 steps old: the newest 2 and 1 starts are missing.
    ring = ReplayRing(8, 2, time_limit=None)
    buffer = jax.eval_shape(lambda: ring.init(jnp.zeros((), jnp.float32), 2))
    buffer = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), buffer)
    buffer = buffer.replace(cursor=buffer.cursor.replace(size=jnp.int32(8)))
    words = np.random.default_rng(0).integers(0, 2**32, (2, 200, 300), dtype=np.uint32)
    age, env = jax.jit(functools.partial(ring.sample_starts, n=3))(
        jnp.asarray(words), buffer, jnp.array([5, 1], jnp.int32)
    )
    assert age.shape == env.shape == (200, 300)
    counts = np.zeros((9, 2))
    np.add.at(counts, (np.ravel(age), np.ravel(env)), 1)
    assert counts[:3, 0].sum() == counts[:2, 1].sum() == 0
    drawn = np.concatenate([counts[3:, 0], counts[2:, 1]])
    expected = 60_000 * np.array([1 / 12] * 6 + [1 / 14] * 7)  # half of them, among 6 and among 7
    assert stats.chisquare(drawn, expected).pvalue > 1e-3


def test_full_ring_of_many_environments_is_drawn_uniformly():
    ring = ReplayRing(16, 48, time_limit=None)
    buffer = ring.init(jnp.zeros((), jnp.float32), 2)
    buffer = buffer.replace(cursor=buffer.cursor.replace(size=jnp.int32(16)))
    words = np.random.default_rng(1).integers(0, 2**32, (2, 100_000), dtype=np.uint32)
    age, env = jax.jit(functools.partial(ring.sample_starts, n=1))(
        jnp.asarray(words), buffer, jnp.zeros((48,), jnp.int32)
    )
    counts = np.bincount((np.asarray(age) - 1) * 48 + np.asarray(env), minlength=16 * 48)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_partly_filled_ring_gives_only_what_was_written():
    ring = ReplayRing(8, 1)
    buffer = filled(ring, "---")
    draw = jax.jit(functools.partial(ring.sample_starts, n=1))
    words = jnp.asarray(np.stack([ALL_WORDS, ALL_WORDS]))
    age, _ = draw(words, buffer, jnp.array([3], jnp.int32))
    assert set(age.tolist()) == {1, 2, 3}


# --- the compiled program ---


def test_scan_that_writes_and_reads_the_ring_never_copies_its_observations():
    ring = ReplayRing(num_rows=4800, num_envs=3, time_limit=500)

    def step(carry, words):
        buffer, obs = carry
        done = words[0, :3] >> 31 == 1
        row = Experience(
            *(obs, jnp.zeros((3,), jnp.int32), obs[:, 0]),
            terminated=done & False,
            truncated=done,
            final_obs=obs + 1,
        )
        buffer = ring.add(buffer, row)
        age, env = ring.sample_starts(words, buffer, jnp.full((3,), 9, jnp.int32), n=2)
        each = jax.vmap(lambda age, env: read(ring, buffer, obs, age, env, 2))
        transition, _ = each(age, env)
        return (buffer, obs + jnp.mean(transition.next_obs)), None

    def chunk(carry, words):
        return jax.lax.scan(step, carry, words)[0]

    buffer = jax.eval_shape(lambda: ring.init(jnp.zeros((5,), jnp.float32), 2))
    carry = (buffer, jax.ShapeDtypeStruct((3, 5), jnp.float32))
    words = jax.ShapeDtypeStruct((50, 2, 16), jnp.uint32)
    donated = jax.jit(chunk, donate_argnums=0).lower(carry, words).compile()
    kept = jax.jit(chunk).lower(carry, words).compile()
    copy_of_ring = re.compile(r"= f32\[4800,3,5\]\S* copy(?:-start)?\(")
    assert copy_of_ring.findall(kept.as_text())  # this is what a copy looks like
    assert copy_of_ring.findall(donated.as_text()) == []
    memory = donated.memory_analysis()
    assert memory.alias_size_in_bytes >= 4800 * 3 * 5 * 4
    assert memory.temp_size_in_bytes < 4800 * 3 * 5 * 4 / 10  # nor is it copied by another name
