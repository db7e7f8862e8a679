"""The Q-network in NumPy, and DQN on a linear network whose numbers can be done by hand."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.networks import CNN, MLP
from jaxrl_cb.networks.cnn import normalized_features, patches
from jaxrl_cb.ops.mapped import ENVIRONMENT_AXIS, SAMPLE_AXIS, TARGET_AXIS
from jaxrl_cb.types import Transition

OBS_SHAPE, NUM_ACTIONS, HIDDEN = (2, 3), 4, (8, 5)


@functools.cache
def network_and_params(layer_norm, dueling):
    """A network with random parameters everywhere: fresh biases are 0 and fresh scales 1."""
    network = MLP(NUM_ACTIONS, HIDDEN, layer_norm, dueling)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(OBS_SHAPE))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    return network, params


def by_hand(params, obs, layer_norm):
    """Value (0 without a dueling head) and the head's outputs, in float64."""
    layers = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])

    def dense(name, x):
        return x @ layers[name]["kernel"] + layers[name]["bias"]

    x = np.ravel(obs).astype(np.float64)
    for i in range(len(HIDDEN)):
        x = dense(f"Dense_{i}", x)
        if layer_norm:
            norm = layers[f"LayerNorm_{i}"]
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-6) * norm["scale"] + norm["bias"]
        x = np.maximum(x, 0)
    value = dense("value", x) if "value" in layers else np.zeros(1)
    return value, dense("head", x)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
def test_network_is_what_numpy_makes_of_its_parameters(layer_norm, dueling):
    network, params = network_and_params(layer_norm, dueling)
    apply = jax.jit(network.apply)
    for seed in range(5):
        obs = np.random.default_rng(seed).normal(size=OBS_SHAPE).astype(np.float32)
        value, head = by_hand(params, obs, layer_norm)
        expected = value + head - head.mean() if dueling else head
        found = apply(params, obs)
        assert (found.shape, found.dtype) == ((NUM_ACTIONS,), jnp.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [MLP, CNN])
@pytest.mark.parametrize("dueling", [False, True])
def test_bfloat16_is_of_the_products_alone(kind, dueling):
    """Eight bits in the products of hidden layers; float32 in parameters, gradients, the head."""
    exact = kind(NUM_ACTIONS, HIDDEN, dueling=dueling)
    rounded = kind(NUM_ACTIONS, HIDDEN, dueling=dueling, compute_dtype="bfloat16")
    obs = jax.random.normal(jax.random.key(1), (4, 5, 2))
    params = exact.init(jax.random.key(0), obs)
    jax.tree.map(np.testing.assert_array_equal, params, rounded.init(jax.random.key(0), obs))
    values, found = exact.apply(params, obs), rounded.apply(params, obs)
    assert (found.shape, found.dtype) == ((NUM_ACTIONS,), jnp.float32)
    assert 0 < np.abs(found - values).max() < 0.05 * np.abs(values).max()
    gradient = jax.grad(lambda p: rounded.apply(p, obs).sum())(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, gradient))} == {jnp.dtype("float32")}
    products = [
        {operand.aval.dtype.name for operand in equation.invars}
        for equation in jax.make_jaxpr(rounded.apply)(params, obs).eqns
        if equation.primitive.name == "dot_general"
    ]
    heads = 2 if dueling else 1
    assert len(products) > heads
    assert all(dtypes == {"bfloat16"} for dtypes in products[:-heads])
    assert products[-heads:] == [{"float32"}] * heads
    # Large values differ between actions by as much as small ones.
    own = params["params"] if kind is MLP else params["params"]["mlp"]
    own["value" if dueling else "head"]["bias"] -= 100
    np.testing.assert_allclose(rounded.apply(params, obs) + 100, found, atol=1e-4)


def test_advantages_of_a_dueling_network_have_mean_zero():
    network, params = network_and_params(layer_norm=True, dueling=True)
    obs = np.random.default_rng(9).normal(size=OBS_SHAPE).astype(np.float32)
    q = np.asarray(jax.jit(network.apply)(params, obs))
    value, head = by_hand(params, obs, layer_norm=True)
    np.testing.assert_allclose(q.mean(), value[0], rtol=1e-4)  # the mean action value is V
    np.testing.assert_allclose(q - q.mean(), head - head.mean(), rtol=1e-4, atol=1e-4)
    # what the head adds to all actions alike has no influence
    shifted = jax.tree.map(np.copy, params)
    shifted["params"]["head"]["bias"] += 3
    np.testing.assert_allclose(jax.jit(network.apply)(shifted, obs), q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
def test_parameters_of_the_network_are_those_of_its_layers(layer_norm, dueling):
    _, params = network_and_params(layer_norm, dueling)
    shapes = jax.tree.map(np.shape, params["params"], is_leaf=lambda x: isinstance(x, np.ndarray))
    expected = {
        "Dense_0": {"kernel": (6, 8), "bias": (8,)},
        "Dense_1": {"kernel": (8, 5), "bias": (5,)},
        "head": {"kernel": (5, 4), "bias": (4,)},
    }
    if layer_norm:
        expected["LayerNorm_0"] = {"scale": (8,), "bias": (8,)}
        expected["LayerNorm_1"] = {"scale": (5,), "bias": (5,)}
    if dueling:
        expected["value"] = {"kernel": (5, 1), "bias": (1,)}
    assert shapes == expected


def test_initial_hidden_weights_are_he_uniform_and_biases_zero():
    params = jax.jit(MLP(2, (400,)).init)(jax.random.key(0), jnp.zeros(150))["params"]
    kernel, limit = np.asarray(params["Dense_0"]["kernel"]), np.sqrt(6 / 150)
    assert np.abs(kernel).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.02)
    assert not np.any(params["Dense_0"]["bias"])
    assert not np.any(params["head"]["bias"])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool", "float32"])
