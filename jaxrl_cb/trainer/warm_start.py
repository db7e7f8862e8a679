"""Parameters of a policy as the beginning of a run."""

import jax

from jaxrl_cb.errors import ConfigError
from jaxrl_cb.learners.replay import ReplayLearner
from jaxrl_cb.trainer.leaves import to_numpy
from jaxrl_cb.trainer.policy import Policy
from jaxrl_cb.types import PyTree


def fitting_params(policy: Policy, learner: ReplayLearner, num_seeds: int) -> list[PyTree]:
    """The parameters that each seed begins with, as NumPy arrays with a leading [1].

    Raises:
        ConfigError: the policy has another number of seeds (and not one for all), or its parameters
            are not those of the learner's network.
    """
    if policy.num_seeds not in (1, num_seeds):
        raise ConfigError(
            f"warm_start has {policy.num_seeds} seeds, the run has num_seeds={num_seeds}; pick one "
            "of them (policy[0]) for all, or run as many"
        )
    spec = learner.environment.spec
    obs = jax.ShapeDtypeStruct(spec.obs_shape, spec.obs_dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    needed = _shapes(jax.eval_shape(learner.algorithm.init, key, obs))
    given = {name: shape[1:] for name, shape in _shapes(policy.params).items()}
    for name in sorted(needed.keys() | given.keys()):
        if needed.get(name) != given.get(name):
            raise ConfigError(
                f"warm_start does not fit: its parameter {name} has the shape "
                f"{given.get(name, 'of none')}, the network's {needed.get(name, 'is not there')}; "
                "train with the same environment, hidden_sizes, layer_norm, dueling and "
                "normalize_obs"
            )
    return [to_numpy(policy[index % policy.num_seeds].params) for index in range(num_seeds)]


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
