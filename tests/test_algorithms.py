"""Every algorithm that has a name, on the same walk: its mathematics, its values, its runs."""

import dataclasses
import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import tiny
from flax import linen as nn
from test_fuzz import own_settings
from test_probes import learned, learner_of, online_learner_of

import jaxrl_cb
from jaxrl_cb import networks
from jaxrl_cb.algorithms import (
    C51,
    DQN,
    IQN,
    PQN,
    QRDQN,
    VARIANTS,
    Munchausen,
    Variant,
    register,
)
from jaxrl_cb.algorithms.base import batched_q
from jaxrl_cb.algorithms.registry import OWN
from jaxrl_cb.config import AlgorithmConfig, common_settings, resolve, settings_of
from jaxrl_cb.envs import make
from jaxrl_cb.errors import ConfigError, ConfigTypeError
from jaxrl_cb.networks import MLP
from jaxrl_cb.networks.layers import FractionEmbedding
from jaxrl_cb.ops.mapped import is_mapped
from jaxrl_cb.ops.segments import value_at
from jaxrl_cb.trainer import EpochTrainCallbackDQNSetEps, Policy, TrainerCallbacks
from jaxrl_cb.types import Transition

NAMES = sorted(OWN)
SETTINGS = tiny.TINY | tiny.SHORT | {"max_epochs": 2, "num_quantiles": 5, "num_atoms": 5}
SETTINGS |= {"rollout_length": 10, "num_minibatches": 4}
NUM_ACTIONS, ATOMS = 3, 5


class Table:
    """A network that is a table: [places, A, ...] looked up by a one-hot observation."""

    def init(self, key, obs, *fractions):
        raise AssertionError

    def apply(self, params, obs, *fractions):
        own = jnp.tensordot(obs, params, 1)
        return own[:, :1] + own[:, 1:] * fractions[0][None, :] if fractions else own


def table(seed, *shape):
    return np.random.default_rng(seed).normal(size=(2, NUM_ACTIONS, *shape)).astype(np.float32)


def step(reward=0.7, discount=0.9, action=1):
    """From the first place to the second."""
    place = np.eye(2, dtype=np.float32)
    numbers = (np.float32(reward), np.float32(discount))
    return Transition(place[0], np.int32(action), *numbers, place[1])


def target_and_loss(algorithm, online, target_table, transition, key=None):
    key = jax.random.key(3) if key is None else key
    target = algorithm.target(online, target_table, transition, key)
    loss = algorithm.loss(online, transition.obs, transition.action, target, key)
    return np.asarray(target), [float(value) for value in loss]


@pytest.fixture
def rlax():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield pytest.importorskip("rlax")


# --- mathematics, against rlax and by hand ---


@pytest.mark.filterwarnings("ignore:Rlax:PendingDeprecationWarning")
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("reward", [0.7, 5.0])  # the latter is beyond the last atom
def test_c51_is_what_rlax_computes(rlax, double, reward):
    online, other, own = table(0, ATOMS), table(1, ATOMS), step(reward)
    algorithm = C51(Table(), ATOMS, -2.0, 2.0, double)
    target, (loss, priority) = target_and_loss(algorithm, online, other, own)
    atoms = jnp.linspace(-2.0, 2.0, ATOMS)
    tail = (atoms, other[1])
    head = (atoms, online[0], own.action, own.reward, own.discount)
    if double:
        select = (jax.nn.softmax(online[1]) * atoms).sum(1)
        expected = rlax.categorical_double_q_learning(*head, *tail, select)
    else:
        expected = rlax.categorical_q_learning(*head, *tail)
    # rlax gives the cross-entropy too; of the best prediction it is the entropy of the target
    assert loss == pytest.approx(float(expected), rel=1e-5)
    entropy = -sum(p * math.log(p) for p in target.tolist() if p > 0)
    assert priority == pytest.approx(loss - entropy, rel=1e-4)


