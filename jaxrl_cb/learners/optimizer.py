"""Adam and its like with clipping, and the learning rate as a number that callbacks may set."""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxrl_cb.checks import Choice, Range, check_fields
from jaxrl_cb.types import Array, Hyperparams, PyTree

SCHEDULES = {
    "constant": lambda fraction: jnp.float32(1.0),
    "linear": lambda fraction: 1.0 - fraction,
    "cosine": lambda fraction: 0.5 * (1.0 + jnp.cos(math.pi * fraction)),
}

OPTIMIZERS = {"adam": optax.scale_by_adam, "radam": optax.scale_by_radam}

ONE_VECTOR_BELOW = 100_000
"""Parameters, below which a network's are updated as one vector."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser.

    Attributes:
        optimizer: "adam" (Kingma & Ba 2015) or "radam", which begins with smaller steps (Liu et al.
            2020).
        learning_rate: step size, in the state: callbacks set it through the policy.
        learning_rate_schedule: "constant", "linear" or "cosine" (to 0 over all gradient steps); it
            multiplies whatever learning rate is set.
        max_grad_norm: gradients are scaled down to this global norm; None leaves them.
        adam_epsilon: epsilon of either.
    """

    optimizer: Annotated[str, Choice(OPTIMIZERS)] = "adam"
    learning_rate: Annotated[float, Range(0)] = 2.5e-4
    learning_rate_schedule: Annotated[str, Choice(SCHEDULES)] = "constant"
    max_grad_norm: Annotated[float | None, Range(0, open_low=True)] = 10.0
    adam_epsilon: Annotated[float, Range(0, open_low=True)] = 1e-5

    def __post_init__(self):
        check_fields(self)

    def transformation(self) -> optax.GradientTransformation:
        """The gradient transformation without the learning rate."""
        transformation = OPTIMIZERS[self.optimizer](eps=self.adam_epsilon)
        if self.max_grad_norm is not None:
            clip = optax.clip_by_global_norm(self.max_grad_norm)
            transformation = optax.chain(clip, transformation)
        return _as_one_vector_if_small(transformation)

    def step_size(self, hyperparams: Hyperparams, num_updates: Array) -> Array:
        """[] learning rate of the gradient step after `num_updates` others."""
        length = jnp.maximum(hyperparams.schedule_updates, 1).astype(jnp.float32)
        fraction = jnp.minimum(num_updates.astype(jnp.float32) / length, 1.0)
        return hyperparams.learning_rate * SCHEDULES[self.learning_rate_schedule](fraction)


def _as_one_vector_if_small(
    transformation: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Works on all parameters of a small network as one vector.

    Fewer, larger operations compile and run faster, until putting the gradients into one vector
    takes longer than what is saved.
    """
    together = optax.flatten(transformation)

    def chosen(tree: PyTree) -> optax.GradientTransformation:
        num_params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        return together if num_params < ONE_VECTOR_BELOW else transformation

    def init(params: PyTree) -> PyTree:
        return chosen(params).init(params)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return chosen(updates).update(updates, state, params)

    return optax.GradientTransformation(init, update)