def test_observations_of_any_type_and_shape_give_float32_values(dtype):
    obs = (np.arange(6).reshape(2, 3) % 2).astype(dtype)
    network, params = network_and_params(layer_norm=False, dueling=False)
    apply = jax.jit(network.apply)
    found = apply(params, obs)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, apply(params, obs.astype(np.float32)))
    np.testing.assert_array_equal(found, apply(params, obs.reshape(6)))


def test_scalar_observations_are_vectors_of_one_number():
    network = MLP(3, (4,))
    params = jax.jit(network.init)(jax.random.key(0), jnp.int32(2))
    assert params["params"]["Dense_0"]["kernel"].shape == (1, 4)
    assert jax.jit(network.apply)(params, jnp.int32(2)).shape == (3,)


def test_network_without_hidden_layers_is_linear():
    network = MLP(2, ())
    params = {"params": {"head": {"kernel": np.float32([[1, 2], [3, 4]]), "bias": np.ones(2)}}}
    params = jax.tree.map(np.float32, params)
    assert network.apply(params, jnp.array([10.0, 1.0])).tolist() == [14.0, 25.0]


# --- the convolution ---


class PlainCNN(nn.Module):
    """The same network of flax's own layers."""

    num_actions: int
    layer_norm: bool

    @nn.compact
    def __call__(self, obs):
        x = nn.Conv(5, (3, 3), padding="VALID", name="conv")(obs.astype(jnp.float32))
        x = nn.LayerNorm(name="LayerNorm_0")(x) if self.layer_norm else x
        x = nn.Dense(7, name="Dense_0")(nn.relu(x).ravel())
        x = nn.LayerNorm(name="LayerNorm_1")(x) if self.layer_norm else x
        return nn.Dense(self.num_actions, name="head")(nn.relu(x))