@pytest.mark.parametrize("double", [False, True])
def test_qr_dqn_is_what_rlax_computes(rlax, double):
    online, other, own = table(0, ATOMS), table(1, ATOMS), step()
    algorithm = QRDQN(Table(), ATOMS, double)
    target, (loss, priority) = target_and_loss(algorithm, online, other, own)
    fractions = (jnp.arange(ATOMS) + 0.5) / ATOMS
    select = online[1] if double else other[1]
    expected = rlax.quantile_q_learning(
        *(online[0].T, fractions, own.action, own.reward, own.discount),
        *(select.T, other[1].T),
        huber_param=1.0,
    )
    assert loss == pytest.approx(float(expected), rel=1e-5)
    distances = [abs(t - q) for t in target for q in online[0, 1]]
    assert priority == pytest.approx(np.mean(distances), rel=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_iqn_is_what_rlax_computes(rlax, double):
    online, other, own = table(0, 2), table(1, 2), step()
    algorithm = IQN(Table(), 4, 6, 8, double)
    key = jax.random.key(3)
    target, (loss, _) = target_and_loss(algorithm, online, other, own, key)
    drawn = np.asarray(algorithm._drawn(key, 4))
    mean = np.asarray(0.5, np.float32)  # evenly spaced fractions have this mean, and it is linear
    best = np.argmax((online if double else other)[1] @ np.array([1.0, mean], np.float32))
    levels = (target - own.reward) / own.discount
    fractions = (levels - other[1, best, 0]) / other[1, best, 1]
    assert len(set(np.round(fractions, 5))) == 6
    assert ((fractions >= 0) & (fractions <= 1)).all()
    quantiles = online[0, :, :1] + online[0, :, 1:] * drawn
    expected = rlax.quantile_q_learning(
        *(quantiles.T, drawn, own.action, np.float32(0.0), np.float32(1.0)),
        *(np.tile(target[:, None], (1, NUM_ACTIONS)), np.tile(target[:, None], (1, NUM_ACTIONS))),
        huber_param=1.0,
    )
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("axis", ["samples", "targets"])
def test_fractions_are_drawn_for_each_sample_and_are_the_same_for_each_seed_of_random_numbers(axis):
    algorithm, key = IQN(Table(), 4, 6), jax.random.key(3)
    both = jax.vmap(lambda _: algorithm._drawn(key, 4), axis_name=axis)(np.zeros(3))
    assert len(set(np.asarray(both).ravel().tolist())) == 12
    again = jax.vmap(lambda _: algorithm._drawn(key, 4), axis_name=axis)(np.zeros(3))
    np.testing.assert_array_equal(both, again)


def test_a_learner_maps_targets_and_losses_over_axes_of_these_names():
    found = {}

    def note(what):
        found[what] = [axis for axis in ("samples", "targets", "environments") if is_mapped(axis)]

    class Noting(DQN):
        def target(self, *inputs):
            note("target")
            return super().target(*inputs)

        def loss(self, *inputs):
            note("loss")
            return super().loss(*inputs)

    register("noting", Variant(lambda make_network, own: Noting(make_network()), "ours"))
    try:
        jaxrl_cb.train("CartPole-v1", "noting", **own_settings("dqn", **SETTINGS))
    finally:
        del VARIANTS["noting"]
    assert found == {"target": ["targets"], "loss": ["samples"]}


def by_hand(q, q_next, own, outcomes, alpha, temperature, clip):
    """Munchausen's target in plain Python, float64: one for each column of `outcomes`."""

    def log_policy(values):
        highest = max(values)
        total = sum(math.exp((value - highest) / temperature) for value in values)
        return [(value - highest) / temperature - math.log(total) for value in values]

    bonus = temperature * log_policy(q)[own.action]
    bonus = alpha * min(max(bonus, clip), 0.0)
    logs = log_policy(q_next)
    return [
        float(own.reward)
        + bonus
        + float(own.discount)
        * sum(math.exp(p) * (z - temperature * p) for p, z in zip(logs, column, strict=True))
        for column in zip(*outcomes, strict=True)
    ]


@pytest.mark.parametrize(("action", "temperature"), [(0, 0.03), (1, 0.5), (2, 0.03)])
def test_munchausen_is_its_equation(action, temperature):
    settings = (0.9, temperature, -1.0)
    online, other, own = table(0), table(1), step(action=action)
    algorithm = DQN(Table(), False, "squared", Munchausen(*settings))
    target, (loss, _) = target_and_loss(algorithm, online, other, own)
    q, q_next = other[0].tolist(), other[1].tolist()
    (expected,) = by_hand(q, q_next, own, [[value] for value in q_next], *settings)
    assert target == pytest.approx(expected, rel=1e-5)
    assert loss == pytest.approx((online[0, action] - expected) ** 2 / 2, rel=1e-4)


def test_munchausen_clips_what_is_improbable_and_adds_nothing_for_a_sure_action():
    munchausen = Munchausen(0.9, 0.03, -1.0)
    q = np.array([0.0, 5.0], np.float32)
    assert float(munchausen.bonus(q, 0)) == pytest.approx(-0.9)  # its logarithm times 0.03 is -5
    assert float(munchausen.bonus(q, 1)) == pytest.approx(0.0, abs=1e-6)


def test_m_iqn_is_its_equation():
    settings = (0.9, 0.5, -1.0)
    online, other, own = table(0, 2), table(1, 2), step()
    algorithm = IQN(Table(), 4, 6, 8, munchausen=Munchausen(*settings))
    key = jax.random.key(3)
    target = algorithm.target(online, other, own, key)
    fractions = algorithm._drawn(jax.random.split(key)[0], 6)
    outcomes = other[1, :, :1] + other[1, :, 1:] * np.asarray(fractions)[None]
    q, q_next = (place @ np.array([1.0, 0.5]) for place in other)
    expected = by_hand(q.tolist(), q_next.tolist(), own, outcomes.tolist(), *settings)
    np.testing.assert_allclose(target, expected, rtol=1e-5)


# --- every name ---


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_finite_differences(name):
    spec = make("CartPole-v1").spec
    settings = own_settings(name, num_atoms=5, num_quantiles=5, hidden_sizes=(16, 16))
    algorithm = resolve(None, name, settings).build_algorithm(spec)
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 4)).astype(np.float32)
    transition = Transition(obs, np.int32(1), np.float32(0.5), np.float32(0.9), next_obs)
    params = jax.jit(algorithm.init)(jax.random.key(0), obs)
    key = jax.random.key(1)
    target = np.float32(1.5)  # of an online learner
    if hasattr(algorithm, "target"):
        target = jax.jit(algorithm.target)(params, params, transition, key)

    @jax.jit
    def loss(params):
        return algorithm.loss(params, obs, transition.action, target, key)[0]

    gradient = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params))
    for share in (1.0, 0.5, 0.5, 0.5):  # of the entries, drawn anew each time
        part = jax.tree.map(lambda g, kept=share: g * (rng.random(g.shape) < kept), gradient)
        length = math.sqrt(sum((g**2).sum() for g in jax.tree.leaves(part)))
        assert length > 1e-3
        ends = [
            float(loss(jax.tree.map(lambda p, g, by=size / length: p + by * g, params, part)))
            for size in (3e-3, -3e-3)
        ]
        assert (ends[0] - ends[1]) / 6e-3 == pytest.approx(length, rel=0.03)
    assert all((g != 0).any() for g in jax.tree.leaves(gradient)), "a dead parameter"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_values_that_are_known(name):
    """The second step's action is paid 1 or -1: Q(1) = (-1, 1), and Q(0) = 0.9 of both actions.

    Munchausen's policy is sure of the second action: the logarithm of the other, times 0.3, is
    below -1 and clipped, so that Q(1) = (-1 - 0.9, 1). At first it is uniform, as both actions
    are worth the same: Q(0) = -0.9 * 0.3 log 2 + 0.9 = 0.7129. Q(lambda) looks ahead to what was
    done, here at random and so worth 0: Q(0) = 0.9 * (0.35 * 1 + 0.65 * 0) = 0.315.
    """
    environment = probes.delayed_reward(of_action=True)
    settings = {"hidden_sizes": (32,), "layer_norm": False, "num_atoms": 9, "num_quantiles": 5}
    settings |= {"v_min": -2.0, "v_max": 2.0, "munchausen_temperature": 0.3}
    config = resolve(None, name, own_settings(name, **settings))
    algorithm = config.build_algorithm(environment.spec)
    first, least = (0.7129, -1.9) if "munchausen_alpha" in VARIANTS[name].settings else (0.9, -1.0)
    if name == "pqn":
        first, learner = 0.315, online_learner_of(environment, algorithm)
    else:
        alpha = config.replay.priority_alpha
        learner = learner_of(environment, 1, algorithm, priority_alpha=alpha, priority_beta=1.0)
    q = learned(environment, [[0], [1]], learner=learner)
    np.testing.assert_allclose(q, [[first, first], [least, 1.0]], atol=0.03)


