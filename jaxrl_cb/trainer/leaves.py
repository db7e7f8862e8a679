"""Changing and copying leaves of a state between compiled chunks, without compiling anything.

Each eager jnp operation would be a small compilation; here only NumPy touches numbers, and
`device_put` carries them over.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_cb.errors import CallbackTypeError, CallbackValueError, kind
from jaxrl_cb.types import PyTree, TrainState


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed PRNG keys."""
    return isinstance(leaf, jax.Array) and is_key_dtype(leaf.dtype)


def is_key_dtype(dtype: Any) -> bool:
    """Whether a dtype is that of typed PRNG keys."""
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def key_impl(dtype: Any) -> str:
    """The name of the generator of a key dtype."""
    for name in ("threefry2x32", "rbg", "unsafe_rbg"):
        if jax.eval_shape(functools.partial(jax.random.key, 0, impl=name)).dtype == dtype:
            return name
    raise TypeError(f"keys of {dtype} are of no generator that comes with JAX")


def copied(tree: PyTree) -> PyTree:
    """A copy that no later chunk consumes."""

    def copy(leaf):
        if isinstance(leaf, np.ndarray):
            return leaf.copy()
        return jax.device_put(leaf, leaf.sharding, may_alias=False)

    return jax.tree.map(copy, tree)


def to_numpy(tree: PyTree) -> PyTree:
    """A copy as NumPy arrays, without typed keys."""
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def to_host(tree: PyTree, into: PyTree = None) -> PyTree:
    """The leaves as NumPy arrays that nothing else writes to; typed keys stay keys, copied.

    Args:
        tree: of JAX or NumPy arrays.
        into: what this gave for such a tree before and nobody needs any more; memory that is new
            to a process can take ten times as long to write to.
    """
    if jax.tree.structure(into) != jax.tree.structure(tree):
        into = tree

    def fetch(leaf, old):
        if is_key(leaf):
            return jax.device_put(leaf, leaf.sharding, may_alias=False)
        if not isinstance(leaf, jax.Array):
            return leaf
        if not isinstance(old, np.ndarray) or (old.shape, old.dtype) != (leaf.shape, leaf.dtype):
            return np.array(leaf, copy=True)
        np.copyto(old, np.asarray(leaf))
        return old

    return jax.tree.map(fetch, tree, into)


def put(tree: PyTree, device: Any) -> PyTree:
    """A copy of the leaves on a device."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf, device, may_alias=False), tree)


def replaced(old: PyTree, new: PyTree) -> PyTree:
    """`new` with the shape, dtype and sharding of `old`, leaf for leaf; unchanged leaves are kept.

    Raises:
        CallbackValueError: another structure or shape.
        CallbackTypeError: a number of another kind (a float where an integer is kept).
    """
    if jax.tree.structure(old) != jax.tree.structure(new):
        expected, given = _names(old), _names(new)
        parts = [*(f"lacks {x}" for x in sorted(expected - given)), "differs"]
        raise CallbackValueError(
            f"the new state has another structure: {kind(new)} that {parts[0]}; change the state "
            "that there is by its method replace"
        )
    paths, structure = jax.tree_util.tree_flatten_with_path(old)
    kept = [leaf for _, leaf in paths]
    pairs = zip(paths, jax.tree.leaves(new), strict=True)
    given = [_checked_leaf(path, leaf, value) for (path, leaf), value in pairs]
    changed = [i for i, leaf in enumerate(given) if leaf is not kept[i]]
    # All at once: each transfer to a device takes a while.
    values, places = [given[i] for i in changed], [kept[i].sharding for i in changed]
    for i, leaf in zip(changed, jax.device_put(values, places, may_alias=False), strict=True):
        kept[i] = leaf
    return jax.tree.unflatten(structure, kept)


def field(state: TrainState, name: tuple[str, str]) -> PyTree:
    """A field of a field of a state."""
    return getattr(getattr(state, name[0]), name[1])


def put_like(state: TrainState, fields: Mapping[tuple[str, str], PyTree]) -> dict[Any, PyTree]:
    """Fields of fields, put where those of the state are, all at once.

    Args:
        state: that has others.
        fields: by name, NumPy leaves of the shapes and dtypes that are there.
    """
    old, structure = jax.tree.flatten({name: field(state, name) for name in fields})
    places = [leaf.sharding for leaf in old]
    new = jax.device_put(jax.tree.leaves(dict(fields)), places, may_alias=False)
    return jax.tree.unflatten(structure, new)


def with_fields(state: TrainState, fields: Mapping[tuple[str, str], PyTree]) -> TrainState:
    """The state with other fields of fields, by name."""
    by_outer: dict[str, dict[str, PyTree]] = {}
    for (outer, inner), values in fields.items():
        by_outer.setdefault(outer, {})[inner] = values
    changed = {name: getattr(state, name).replace(**own) for name, own in by_outer.items()}
    return state.replace(**changed) if changed else state


def _names(tree: PyTree) -> set[str]:
    return {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def _checked_leaf(path: Any, old: jax.Array, new: Any) -> Any:
    """The new leaf, ready to be put on a device; the old one itself if it is that."""
    if new is old:
        return old
    name = "state" + jax.tree_util.keystr(path)
    if np.shape(new) != old.shape:
        raise CallbackValueError(f"{name} has shape {np.shape(new)}; expected {old.shape}")
    if is_key(old) or is_key(new):
        if getattr(new, "dtype", None) != old.dtype:
            raise CallbackTypeError(f"{name} must stay a typed key of {old.dtype}")
        return new
    value = np.asarray(new)
    if not np.can_cast(value.dtype, old.dtype, "same_kind"):
        raise CallbackTypeError(f"{name} has dtype {value.dtype}; expected {old.dtype}")
    return value.astype(old.dtype)


def rows(state: TrainState, axes: TrainState, positions: Sequence[int]) -> TrainState:
    """Some seeds of a state, as NumPy leaves (keys stay typed); lockstep scalars are kept."""

    def take(leaf):
        if is_key(leaf):
            return _as_key(np.asarray(jax.random.key_data(leaf))[list(positions)], leaf)
        return np.asarray(leaf)[list(positions)]

    return per_seed_leaves(take, axes, state)


def stacked(states: Sequence[TrainState], axes: TrainState) -> TrainState:
    """Joins states along the seed axis; lockstep scalars are those of the furthest state."""
    if len(states) == 1:
        return states[0]
    furthest = max(states, key=lambda s: int(s.num_updates))

    def join(*leaves):
        if is_key(leaves[0]):
            data = [np.asarray(jax.random.key_data(leaf)) for leaf in leaves]
            return _as_key(np.concatenate(data), leaves[0])
        return np.concatenate([np.asarray(leaf) for leaf in leaves])

    def under(axis, reference, *subtrees):
        return reference if axis is None else jax.tree.map(join, *subtrees)

    return jax.tree.map(under, axes, furthest, *states, is_leaf=lambda x: x is None)


def _as_key(data: Any, like: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))


def per_seed_leaves(function: Any, axes: PyTree, tree: PyTree) -> PyTree:
    """Maps over the leaves that seeds have each (axis 0); what they share (None) stays as it is."""

    def under(axis, subtree):
        return subtree if axis is None else jax.tree.map(function, subtree)

    return jax.tree.map(under, axes, tree, is_leaf=lambda x: x is None)


def with_leading(size: int, axes: PyTree, shapes: PyTree) -> PyTree:
    """Shapes and dtypes of the state of so many seeds, from those of one seed's."""

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *x.shape), x.dtype)

    return per_seed_leaves(leaf, axes, shapes)