def convolutional(layer_norm, rng):
    """A network with random parameters, and the function that gives flax's own network the same."""
    network = CNN(3, (7,), layer_norm, conv_features=5)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((6, 4, 2)))
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)

    def plain(params):
        own, mlp = params["params"], params["params"]["mlp"]
        conv = {**own["conv"], "kernel": own["conv"]["kernel"].reshape(3, 3, 2, 5)}
        same = {"conv": conv, **{name: mlp[name] for name in ("Dense_0", "head")}}
        if layer_norm:
            same |= {"LayerNorm_0": own["LayerNorm_0"], "LayerNorm_1": mlp["LayerNorm_0"]}
        return {"params": same}

    return network, params, plain


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_convolution_of_patches_is_that_of_flax(layer_norm, dtype):
    rng = np.random.default_rng(0)
    network, params, plain = convolutional(layer_norm, rng)
    obs = rng.integers(0, 2, (6, 4, 2)).astype(dtype)
    expected = PlainCNN(3, layer_norm).apply(plain(params), obs)
    found = jax.jit(network.apply)(params, obs)
    assert (found.shape, found.dtype) == ((3,), jnp.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_a_minibatch_that_is_learned_from_has_values_and_gradients_of_flax(layer_norm, dtype):
    rng = np.random.default_rng(1)
    network, params, plain = convolutional(layer_norm, rng)
    other = PlainCNN(3, layer_norm)
    batch = rng.integers(0, 2, (9, 6, 4, 2)).astype(dtype)
    weight = rng.normal(size=(9, 3)).astype(np.float32)

    def loss(params, apply):
        values = jax.vmap(apply, (None, 0), axis_name=SAMPLE_AXIS)(params, batch)
        return jnp.sum(weight * values), values

    def flax(params, obs):
        return other.apply(plain(params), obs)

    differentiated = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    (found, values), (expected, others) = (
        differentiated(params, apply) for apply in (network.apply, flax)
    )
    assert (values.shape, values.dtype) == ((9, 3), jnp.float32)
    np.testing.assert_allclose(values, others, rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere it is not used")
def test_only_minibatches_that_are_learned_from_have_their_axis_last(monkeypatch):
    used = []

    def counted(*inputs):
        used.append(1)
        return normalized_features(*inputs)

    monkeypatch.setattr("jaxrl_cb.networks.cnn.normalized_features", counted)
    batch = jnp.zeros((9, 6, 4, 2))

    def uses(axis, **fields):
        used.clear()
        network = CNN(3, (7,), **fields)
        params = network.init(jax.random.key(0), batch[0])
        jax.vmap(network.apply, (None, 0), axis_name=axis)(params, batch)
        return len(used)

    assert uses(SAMPLE_AXIS) == 1
    assert uses(TARGET_AXIS) == uses(ENVIRONMENT_AXIS) == uses(None) == 0
    assert uses(SAMPLE_AXIS, layer_norm=False) == 0
    assert uses(SAMPLE_AXIS, compute_dtype="bfloat16") == 0


@pytest.mark.parametrize("mapped", ["images", "parameters", "both", "neither"])
def test_normalized_features_of_what_is_mapped_in_any_way(mapped):
    """Three images, three convolutions, each with each: in any way in which `vmap` can be used."""
    rng = np.random.default_rng(2)

    def drawn(*shape):
        return rng.normal(size=(3, *shape)).astype(np.float32)

    images = drawn(4, 5, 2)
    params = {"kernel": drawn(18, 6), "bias": drawn(6)}, {"scale": drawn(6), "bias": drawn(6)}
    by_hand = np.zeros((3, 3, 6 * 6), np.float32)  # of each convolution and image
    for i, j, row, column in np.ndindex(3, 3, 2, 3):
        (kernel, bias), (scale, shift) = ([x[i] for x in p.values()] for p in params)
        patch = images[j, row : row + 3, column : column + 3].ravel().astype(np.float64)
        x = patch @ kernel + bias
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-6) * scale + shift
        by_hand[i, j, 6 * (3 * row + column) :][:6] = np.maximum(x, 0)
    of_images = jax.vmap(normalized_features, (0, None, None))
    of_params = jax.vmap(normalized_features, (None, 0, 0))
    first = jax.tree.map(lambda x: x[0], params)
    found, expected = {
        "images": (jax.vmap(of_images, (None, 0, 0))(images, *params), by_hand),
        "parameters": (
            jax.vmap(of_params, (0, None, None))(images, *params),
            by_hand.swapaxes(0, 1),
        ),
        "both": (jax.vmap(normalized_features)(images, *params), by_hand[range(3), range(3)]),
        "neither": (normalized_features(images[0], *first), by_hand[0, 0]),
    }[mapped]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_every_patch_is_where_it_belongs():
    """A 3 x 4 image of two channels, counted through: two patches, side by side."""
    image = np.arange(24).reshape(3, 4, 2)
    found = np.asarray(patches(jnp.asarray(image)))
    assert found.shape == (1, 2, 18)
    for column in (0, 1):
        assert found[0, column].tolist() == image[:, column : column + 3].ravel().tolist()


def test_convolution_is_initialised_by_its_fan_in():
    params = jax.jit(CNN(2, (), conv_features=400).init)(jax.random.key(0), jnp.zeros((3, 3, 16)))
    kernel, limit = np.asarray(params["params"]["conv"]["kernel"]), np.sqrt(6 / 144)
    assert np.abs(kernel).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.02)


# --- DQN ---


@dataclasses.dataclass(frozen=True)
class Linear:
    """Action values ``obs @ params``; nothing but `init` and `apply`."""

    num_actions: int

    def init(self, key, obs):
        return jnp.zeros((*obs.shape, self.num_actions), jnp.float32)

    def apply(self, params, obs):
        return obs @ params


KEY = jax.random.key(0)
ONLINE = jnp.array([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]])
TARGET = jnp.array([[5.0, -4.0, 2.0], [1.0, 1.0, 1.0]])
OBS, NEXT_OBS = jnp.array([1.0, 2.0]), jnp.array([2.0, 1.0])
# online:  q(OBS) = (1, 0, 5)      q(NEXT_OBS) = (2, 3, 7): action 2 is best
# target:  q(NEXT_OBS) = (11, -7, 5): action 0 is best


def transition(reward=1.0, discount=0.5):
    return Transition(OBS, jnp.int32(0), jnp.float32(reward), jnp.float32(discount), NEXT_OBS)


def test_action_values_are_the_networks():
    dqn = DQN(Linear(3))
    assert dqn.q_values(ONLINE, OBS, KEY).tolist() == [1.0, 0.0, 5.0]
    assert dqn.init(KEY, OBS).shape == (2, 3)