def plain(state):
    """Without what depends on the length that the run was begun with; random keys as words."""

    def words(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(words, state.replace(hyperparams=None))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_equal_alone_and_together_and_nothing_is_compiled_again(name, compiles, tmp_path):
    """A run of two seeds, one of them alone, and the same cut in two and resumed."""
    constant = {"priority_beta": 0.4, "priority_beta_final": 0.4}  # not over all of its epochs
    settings = own_settings(name, **SETTINGS, **constant) | {"verbose": False}
    settings |= {"learning_rate_schedule": "constant", "epsilon_decay_steps": 100}
    path = tmp_path / "run"
    first = jaxrl_cb.train("CartPole-v1", name, run_dir=path, **(settings | {"max_epochs": 1}))
    compiles()
    resumed = jaxrl_cb.train("CartPole-v1", name, run_dir=path, resume="must", **settings)
    together = jaxrl_cb.train("CartPole-v1", name, num_seeds=2, **settings)
    assert np.isfinite(together.history[-1].train_loss).all()
    both, alone, before = (jax.tree.leaves(plain(run.state)) for run in (together, resumed, first))
    for theirs, ours in zip(both, alone, strict=True):
        np.testing.assert_array_equal(np.atleast_1d(theirs)[:1], np.atleast_1d(ours))
    learned = len(jax.tree.leaves(first.state.params))
    assert all((a != b).any() for a, b in zip(alone[:learned], before[:learned], strict=True))
    loaded = jaxrl_cb.load_policy(path, "last")
    obs = np.ones(4, np.float32)
    np.testing.assert_array_equal(loaded.q_values(obs), resumed.policy.q_values(obs))
    compiles()
    jaxrl_cb.train("CartPole-v1", name, num_seeds=2, seed=7, **settings)
    assert compiles() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["btr", "noisy_dqn", "pqn"])
