"""Fully connected Q-network, plain or dueling."""

import functools

import jax.numpy as jnp
from flax import linen as nn

from jaxrl_cb.types import Array


class MLP(nn.Module):
    """Hidden layers of dense, LayerNorm, ReLU, and a head of one value per action.

    LayerNorm is on by default: it steadies Q-learning (Gallici et al. 2024, PQN). The dueling head
    is ``V + A - mean(A)`` (Wang et al. 2016, eq. 9).

    Attributes:
        num_actions: A.
        hidden_sizes: width of each hidden layer.
        layer_norm: whether LayerNorm follows each hidden dense layer.
        dueling: whether the head is split into value and advantage.
        compute_dtype: of the hidden layers' matrix products, "float32" or "bfloat16". Parameters,
            LayerNorm and the head are float32 in either case: bfloat16 cannot tell -100 from
            -100.2, by which the values of two actions may differ.
    """

    num_actions: int
    hidden_sizes: tuple[int, ...] = (256, 256)
    layer_norm: bool = True
    dueling: bool = False
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Maps one observation of any shape to [A] float32 action values."""
        x = jnp.ravel(obs).astype(jnp.float32)
        hidden = functools.partial(
            nn.Dense, dtype=self.compute_dtype, kernel_init=nn.initializers.he_uniform()
        )
        for size in self.hidden_sizes:
            x = hidden(size)(x).astype(jnp.float32)
            x = nn.LayerNorm()(x) if self.layer_norm else x
            x = nn.relu(x)
        q_values = nn.Dense(self.num_actions, name="head")(x)
        if self.dueling:
            value = nn.Dense(1, name="value")(x)
            q_values = value + q_values - jnp.mean(q_values)
        return q_values
