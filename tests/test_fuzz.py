"""Random settings: what comes is a working run or an error of ours, and nothing else."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

import jaxrl_cb
from jaxrl_cb.algorithms import VARIANTS
from jaxrl_cb.config import FIELDS, load_config, resolve, settings_of
from jaxrl_cb.envs import make
from jaxrl_cb.errors import ConfigError, JaxrlError
from jaxrl_cb.trainer import Trainer

STABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-3, 70),
    st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 10**400, 16, 32, 64, 128, 1024]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 1),
    st.integers(0, 100).map(np.int64),
    st.floats(0, 1).map(np.float64),
)
OTHERS = st.one_of(
    *(st.none(), st.booleans(), st.text(max_size=5), st.binary(max_size=3), st.complex_numbers()),
    *(st.sampled_from(["16", "1e-3", "nan", "huber", "linear", "True"]), st.just(np.zeros((2, 2)))),
    *(st.just(object()), st.just(int), st.just(print), st.just({1}), st.just({"a": 1})),
)
SIZES = st.lists(st.one_of(st.integers(1, 64), NUMBERS), max_size=3)
KWARGS = st.dictionaries(
    st.sampled_from(["max_steps_in_episode", "masscart", "gravity", "masscat", "api_key"]),
    st.one_of(st.integers(1, 100), NUMBERS, OTHERS),
    max_size=2,
)
ANY = st.one_of(NUMBERS, OTHERS, SIZES, SIZES.map(tuple), KWARGS)


def plausible(name):
    """Values of the kind that a setting has."""
    field = FIELDS[name][1]
    if name == "hidden_sizes":
        return SIZES
    if name == "env_kwargs":
        return KWARGS
    if name == "env_params":
        return st.dictionaries(st.sampled_from(["gravity", "length", "tau"]), st.floats(-9, 9))
    text = str(field.type)
    if "bool" in text:
        return st.booleans()
    if "str" in text:
        (choice,) = field.type.__metadata__
        return st.sampled_from([*choice.choices])
    if "float" in text:
        return st.floats(0, 1)
    return st.sampled_from([1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 320, 640, 1280])


def own_settings(algorithm, **named):
    """Without those that belong to other algorithms."""
    others = set(FIELDS) - settings_of(algorithm)
    return {name: value for name, value in named.items() if name not in others}


def random_settings(name_of_all=tuple(FIELDS)):
    usual = {name: plausible(name) for name in name_of_all}
    some = st.fixed_dictionaries({}, optional=usual)
    odd = st.dictionaries(st.sampled_from(name_of_all), ANY, max_size=1)
    unknown = st.dictionaries(st.text(max_size=6), ANY, max_size=1)
    return st.tuples(some, odd, st.one_of(st.just({}), unknown)).map(
        lambda parts: parts[0] | parts[1] | parts[2]
    )


accepted, messages = [], []


@settings(STABLE, max_examples=500)
@given(
    named=random_settings(),
    env=st.sampled_from(["CartPole-v1", None]),
    algorithm=st.sampled_from(sorted(VARIANTS)),
)
def check_random_settings(named, env, algorithm):
    named = own_settings(algorithm, **named)
    try:
        config = resolve(env, algorithm, named)
        environment = make("CartPole-v1", config.env.env_kwargs, config.env.env_params)
        trainer = Trainer(config.build_learner(environment), config.trainer)
    except ConfigError as error:
        messages.append(str(error))
        return
    accepted.append(named)
    flat = config.flat()
    assert all(name in flat for name in named)
    text = json.dumps(
        {"env": env, "algorithm": algorithm, "settings": flat}, default=lambda x: x.tolist()
    )
    assert resolve(*load_config(text)) == config  # nothing that is written is read otherwise
    assert trainer.params.epoch_num_steps % trainer.learner.iteration_steps == 0


def test_random_settings_are_accepted_or_refused_in_words(compiles):
    make("CartPole-v1")
    compiles()
    check_random_settings()
    assert compiles() == 0
    assert min(len(accepted), len(messages)) > 40
    assert all("\n" not in message and len(message) < 500 for message in messages)


@st.composite
def small_settings(draw):
    """Settings of a run that takes moments; most of them fit each other."""
    num_envs = draw(st.sampled_from([1, 3, 8]))
    named = {
        "num_envs": num_envs,
        "batch_size": draw(st.sampled_from([1, 7, 16])),
        "buffer_size": num_envs * draw(st.sampled_from([16, 50])),
        "start_timesteps": num_envs * draw(st.sampled_from([4, 15])),
        "epoch_num_steps": num_envs * draw(st.integers(1, 20)),
        "chunk_num_steps": draw(st.sampled_from([1, 40, 10**6])) * num_envs,
        "num_test_episodes": draw(st.integers(1, 3)),
        "n_step": draw(st.integers(1, 4)),
        "max_epochs": 1,
        "network": "mlp",  # CartPole has no image
        "hidden_sizes": draw(st.lists(st.integers(1, 8), max_size=2)),
        "samples_per_insert": draw(st.sampled_from([0, 0.5, 3])),
        "max_grad_norm": draw(st.sampled_from([None, 1e-3])),
        "env_kwargs": {"max_steps_in_episode": draw(st.integers(1, 30))},
    }
    others = set(FIELDS) - set(named) - {"num_seeds", "vectorize_seeds"}
    usual = {name: plausible(name) for name in sorted(others)}
    algorithm = draw(st.sampled_from(sorted(VARIANTS)))
    more = own_settings(algorithm, **draw(st.fixed_dictionaries({}, optional=usual)))
    return {"algorithm": algorithm} | named | more


finished = []


@settings(STABLE, max_examples=10)
@given(named=small_settings())
def check_small_run(named):
    try:
        result = jaxrl_cb.train("CartPole-v1", verbose=False, **named)
    except JaxrlError:
        return
    finished.append(named)
    record = result.history[-1]
    assert record.epoch == 1
    assert record.env_step == named["epoch_num_steps"]
    assert record.returns.shape == (1, named["num_test_episodes"])
    assert record.lengths.max() <= named["env_kwargs"]["max_steps_in_episode"]
    assert result.policy.act(np.zeros(4)).shape == ()


@pytest.mark.slow
def test_random_small_runs_go_through():
    check_small_run()
    assert len(finished) >= 5


@pytest.mark.parametrize("name", FIELDS)
def test_the_strategies_have_values_of_every_setting_that_are_accepted(name):
    def is_accepted(value):
        try:
            config = resolve("CartPole-v1", algorithm, {name: value})
        except ConfigError:
            return False
        return config != resolve("CartPole-v1", algorithm, {})

    algorithm = next(own for own in VARIANTS if name in settings_of(own))

    find(plausible(name), is_accepted, settings=STABLE)