def test_epsilon_callbacks_act_on_all_kinds_of_learners_and_networks(name, compiles):
    """Each has an epsilon that is acted by, whether it begins as 0 or not, and no new program."""
    settings = own_settings(name, **SETTINGS) | {"max_epochs": 2, "verbose": False}

    def reached(epsilon):
        callbacks = TrainerCallbacks(EpochTrainCallbackDQNSetEps(epsilon))
        result = jaxrl_cb.train("CartPole-v1", name, callbacks=callbacks, **settings)
        assert float(value_at(result.state.epsilon.training)[0]) == epsilon
        return np.asarray(result.state.rollout.obs)

    greedy, again = reached(0.0), reached(0.0)
    compiles()
    random = reached(1.0)
    assert compiles() == 0
    np.testing.assert_array_equal(greedy, again)
    assert (greedy != random).any(axis=-1).all()


# --- names and settings ---


def test_algorithms_have_settings_of_their_own():
    with pytest.raises(ConfigError, match="num_atoms=3 is no setting of 'dqn', which has double"):
        resolve("CartPole-v1", "dqn", {"num_atoms": 3})
    with pytest.raises(ConfigError, match=r"double=False .* 'm_iqn'"):
        resolve("CartPole-v1", "m_iqn", {"double": False})
    for name in NAMES:
        config = resolve("CartPole-v1", name, {})
        assert resolve("CartPole-v1", name, config.flat()) == config
        assert set(config.flat()) == settings_of(name)
        usual = 3 if "n_step" in VARIANTS[name].defaults else 5  # of DQN's preset
        assert name == "pqn" or config.replay.n_step == usual
    assert set(VARIANTS["dqn"].settings) <= {f for f in AlgorithmConfig.__dataclass_fields__}


