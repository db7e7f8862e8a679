"""Callback state as JSON: the values that Python code keeps, and nothing that could run.

JSON has no tuples, sets, deques, arrays, generators or keys that are not text; here they are
objects with one key that begins with "$". What is read back equals what was written, bit for bit.
"""

import random
from collections import deque
from typing import Any

import jax
import numpy as np

from jaxrl_cb.errors import looks_secret


def to_plain(value: Any) -> Any:
    """A value as JSON.

    Raises:
        TypeError: it is, or holds, something that JSON cannot bring back.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [to_plain(entry) for entry in value]
    if type(value) is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: to_plain(entry) for key, entry in value.items()}
        return {"$dict": [[to_plain(key), to_plain(entry)] for key, entry in value.items()]}
    if type(value) in (tuple, set, frozenset):
        return {f"${type(value).__name__}": [to_plain(entry) for entry in value]}
    if type(value) is deque:
        return {"$deque": [[to_plain(entry) for entry in value], value.maxlen]}
    if type(value) is random.Random:
        return {"$random": to_plain(value.getstate())}
    if type(value) is np.random.Generator:
        return _generator_to_plain(value)
    if isinstance(value, jax.Array):
        return _jax_to_plain(value)
    if isinstance(value, np.generic | np.ndarray):
        return _array_to_plain(value)
    raise TypeError(f"a {type(value).__name__}")


def from_plain(value: Any) -> Any:
    """What `to_plain` was given.

    Raises:
        ValueError: no value gives this JSON.
    """
    if isinstance(value, list):
        return [from_plain(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "")
    if not kind.startswith("$"):
        return {key: from_plain(entry) for key, entry in value.items()}
    if kind not in _KINDS:
        raise ValueError(f"{kind!r} is no kind of value")
    return _KINDS[kind](value[kind])


def is_plain(value: Any) -> bool:
    """Whether `to_plain` takes a value."""
    try:
        to_plain(value)
    except TypeError:
        return False
    return True


def without_secrets(value: Any) -> Any:
    """A value without the entries of dicts, at any depth, that are named like secrets."""
    if isinstance(value, dict):
        named = {k: v for k, v in value.items() if not _is_secret(k)}
        return {k: without_secrets(v) for k, v in named.items()}
    if type(value) in (list, tuple):
        return type(value)(map(without_secrets, value))
    if type(value) is deque:
        return deque(map(without_secrets, value), value.maxlen)
    return value


def with_secrets(value: Any, now: Any) -> Any:
    """The same value, with the entries that `without_secrets` would leave out of another one.

    Lists, tuples and deques are gone through together as long as their lengths are equal.
    """
    if type(value) is not type(now):
        return value
    if type(value) is dict:
        secrets = {key: entry for key, entry in now.items() if _is_secret(key)}
        return {k: with_secrets(v, now.get(k)) for k, v in value.items()} | secrets
    if type(value) in (list, tuple, deque) and len(value) == len(now):
        entries = map(with_secrets, value, now)
        return deque(entries, value.maxlen) if type(value) is deque else type(value)(entries)
    return value


def _is_secret(key: Any) -> bool:
    return isinstance(key, str) and looks_secret(key)


def _array_to_plain(value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"an array of {array.dtype}")
    kind = "$scalar" if isinstance(value, np.generic) else "$array"
    return {kind: [array.dtype.name, list(array.shape), array.ravel().tolist()]}


def _jax_to_plain(value: jax.Array) -> Any:
    """A weak type is that of a Python number, which only a scalar can be made of again."""
    content = _array_to_plain(np.asarray(value))["$array"]  # a typed key: TypeError
    if value.weak_type and value.shape:
        raise TypeError("a jax array of a weak type")
    return {"$jax": [*content, value.weak_type]}


def _generator_to_plain(value: np.random.Generator) -> Any:
    """With its seed sequence, which `spawn` goes on from."""
    bits = value.bit_generator
    name, sequence = type(bits).__name__, bits.seed_seq
    if type(bits) is not _BITS.get(name) or type(sequence) is not np.random.SeedSequence:
        raise TypeError(f"a Generator of {name}")
    seeds: Any = sequence.state
    if seeds["pool_size"] != POOL_SIZE:
        raise TypeError("a Generator with a pool of its own size")
    own = [to_plain(seeds[key]) for key in ("entropy", "spawn_key", "n_children_spawned")]
    return {"$generator": [name, own, to_plain(bits.state)]}


def _generator(content: Any) -> np.random.Generator:
    name, (entropy, spawn_key, spawned), state = content
    sequence = np.random.SeedSequence(
        from_plain(entropy), spawn_key=from_plain(spawn_key), n_children_spawned=spawned
    )
    bits = _BITS[name](sequence)
    bits.state = from_plain(state)
    return np.random.Generator(bits)


def _random(content: Any) -> random.Random:
    value = random.Random()
    value.setstate(from_plain(content))
    return value


def _array(content: Any) -> np.ndarray:
    dtype, shape, values = content
    if np.dtype(str(dtype)).kind not in "biuf":
        raise ValueError(f"an array of {dtype}")
    return np.array(values, np.dtype(str(dtype))).reshape([int(size) for size in shape])


def _jax(content: Any) -> jax.Array:
    """Put on the device as it is: nothing is compiled."""
    *numbers, is_weak = content
    array = _array(numbers)
    value = jax.device_put(array.item() if is_weak else array)
    if (value.dtype, value.shape) != (array.dtype, array.shape):
        raise ValueError(f"a jax array of {array.dtype.name} (without jax_enable_x64)")
    return value


POOL_SIZE = 4
"""Of NumPy's seed sequences, unless another one is asked for."""

_BITS = {"PCG64": np.random.PCG64, "PCG64DXSM": np.random.PCG64DXSM}
"""`default_rng` has the first. Others keep a position, which NumPy does not check as it sets it."""

_KINDS = {
    "$dict": lambda entries: {from_plain(key): from_plain(entry) for key, entry in entries},
    "$tuple": lambda entries: tuple(map(from_plain, entries)),
    "$set": lambda entries: set(map(from_plain, entries)),
    "$frozenset": lambda entries: frozenset(map(from_plain, entries)),
    "$deque": lambda content: deque(map(from_plain, content[0]), content[1]),
    "$array": _array,
    "$scalar": lambda content: _array(content)[()],
    "$jax": _jax,
    "$generator": _generator,
    "$random": _random,
}
