"""Convolutional Q-network for small images, such as MinAtar's."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrl_cb.networks.mlp import QNetwork
from jaxrl_cb.types import Array

KERNEL = 3
"""Rows and columns that a convolution looks at."""


class CNN(QNetwork):
    """A 3 x 3 convolution (no padding, stride 1), LayerNorm over its features, ReLU, and an MLP.

    With 16 features and 128 hidden units, the network of MinAtar (Young & Tian 2019); LayerNorm
    after each layer as in PQN (Gallici et al. 2024). The convolution is a matrix product of
    patches, several times faster on CPU than XLA's convolution of so few channels.

    Attributes:
        conv_features: of the convolution.
    """

    hidden_sizes: tuple[int, ...] = (128,)
    conv_features: int = 16

    @nn.compact
    def __call__(self, obs: Array, fractions: Array | None = None) -> Array:
        """Maps one observation [rows, columns, channels] to action values, see `MLP.__call__`."""
        x = patches(obs.astype(jnp.float32))
        x = nn.Dense(
            self.conv_features,
            dtype=self.compute_dtype,
            kernel_init=nn.initializers.he_uniform(),
            name="conv",
        )(x).astype(jnp.float32)
        x = nn.LayerNorm()(x) if self.layer_norm else x
        return self.mlp()(nn.relu(x), fractions)


class NatureCNN(QNetwork):
    """The network of Mnih et al. 2015 for images of some 84 x 84: three convolutions and an MLP.

    32 features of 8 x 8 (stride 4), 64 of 4 x 4 (2), 64 of 3 x 3 (1), then 512 hidden units, each
    followed by ReLU. Observations of dtype uint8 are divided by 255.
    """

    hidden_sizes: tuple[int, ...] = (512,)

    @nn.compact
    def __call__(self, obs: Array, fractions: Array | None = None) -> Array:
        """Maps one observation [rows, columns, channels] to action values, see `MLP.__call__`."""
        x = obs.astype(jnp.float32)
        x = x / 255.0 if obs.dtype == jnp.uint8 else x
        for features, size, stride in NATURE:
            x = nn.Conv(
                features,
                (size, size),
                strides=stride,
                padding="VALID",
                dtype=self.compute_dtype,
                kernel_init=nn.initializers.he_uniform(),
            )(x).astype(jnp.float32)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return self.mlp()(x, fractions)


NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Features, size and stride of each convolution of `NatureCNN`."""


def patches(image: Array) -> Array:
    """Every 3 x 3 patch of an image.

    Args:
        image: [rows, columns, channels], of 3 rows and columns or more.

    Returns:
        [rows - 2, columns - 2, 9 * channels], a patch's elements in the order of an array
        [3, 3, channels].
    """
    rows, columns, channels = image.shape
    first = np.arange(rows - KERNEL + 1)[:, None] * columns + np.arange(columns - KERNEL + 1)
    within = np.arange(KERNEL)[:, None] * columns + np.arange(KERNEL)
    pixels = first[:, :, None] + within.ravel()
    return image.reshape(rows * columns, channels)[pixels].reshape(*first.shape, -1)