def test_settings_of_another_algorithms_run_are_taken_without_its_own():
    flat = resolve("CartPole-v1", "dqn", {"learning_rate": 0.5}).flat()
    assert {"loss", "double"} <= set(flat)
    own = common_settings(flat, "dqn", "noisy_dqn")
    config = resolve("CartPole-v1", "noisy_dqn", own)
    assert (config.network.noisy, config.exploration.epsilon_start) == (True, 0.0)
    assert config.optimizer.learning_rate == 0.5
    assert config.replay == resolve("CartPole-v1", "dqn", {}).replay


def test_what_names_stand_for():
    def of(name):
        return resolve(None, name, {}).build_algorithm(make("CartPole-v1").spec)

    assert (of("dqn").double, of("double_dqn").double) == (False, True)
    assert (of("dueling_dqn").network.dueling, of("dqn").network.dueling) == (True, False)
    assert of("munchausen_dqn").munchausen == Munchausen(0.9, 0.03, -1.0)
    assert of("iqn").munchausen is None
    assert of("m_iqn").munchausen is not None
    rainbow, btr = (resolve(None, name, {}) for name in ("rainbow", "btr"))
    assert (of("rainbow").double, of("rainbow").network.dueling) == (True, True)
    assert (rainbow.replay.n_step, rainbow.replay.priority_alpha) == (3, 0.5)
    assert rainbow.network.noisy
    assert isinstance(of("rainbow"), C51)
    assert isinstance(of("btr"), IQN)
    assert of("btr").munchausen is not None
    assert (btr.replay.n_step, btr.replay.priority_alpha, btr.replay.num_envs) == (3, 0.2, 64)
    assert isinstance(of("pqn"), PQN)
    noisy = resolve(None, "noisy_dqn", {})
    assert (noisy.exploration.epsilon_start, noisy.exploration.epsilon_final) == (0, 0)
    assert resolve(None, "noisy_dqn", {"epsilon_final": 0.1}).exploration.epsilon_final == 0.1


def test_noise_takes_the_place_of_epsilon_unless_it_is_set():
    def of(name, **named):
        own = resolve("CartPole-v1", name, named).exploration
        return own.epsilon_start, own.epsilon_final

    usual = of("dqn")
    assert usual[0] > usual[1] > 0
    assert of("dqn", noisy=False) == usual
    for name in sorted(OWN - {"btr"}):
        assert of(name, noisy=True) == (0, 0)
        assert of(name, noisy=True, epsilon_final=0.1) == (0, 0.1)
    assert of("rainbow") == of("noisy_dqn") == (0, 0)
    assert of("rainbow", noisy=False) == of("noisy_dqn", noisy=False) == usual
    assert of("btr") == of("btr", noisy=True) == of("btr", noisy=False) == usual  # it has both
    with pytest.raises(ConfigTypeError, match="noisy=3 is an int"):
        resolve(None, "dqn", {"noisy": 3})


