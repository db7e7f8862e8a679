"""Parameters of a policy as the beginning of a run."""

import jax

from jaxrl_cb.algorithms.base import Algorithm
from jaxrl_cb.envs.environment import EnvSpec
from jaxrl_cb.errors import ConfigError
from jaxrl_cb.learners import Learner
from jaxrl_cb.trainer.leaves import to_numpy
from jaxrl_cb.trainer.policy import Policy, check_policy
from jaxrl_cb.types import PyTree


def fitting_params(policy: Policy, learner: Learner, num_seeds: int) -> list[PyTree]:
    """The parameters that each seed begins with, as NumPy arrays with a leading [1].

    Raises:
        ConfigError: the policy has another number of seeds (and not one for all), or its parameters
            are not those of the learner's network.
    """
    check_policy("warm_start", policy)
    if policy.num_seeds not in (1, num_seeds):
        raise ConfigError(
            f"warm_start has {policy.num_seeds} seeds, the run has num_seeds={num_seeds}; pick one "
            "of them (policy[0]) for all, or run as many"
        )
    needed = abstract_params(learner.algorithm, learner.environment.spec)
    check_shapes("warm_start does not fit", policy.params, needed)
    return [to_numpy(policy[index % policy.num_seeds].params) for index in range(num_seeds)]


def abstract_params(algorithm: Algorithm, spec: EnvSpec) -> PyTree:
    """Shapes of an algorithm's parameters for an environment."""
    obs = jax.ShapeDtypeStruct(spec.obs_shape, spec.obs_dtype)
    return jax.eval_shape(algorithm.init, jax.eval_shape(lambda: jax.random.key(0)), obs)


def check_shapes(what: str, params: PyTree, needed: PyTree) -> None:
    """Raises ConfigError, beginning with `what`, if parameters [S, ...] are not those needed."""
    expected = _shapes(needed)
    given = {name: shape[1:] for name, shape in _shapes(params).items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise ConfigError(
                f"{what}: its parameter {name} has the shape {given.get(name, 'of none')}, the "
                f"network's {expected.get(name, 'is not there')}; take the same environment, "
                "network, hidden_sizes, layer_norm, dueling and normalize_obs"
            )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
