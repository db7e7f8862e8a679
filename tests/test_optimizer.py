"""Adam against its definition, for networks that are updated as one vector and for large ones."""

import jax
import numpy as np
import pytest

from jaxrl_cb.learners import OptimizerConfig
from jaxrl_cb.learners.optimizer import ONE_VECTOR_BELOW
from jaxrl_cb.ops.promotion import default_promotion

SMALL = {"bias": (7,), "kernel": (5, 7)}
LARGE = {"bias": (7,), "kernel": (ONE_VECTOR_BELOW // 100, 100)}


def adam(gradients, epsilon, max_norm):
    """Kingma & Ba 2015, algorithm 1, on float64 vectors; gives the directions, newest last."""
    m, v, directions = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        norm = np.sqrt(np.sum(g * g))
        g = g * min(1.0, max_norm / norm)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        directions.append(m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + epsilon))
    return directions


def drawn(shapes, number, scale):
    rng = np.random.default_rng(number)
    return {name: scale * rng.normal(size=size).astype("f") for name, size in shapes.items()}


def vector(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_adam_is_that_of_its_definition(shapes, max_norm):
    config = OptimizerConfig(max_grad_norm=max_norm, adam_epsilon=1e-5)
    transformation = config.transformation()
    gradients = [drawn(shapes, number, scale) for number, scale in enumerate((1.0, 1e-4, 3.0))]
    state = transformation.init(drawn(shapes, 0, 1.0))
    expected = adam([vector(g) for g in gradients], 1e-5, max_norm)
    for gradient, direction in zip(gradients, expected, strict=True):
        with default_promotion():  # as within a gradient step
            found, state = transformation.update(gradient, state)
        np.testing.assert_allclose(vector(found), direction, rtol=2e-4, atol=1e-6)


def test_a_small_network_is_one_vector_and_a_large_one_is_not():
    transformation = OptimizerConfig(max_grad_norm=None).transformation()
    sizes = [
        sorted(leaf.shape for leaf in jax.tree.leaves(transformation.init(drawn(shapes, 0, 1.0))))
        for shapes in (SMALL, LARGE)
    ]
    moments = [LARGE["bias"], LARGE["kernel"]] * 2
    assert sizes == [[(), (42,), (42,)], sorted([(), *moments])]