def test_an_algorithm_of_ones_own_has_a_name(tmp_path, monkeypatch):
    class Mine(DQN):
        def target(self, params, target_params, transition, key):
            return transition.reward

    monkeypatch.delitem(VARIANTS, "mine", raising=False)
    settings = own_settings("dqn", **SETTINGS)
    register("mine", Variant(lambda make_network, own: Mine(make_network()), "ours"))
    try:
        result = jaxrl_cb.train("CartPole-v1", "mine", run_dir=tmp_path / "run", **settings)
        assert isinstance(result.policy.algorithm, Mine)
        policy = jaxrl_cb.load_policy(tmp_path / "run")
        assert isinstance(policy.algorithm, Mine)
    finally:
        del VARIANTS["mine"]
    with pytest.raises(ConfigError, match="algorithm='mine'"):
        jaxrl_cb.load_policy(tmp_path / "run")
    register("mine", Variant(Mine, "ours", defaults={"learnin_rate": 1e-3}))
    try:
        with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
            resolve(None, "mine", {})
    finally:
        del VARIANTS["mine"]
    with pytest.raises(ConfigError, match="'dqn' is the library's own"):
        register("dqn", VARIANTS["c51"])
    with pytest.raises(ConfigTypeError, match="expected a name and a Variant"):
        register("other", Mine)


def test_the_variant_of_the_readme_is_what_it_says():
    readme = Path(__file__).parent.parent.joinpath("README.md").read_text()
    (code,) = re.findall(r"```python\n(class Clipped.*?)```", readme, re.S)
    assert len([line for line in code.splitlines() if line]) <= 10
    given = "**settings" if 'train("CartPole-v1", "clipped")' in code else ""
    names = {"DQN": DQN, "Variant": Variant, "register": register, "jnp": jnp, "jaxrl_cb": jaxrl_cb}
    names["settings"] = own_settings("dqn", **SETTINGS)
    try:
        exec(code.replace('"clipped")\n', f'"clipped", {given})\n'), names)  # noqa: S102
        assert names["result"].policy.algorithm.__class__.__name__ == "Clipped"
        assert names["result"].history[-1].num_updates > 0
    finally:
        VARIANTS.pop("clipped", None)
    place = np.eye(2, dtype=np.float32)
    online, target = (np.array([[0, 0], row], np.float32) for row in ([1, 3], [2, 0.5]))
    step = Transition(place[0], np.int32(0), np.float32(0.5), np.float32(0.9), place[1])
    key = jax.random.key(0)
    found = names["Clipped"](Table()).target(online, target, step, key)
    assert float(found) == pytest.approx(0.5 + 0.9 * 0.5)  # of action 1, which is online the best


# --- networks ---


class Plain(nn.Module):
    """Takes none of what the library's networks do but the number of actions."""

    num_actions: int

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(self.num_actions)(obs)


def test_a_network_of_ones_own_has_a_name(tmp_path):
    networks.register("plain", Plain)
    try:
        settings = own_settings("dqn", **SETTINGS) | {"network": "plain"}
        result = jaxrl_cb.train("CartPole-v1", "dqn", run_dir=tmp_path / "run", **settings)
        assert result.policy.algorithm.network == Plain(2)
        loaded = jaxrl_cb.load_policy(tmp_path / "run", "last")
        obs = np.ones(4, np.float32)
        np.testing.assert_array_equal(loaded.q_values(obs), result.policy.q_values(obs))
        spec = make("CartPole-v1").spec
        for name, words in (("c51", "num_outputs"), ("iqn", "implicit"), ("noisy_dqn", "noisy")):
            with pytest.raises(ConfigError, match=f"network='plain' takes no {words}"):
                resolve(None, name, {"network": "plain"}).build_algorithm(spec)
        networks.register("plain", functools.partial(MLP, hidden_sizes=(3,), dueling=True))
        wide = resolve(None, "dqn", {"network": "plain"}).build_algorithm(spec).network
        assert (wide.hidden_sizes, wide.dueling, wide.layer_norm) == ((3,), True, True)
        networks.register("plain", lambda **given: Plain(given["num_actions"]))
        assert resolve(None, "dqn", {"network": "plain"}).build_algorithm(spec).network == Plain(2)
    finally:
        del networks.NETWORKS["plain"]
    with pytest.raises(ConfigError, match="network='plain' is not one of"):
        jaxrl_cb.load_policy(tmp_path / "run")
    with pytest.raises(ConfigError, match="'mlp' is the library's own"):
        networks.register("mlp", Plain)
    with pytest.raises(ConfigTypeError, match="expected a name and a flax module's class"):
        networks.register("mine", 3)


