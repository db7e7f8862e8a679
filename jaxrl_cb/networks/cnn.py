"""Convolutional Q-network for small images, such as MinAtar's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxrl_cb.networks.mlp import QNetwork
from jaxrl_cb.ops.mapped import SAMPLE_AXIS, is_mapped
from jaxrl_cb.types import Array, PyTree

KERNEL = 3
"""Rows and columns that a convolution looks at."""

EPSILON = 1e-6
"""What LayerNorm adds to a variance, flax's default."""


class CNN(QNetwork):
    """A 3 x 3 convolution (no padding, stride 1), LayerNorm over its features, ReLU, and an MLP.

    With 16 features and 128 hidden units, the network of MinAtar (Young & Tian 2019); LayerNorm
    after each layer as in PQN (Gallici et al. 2024). The convolution is a matrix product of
    patches, several times faster on CPU than XLA's convolution of so few channels. Where a
    minibatch is learned from on CPU, its convolution is `normalized_features`.

    Attributes:
        conv_features: of the convolution.
    """

    hidden_sizes: tuple[int, ...] = (128,)
    conv_features: int = 16

    @nn.compact
    def __call__(self, obs: Array, fractions: Array | None = None) -> Array:
        """Maps one observation [rows, columns, channels] to action values, see `MLP.__call__`."""
        obs = obs.astype(jnp.float32)
        if self._has_batch_last():
            params = self.variables["params"]
            x = normalized_features(obs, params["conv"], params["LayerNorm_0"])
        else:
            x = nn.Dense(
                self.conv_features,
                dtype=self.compute_dtype,
                kernel_init=nn.initializers.he_uniform(),
                name="conv",
            )(patches(obs)).astype(jnp.float32)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return self.mlp()(x, fractions)

    def _has_batch_last(self) -> bool:
        """Whether `normalized_features` is what is asked for, and faster."""
        is_plain = self.layer_norm and jnp.dtype(self.compute_dtype) == jnp.float32
        return is_plain and is_mapped(SAMPLE_AXIS) and jax.default_backend() == "cpu"


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
    pixels = _pixels(image.shape)
    return image.reshape(-1, image.shape[-1])[pixels].reshape(*pixels.shape[:2], -1)


@jax.custom_batching.custom_vmap
def normalized_features(image: Array, conv: PyTree, norm: PyTree) -> Array:
    """A 3 x 3 convolution, LayerNorm over its features and ReLU, for a minibatch on CPU.

    Mapped over images their axis becomes the last one, so that sums over features are sums of
    rows, which a CPU vectorises. LayerNorm's mean is linear: it is taken from the weights, and not
    from every position.

    Args:
        image: [rows, columns, channels] float32.
        conv: "kernel" [9 * channels, F] and "bias" [F].
        norm: "scale" [F] and "bias" [F].

    Returns:
        [(rows - 2) * (columns - 2) * F], of the positions one after the other.
    """
    return _features_of_image(image, conv, norm)


@normalized_features.def_vmap
def _mapped_features(_: int, mapped: Any, images: Array, conv: PyTree, norm: PyTree) -> Any:
    if mapped[0] and not any(jax.tree.leaves(mapped[1:])):
        return _features_of_images(images, conv, norm), True
    axes = jax.tree.map(lambda is_mapped: 0 if is_mapped else None, tuple(mapped))
    return jax.vmap(_features_of_image, axes)(images, conv, norm), True


def _features_of_image(image: Array, conv: PyTree, norm: PyTree) -> Array:
    return _features_of_images(image[None], conv, norm)[0]


def _features_of_images(images: Array, conv: PyTree, norm: PyTree) -> Array:
    """Of [B, rows, columns, channels], [B, positions * F]."""
    pixels, channels = _pixels(images.shape[1:]), images.shape[-1]
    places = pixels.reshape(-1, pixels.shape[-1]).T[:, None] * channels
    places = (places + np.arange(channels)[:, None]).reshape(-1, places.shape[-1])
    columns = images.reshape(len(images), -1).T[places]  # [9 * channels, positions, B]
    kernel = conv["kernel"] - jnp.mean(conv["kernel"], axis=1, keepdims=True)
    bias = conv["bias"] - jnp.mean(conv["bias"], keepdims=True)
    x = lax.dot_general(kernel, columns, (((0,), (0,)), ((), ())))
    x = x.reshape(len(bias), -1) + bias[:, None]
    variance = jnp.mean(jnp.square(x), axis=0, keepdims=True)
    x = x * (lax.rsqrt(variance + EPSILON) * norm["scale"][:, None]) + norm["bias"][:, None]
    x = nn.relu(x).reshape(len(bias), -1, len(images))
    return x.swapaxes(0, 1).reshape(-1, len(images)).T


def _pixels(shape: tuple[int, ...]) -> np.ndarray:
    """Of each position the pixels of its patch, [rows - 2, columns - 2, 9]."""
    rows, columns, _ = shape
    first = np.arange(rows - KERNEL + 1)[:, None] * columns + np.arange(columns - KERNEL + 1)
    within = np.arange(KERNEL)[:, None] * columns + np.arange(KERNEL)
    return first[:, :, None] + within.ravel()