def test_vanilla_target_takes_the_target_networks_best_action():
    dqn = DQN(Linear(3), double=False)
    assert float(dqn.target(ONLINE, TARGET, transition(), KEY)) == 6.5  # 1 + 0.5 * 11
    assert float(dqn.target(ONLINE, TARGET, transition(-2.0, 0.0), KEY)) == -2.0


def test_double_target_takes_the_target_networks_value_of_the_online_choice():
    dqn = DQN(Linear(3), double=True)
    assert float(dqn.target(ONLINE, TARGET, transition(), KEY)) == 3.5  # 1 + 0.5 * 5
    assert float(dqn.target(TARGET, ONLINE, transition(), KEY)) == 2.0  # 1 + 0.5 * 2
    assert float(dqn.target(ONLINE, TARGET, transition(-2.0, 0.0), KEY)) == -2.0
    assert DQN(Linear(3)) == dqn  # double by default


def test_double_and_vanilla_agree_where_both_networks_do():
    double, vanilla = DQN(Linear(3)), DQN(Linear(3), double=False)
    for params in (ONLINE, TARGET):
        targets = [float(d.target(params, params, transition(), KEY)) for d in (double, vanilla)]
        assert targets[0] == targets[1]


@pytest.mark.parametrize(
    ("loss_name", "action", "target", "loss", "priority"),
    [
        ("squared", 2, 2.0, 4.5, 3.0),  # q = 5
        ("huber", 2, 2.0, 2.5, 3.0),
        ("squared", 0, 1.5, 0.125, 0.5),  # q = 1
        ("huber", 0, 1.5, 0.125, 0.5),
        ("squared", 1, 0.0, 0.0, 0.0),  # q = 0
    ],
)
def test_loss_and_priority_by_hand(loss_name, action, target, loss, priority):
    dqn = DQN(Linear(3), loss_name=loss_name)
    found = dqn.loss(ONLINE, OBS, jnp.int32(action), jnp.float32(target), KEY)
    assert tuple(map(float, found)) == (loss, priority)


def test_gradient_of_the_loss_moves_only_the_chosen_action_by_the_error():
    dqn = DQN(Linear(3))
    arguments = (ONLINE, OBS, jnp.int32(2), jnp.float32(2.0), KEY)
    gradient, _ = jax.grad(dqn.loss, has_aux=True)(*arguments)
    # error 5 - 2 = 3, times OBS, in the column of action 2
    assert gradient.tolist() == [[0.0, 0.0, 3.0], [0.0, 0.0, 6.0]]
    gradient, _ = jax.grad(DQN(Linear(3), loss_name="huber").loss, has_aux=True)(*arguments)
    assert gradient.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]]  # clipped to 1


@pytest.mark.parametrize(("loss_name", "dueling"), [("squared", False), ("huber", True)])
def test_gradient_of_the_loss_is_that_of_finite_differences(loss_name, dueling):
    network, params = network_and_params(layer_norm=True, dueling=dueling)
    dqn = DQN(network, loss_name=loss_name)
    obs = np.random.default_rng(1).normal(size=OBS_SHAPE).astype(np.float32)
    action, target = 1, 2.0

    def loss_by_hand(params):
        value, head = by_hand(params, obs, layer_norm=True)
        q = (value + head - head.mean() if dueling else head)[action]
        error = abs(q - target)
        return error - 0.5 if loss_name == "huber" and error > 1 else 0.5 * error**2

    loss_fn = jax.jit(jax.value_and_grad(dqn.loss, has_aux=True))
    (loss, _), gradient = loss_fn(params, obs, jnp.int32(action), jnp.float32(target), KEY)
    assert float(loss) == pytest.approx(loss_by_hand(params), rel=1e-4)
    doubles = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    leaves, structure = jax.tree.flatten(doubles)
    for i, found in enumerate(jax.tree.leaves(gradient)):
        expected = np.zeros(found.shape)
        for at in np.ndindex(found.shape):
            sides = []
            for step in (1e-6, -1e-6):
                moved = leaves[i].copy()
                moved[at] += step
                sides.append([*leaves[:i], moved, *leaves[i + 1 :]])
            up, down = (loss_by_hand(jax.tree.unflatten(structure, side)) for side in sides)
            expected[at] = (up - down) / 2e-6
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_algorithms_are_equal_iff_they_compute_the_same():
    assert DQN(MLP(2)) == DQN(MLP(2))
    assert hash(DQN(MLP(2))) == hash(DQN(MLP(2)))
    others = [DQN(MLP(3)), DQN(MLP(2), double=False), DQN(MLP(2), loss_name="huber")]
    others += [DQN(MLP(2, (256,))), DQN(MLP(2, dueling=True)), DQN(MLP(2, layer_norm=False))]
    assert len({DQN(MLP(2)), *others}) == 7
