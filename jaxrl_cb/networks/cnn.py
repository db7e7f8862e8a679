"""Convolutional Q-network for small images, such as MinAtar's."""

import jax.numpy as jnp
from flax import linen as nn

from jaxrl_cb.networks.mlp import MLP
from jaxrl_cb.types import Array

KERNEL = 3
"""Rows and columns that a convolution looks at."""


class CNN(nn.Module):
    """A 3 x 3 convolution (no padding, stride 1), LayerNorm over its features, ReLU, and an MLP.

    With 16 features and 128 hidden units, the network of MinAtar (Young & Tian 2019); LayerNorm
    after each layer as in PQN (Gallici et al. 2024). The convolution is a matrix product of
    patches, several times faster on CPU than XLA's convolution of so few channels.

    Attributes:
        num_actions: A.
        hidden_sizes: width of each hidden layer behind the convolution.
        layer_norm: whether LayerNorm follows the convolution and each hidden layer.
        dueling: whether the head is split into value and advantage.
        conv_features: of the convolution.
        compute_dtype: of the matrix products but the head's, see `MLP`.
    """

    num_actions: int
    hidden_sizes: tuple[int, ...] = (128,)
    layer_norm: bool = True
    dueling: bool = False
    conv_features: int = 16
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Maps one observation [rows, columns, channels] to [A] float32 action values."""
        x = patches(obs.astype(jnp.float32))
        x = nn.Dense(
            self.conv_features,
            dtype=self.compute_dtype,
            kernel_init=nn.initializers.he_uniform(),
            name="conv",
        )(x).astype(jnp.float32)
        x = nn.LayerNorm()(x) if self.layer_norm else x
        head = (self.num_actions, self.hidden_sizes, self.layer_norm, self.dueling)
        return MLP(*head, self.compute_dtype, name="mlp")(nn.relu(x))


def patches(image: Array) -> Array:
    """Every 3 x 3 patch of an image.

    Args:
        image: [rows, columns, channels], of 3 rows and columns or more.

    Returns:
        [rows - 2, columns - 2, 9 * channels], a patch's elements in the order of an array
        [3, 3, channels].
    """
    rows, columns = image.shape[0] - KERNEL + 1, image.shape[1] - KERNEL + 1
    shifted = [
        image[row : row + rows, column : column + columns]
        for row in range(KERNEL)
        for column in range(KERNEL)
    ]
    return jnp.concatenate(shifted, axis=-1)
