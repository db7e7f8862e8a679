"""Layers that flax does not have."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl_cb.ops.mapped import ENVIRONMENT_AXIS, is_mapped
from jaxrl_cb.types import Array

NOISE = "noise"
"""Name of the random numbers that `NoisyDense` draws; without any it is its mean."""


class NoisyDense(nn.Module):
    """A dense layer whose weights have learned, factorised Gaussian noise (Fortunato et al. 2018).

    ``y = (W + S * (f_out f_in^T)) x + b + s * f_out`` with ``f = sign(e) sqrt(|e|)`` (eq. 10 and
    11). Samples of a minibatch share their noise, and so these weights. Environments have noise of
    their own, ``f_out * (S (f_in * x))``, which makes no matrix of weights for each. Without
    random numbers named `NOISE`, as in tests, it is ``W x + b``.

    Attributes:
        features: outputs.
        dtype: of the matrix products.
        kernel_init: not used; means begin uniform in +-1/sqrt(inputs), as in the paper.
        sigma: the deviations begin as ``sigma / sqrt(inputs)``.
    """

    features: int
    dtype: Any = "float32"
    kernel_init: Any = None
    sigma: float = 0.5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., inputs] to [..., features]."""
        inputs = x.shape[-1]
        bound = 1 / math.sqrt(inputs)

        def uniform(key, shape):
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        deviation = nn.initializers.constant(self.sigma * bound)
        kernel = self.param("kernel", uniform, (inputs, self.features))
        bias = self.param("bias", uniform, (self.features,))
        kernel_sigma = self.param("kernel_sigma", deviation, (inputs, self.features))
        bias_sigma = self.param("bias_sigma", deviation, (self.features,))
        dtype = jnp.dtype(self.dtype)
        x = x.astype(dtype)
        if not self.has_rng(NOISE):
            return _product(x, kernel, bias)
        key_in, key_out = jax.random.split(self.make_rng(NOISE))
        noise_in, noise_out = _noise(key_in, inputs), _noise(key_out, self.features)
        if not is_mapped(ENVIRONMENT_AXIS):
            kernel = kernel + kernel_sigma * noise_in[:, None] * noise_out[None, :]
            return _product(x, kernel, bias + bias_sigma * noise_out)
        noise = _product(x * _wide(noise_in.astype(dtype), x), kernel_sigma, bias_sigma)
        return _product(x, kernel, bias) + _wide(noise_out, x) * noise


class FractionEmbedding(nn.Module):
    """``relu(W cos(pi i tau) + b)`` for i of 0 to 63 (Dabney et al. 2018, eq. 4).

    It begins as 1 for every fraction, so that the quantiles of an action begin equal and their mean
    differs from action to action, and from state to state, as much as one value would.

    Attributes:
        features: outputs.
        num_cosines: of the fraction.
    """

    features: int
    num_cosines: int = 64

    @nn.compact
    def __call__(self, fractions: Array) -> Array:
        """Maps fractions [K] to [K, features]."""
        frequencies = math.pi * jnp.arange(self.num_cosines, dtype=jnp.float32)
        cosines = jnp.cos(fractions[:, None] * frequencies[None, :])
        zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()
        dense = nn.Dense(self.features, kernel_init=zeros, bias_init=ones, name="embedding")
        return nn.relu(dense(cosines))


def _product(x: Array, kernel: Array, bias: Array) -> Array:
    """``x @ kernel + bias``, float32; the product is of the dtype of x."""
    return (x @ kernel.astype(x.dtype)).astype(jnp.float32) + _wide(bias, x)


def _noise(key: Array, size: int) -> Array:
    normal = jax.random.normal(key, (size,))
    return jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))


def _wide(vector: Array, like: Array) -> Array:
    """A vector with as many axes as another array, for strict promotion of ranks."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