def test_noise_is_drawn_with_a_key_and_the_mean_is_taken_without():
    network = MLP(2, (8,), noisy=True)
    obs = np.ones(3, np.float32)
    algorithm = DQN(network)
    params = algorithm.init(jax.random.key(0), obs)
    mean = algorithm.q_values(params, obs, None)
    np.testing.assert_array_equal(mean, algorithm.q_values(params, obs, None))
    noisy = [algorithm.q_values(params, obs, jax.random.key(i)) for i in range(2)]
    assert (np.asarray(noisy[0]) != noisy[1]).all()
    quiet = algorithm.q_values(without_noise(params), obs, jax.random.key(0))
    np.testing.assert_allclose(quiet, mean, rtol=1e-6)


def test_environments_have_noise_of_their_own_and_samples_share_it():
    algorithm = DQN(MLP(2, (8,), noisy=True))
    obs, key = np.ones((3, 4), np.float32), jax.random.key(0)
    params = algorithm.init(key, obs[0])
    found = np.asarray(batched_q(algorithm, params)(obs, key))
    assert (found[0] != found[1]).all()
    assert (found[1] != found[2]).all()
    samples = jax.vmap(algorithm.q_values, (None, 0, None), axis_name="samples")
    shared = np.asarray(samples(params, obs, key))
    np.testing.assert_array_equal(shared, shared[:1].repeat(3, axis=0))


def without_noise(params):
    def leaf(path, x):
        return 0 * x if "sigma" in path[-1].key else x

    return jax.tree_util.tree_map_with_path(leaf, params)


def test_tests_are_played_without_noise():
    settings = {k: v for k, v in tiny.TINY.items() if k != "verbose"}
    config = resolve(None, "noisy_dqn", settings | tiny.SHORT)
    learner = config.build_learner(make("CartPole-v1", config.env.env_kwargs))
    params = learner.algorithm.init(jax.random.key(0), np.ones(4, np.float32))

    @jax.jit
    def returns(params):
        numbers = (np.float32(0.0), jax.random.key(1), np.zeros(2, np.uint32), {})
        return learner.evaluate(params, *numbers, num_episodes=8).returns

    found = np.asarray(returns(params))
    np.testing.assert_array_equal(found, returns(without_noise(params)))
    policy = Policy(
        learner.algorithm, learner.environment.spec, jax.tree.map(lambda x: x[None], params)
    )
    quiet = Policy(policy.algorithm, policy.spec, without_noise(policy.params))
    env = learner.environment
    assert jaxrl_cb.evaluate(policy, env, 8) == jaxrl_cb.evaluate(quiet, env, 8)


@pytest.mark.parametrize("axis", ["samples", "environments"])
def test_a_noisy_layer_is_its_equation(axis):
    """The deviation of an output is that of a sum of products of independent noises.

    With f(e) = sign(e) sqrt(|e|), E f^2 = E|e| = sqrt(2 / pi) = m, so that the variance of
    ``f_out (sum_i s_i f_i x_i + s_b)`` is ``m (m sum_i s_i^2 x_i^2 + s_b^2)``.
    """
    from jaxrl_cb.networks.layers import NoisyDense

    layer, x = NoisyDense(2), np.array([1.0, -2.0, 0.5], np.float32)
    params = layer.init(jax.random.key(0), x)
    keys = jax.random.split(jax.random.key(1), 20_000)
    noisy = jax.vmap(lambda key: layer.apply(params, x, rngs={"noise": key}), axis_name=axis)
    drawn = jax.jit(noisy)(keys)
    mean = layer.apply(params, x)
    m, sigma = math.sqrt(2 / math.pi), 0.5 / math.sqrt(3)
    variance = m * (m * sigma**2 * float((x**2).sum()) + sigma**2)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * math.sqrt(variance / 20_000))
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.06)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.05  # every output has noise of its own


