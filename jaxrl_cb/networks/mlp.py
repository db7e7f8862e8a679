"""Fully connected Q-network and the heads that all networks end in."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxrl_cb.networks.layers import FractionEmbedding, NoisyDense
from jaxrl_cb.types import Array


class QNetwork(nn.Module):
    """What every network of the library has, and the MLP that a convolutional one ends in.

    LayerNorm is on by default: it steadies Q-learning (Gallici et al. 2024, PQN). The dueling head
    is ``V + A - mean(A)`` (Wang et al. 2016, eq. 9).

    Attributes:
        num_actions: A.
        hidden_sizes: width of each fully connected hidden layer.
        layer_norm: whether LayerNorm follows each hidden layer (of a convolution, over features).
        dueling: whether the head is split into value and advantage.
        compute_dtype: of the hidden layers' matrix products, "float32" or "bfloat16". Parameters,
            LayerNorm and the head are float32 in either case: bfloat16 cannot tell -100 from
            -100.2, by which the values of two actions may differ.
        num_outputs: N, numbers for each action (atoms, quantiles); None is one, without an axis.
        equal_init: whether the N numbers of an action begin equal, so that their mean differs as
            much from action to action as one number would; not with `noisy`, whose weights begin
            by another rule.
        implicit: whether it takes K quantile fractions beside the observation, whose embedding
            multiplies what goes into the last hidden layer (Dabney et al. 2018, IQN).
        noisy: whether all fully connected layers are `NoisyDense`.
    """

    num_actions: int
    hidden_sizes: tuple[int, ...] = (256, 256)
    layer_norm: bool = True
    dueling: bool = False
    compute_dtype: str = "float32"
    num_outputs: int | None = None
    equal_init: bool = False
    implicit: bool = False
    noisy: bool = False

    def mlp(self) -> "MLP":
        """The fully connected part behind a convolution, a submodule named "mlp"."""
        fields = {field.name for field in dataclasses.fields(QNetwork)} - {"parent", "name"}
        return MLP(**{name: getattr(self, name) for name in fields}, name="mlp")


class MLP(QNetwork):
    """Hidden layers of dense, LayerNorm, ReLU, and a head of one value per action."""

    @nn.compact
    def __call__(self, obs: Array, fractions: Array | None = None) -> Array:
        """Values of the actions, float32.

        Args:
            obs: one observation of any shape.
            fractions: [K] in [0, 1], of an implicit network.

        Returns:
            [A], or [A, N], or [A, K] at the fractions.
        """
        x = jnp.ravel(obs).astype(jnp.float32)
        dense = NoisyDense if self.noisy else nn.Dense
        hidden = functools.partial(
            dense, dtype=self.compute_dtype, kernel_init=nn.initializers.he_uniform()
        )
        last = max(len(self.hidden_sizes) - 1, 0)
        for index, size in enumerate((*self.hidden_sizes, None)):
            if fractions is not None and index == last:
                x = x[None, :] * FractionEmbedding(x.shape[-1], name="fractions")(fractions)
            if size is None:  # behind the last one
                break
            x = hidden(size)(x).astype(jnp.float32)
            x = nn.LayerNorm()(x) if self.layer_norm else x
            x = nn.relu(x)
        per_action = self.num_outputs or 1
        begin = nn.initializers.lecun_normal()
        begin = _repeated(begin, per_action) if self.equal_init else begin
        head = functools.partial(dense, kernel_init=begin)
        values = head(self.num_actions * per_action, name="head")(x)
        values = values.reshape(*values.shape[:-1], self.num_actions, per_action)
        if self.dueling:
            value = head(per_action, name="value")(x)
            values = value[..., None, :] + values - jnp.mean(values, axis=-2, keepdims=True)
        if fractions is not None:
            return values[..., 0].T
        return values if self.num_outputs else values[..., 0]


def _repeated(begin: Callable[..., Array], times: int) -> Callable[..., Array]:
    """An initializer whose columns are equal, one group of so many after the other."""

    def repeated(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.repeat(begin(key, (*shape[:-1], shape[-1] // times), dtype), times, axis=-1)

    return repeated