def test_a_dueling_head_of_distributions_has_a_value_of_each():
    network = MLP(3, (8,), dueling=True, num_outputs=4)
    obs = np.ones(3, np.float32)
    params = network.init(jax.random.key(0), obs)
    out = network.apply(params, obs)
    assert out.shape == (3, 4)
    grown = jax.tree_util.tree_map_with_path(
        lambda path, x: x + 1 if [k.key for k in path[-2:]] == ["value", "bias"] else x, params
    )
    np.testing.assert_allclose(network.apply(grown, obs), out + 1, rtol=1e-5)


@pytest.mark.parametrize("dueling", [False, True])
def test_quantiles_of_an_action_begin_equal_and_as_one_value_would(dueling):
    obs = np.array([0.5, -1.0, 2.0], np.float32)
    one, many = MLP(3, (8,), dueling=dueling), MLP(3, (8,), dueling=dueling, num_outputs=4)
    begun = dataclasses.replace(many, equal_init=True).init(jax.random.key(0), obs)
    value = one.apply(one.init(jax.random.key(0), obs), obs)
    quantiles = many.apply(begun, obs)
    np.testing.assert_allclose(quantiles, np.repeat(value[:, None], 4, axis=1), rtol=1e-5)
    apart = many.apply(many.init(jax.random.key(0), obs), obs)
    assert len(np.unique(apart)) == 12
    built = resolve(None, "qr_dqn", {}).build_algorithm(make("CartPole-v1").spec)
    assert built.network.equal_init


@pytest.mark.parametrize("hidden_sizes", [(), (8,), (8, 8)])
def test_an_implicit_network_has_a_value_for_each_fraction(hidden_sizes):
    network = MLP(3, hidden_sizes, implicit=True, dueling=True)
    obs, fractions = np.ones(3, np.float32), np.array([0.1, 0.9, 0.1], np.float32)
    params = network.init(jax.random.key(0), obs, fractions[:1])
    one = MLP(3, hidden_sizes, dueling=True)
    value = one.apply(one.init(jax.random.key(0), obs), obs)
    begun = network.apply(params, obs, fractions)
    np.testing.assert_allclose(begun, np.repeat(value[:, None], 3, axis=1), rtol=1e-5)
    trained = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), params)
    out = network.apply(trained, obs, fractions)
    assert out.shape == (3, 3)
    np.testing.assert_allclose(out[:, 0], out[:, 2], rtol=1e-6)
    assert (np.asarray(out[:, 0]) != out[:, 1]).all()


def test_the_embedding_of_fractions_is_its_equation():
    layer, fractions = FractionEmbedding(3), np.array([0.1, 0.45, 0.9], np.float32)
    rng = np.random.default_rng(0)
    kernel, bias = (rng.normal(size=size).astype(np.float32) for size in ((64, 3), 3))
    expected = np.zeros((3, 3))
    for k, fraction in enumerate(fractions.tolist()):
        cosines = [math.cos(math.pi * i * fraction) for i in range(64)]
        expected[k] = np.maximum(np.array(cosines) @ kernel + bias, 0.0)
    assert (expected > 0).any(axis=0).all()
    params = {"params": {"embedding": {"kernel": kernel, "bias": bias}}}
    np.testing.assert_allclose(layer.apply(params, fractions), expected, atol=1e-4)


def test_the_nature_network_has_the_shapes_of_its_paper():
    algorithm = resolve(None, "dqn", {"network": "nature", "hidden_sizes": (512,)})
    spec = make("CartPole-v1").spec
    with pytest.raises(ConfigError, match="network='nature' wants observations"):
        algorithm.build_algorithm(spec)
    from jaxrl_cb.networks import NatureCNN

    network = NatureCNN(4, layer_norm=False)
    obs = jax.ShapeDtypeStruct((84, 84, 4), np.uint8)
    params = jax.eval_shape(network.init, jax.random.key(0), obs)["params"]
    kernels = [params[f"Conv_{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64)]
    assert params["mlp"]["Dense_0"]["kernel"].shape == (3136, 512)
    assert jax.eval_shape(network.apply, {"params": params}, obs).shape == (4,)
