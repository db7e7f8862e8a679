"""Parameters of the environment in the state: one for each seed, set by callbacks, swept."""

import dataclasses

import gymnax
import jax
import numpy as np
import pytest
import tiny

import jaxrl_cb
from jaxrl_cb.envs import (
    action_repeat,
    clip_reward,
    frame_stack,
    make,
    sticky_actions,
    time_limit,
)
from jaxrl_cb.errors import CallbackTypeError, CallbackValueError, ConfigError, ConfigTypeError
from jaxrl_cb.trainer import (
    EpochTestCallbackSetEnvParams,
    EpochTrainCallback,
    EpochTrainCallbackCurriculum,
    MemoryLogger,
    TrainerCallbacks,
)

SETTINGS = tiny.TINY | tiny.SHORT | {"max_epochs": 2, "epsilon_decay_steps": 100}
SETTINGS |= {"learning_rate_schedule": "constant"}


def train(callbacks=None, **settings):
    return jaxrl_cb.train("CartPole-v1", callbacks=callbacks, **(SETTINGS | settings))


def trajectory(environment, steps=30):
    """Observations under the same keys and actions."""

    @jax.jit
    def played():
        state, obs = environment.reset(jax.random.key(0))

        def step(state, inputs):
            key, action = inputs
            result = environment.step(key, key, state, action)
            return result.state, result.final_obs

        inputs = jax.random.split(jax.random.key(3), steps), np.arange(steps, dtype=np.int32) % 2
        return obs, jax.lax.scan(step, state, inputs)[1]

    first, rest = played()
    return np.concatenate([first[None], rest])


def test_an_environment_has_the_values_that_it_is_given():
    constant = make("CartPole-v1", {"gravity": 15.0, "length": 0.8})
    varied = make("CartPole-v1", {}, {"length": 0.8, "gravity": 15.0})
    np.testing.assert_allclose(trajectory(varied), trajectory(constant), rtol=1e-5)
    other = varied.with_params({"length": 0.8, "gravity": 3.0})
    lighter = make("CartPole-v1", {"gravity": 3.0, "length": 0.8})
    np.testing.assert_allclose(trajectory(other), trajectory(lighter), rtol=1e-5)
    assert np.abs(trajectory(other) - trajectory(varied)).max() > 0.01
    env, params = gymnax.make("CartPole-v1")  # and as gymnax itself does it
    params = params.replace(gravity=15.0, length=0.8)
    key = jax.random.split(jax.random.key(3), 30)[0]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, state = env.reset(jax.random.key(0), params)
        theirs, *_ = env.step_env(key, state, 0, params)
    np.testing.assert_allclose(trajectory(varied)[1], theirs, rtol=1e-6)


def test_environments_are_equal_whatever_the_values_and_played_with_their_own():
    one, other = (make("CartPole-v1", {}, {"gravity": value}) for value in (9.8, 30.0))
    assert one == other
    assert one != make("CartPole-v1", {}, {"length": 0.5})
    assert one != make("CartPole-v1")
    assert one.fixed != other.fixed
    policy = train().policy
    plain = jaxrl_cb.evaluate(policy, make("CartPole-v1"), episodes=20)
    assert jaxrl_cb.evaluate(policy, one, episodes=20) == pytest.approx(plain)
    assert jaxrl_cb.evaluate(policy, other, episodes=20) != pytest.approx(plain)


def test_other_values_compile_nothing(compiles):
    train(env_params={"gravity": 9.8, "length": 0.5})
    compiles()
    result = train(env_params={"gravity": 20.0, "length": 1.0})
    assert compiles() == 0
    assert result.state.hyperparams.env_params["gravity"].tolist() == [20.0]


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_each_seed_has_its_own_values_in_training_and_in_tests(vectorize_seeds):
    class Sets(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            context.policy.set_env_params(force_mag=np.array([10.0, 0.0]))
            assert context.policy.env_params["force_mag"].tolist() == [10.0, 0.0]
            assert context.policy.env_params["gravity"].tolist() == [np.float32(9.8)] * 2

    settings = {"num_seeds": 2, "vectorize_seeds": vectorize_seeds}
    names = {"force_mag": 10.0, "gravity": 9.8}
    plain = train(env_params=names, **settings)
    result = train(TrainerCallbacks(Sets()), env_params=names, **settings)
    for ours, theirs in zip(result.history, plain.history, strict=True):
        np.testing.assert_array_equal(ours.returns[0], theirs.returns[0])
    # Without force nothing the policy does has an effect, in training or in tests.
    assert not np.array_equal(result.history[-1].returns[1], plain.history[-1].returns[1])
    if not vectorize_seeds:  # which rounds otherwise
        pushed = train(env_params={"force_mag": 0.0, "gravity": 9.8}, seed=1)
        ours, theirs = result.history[-1].lengths[1], pushed.history[-1].lengths[0]
        np.testing.assert_array_equal(ours, theirs)


def test_a_sweep_over_them_shares_programs_and_each_trial_is_the_run_by_itself():
    space = {"env_params.gravity": [5.0, 20.0], "learning_rate": [1e-3, 1e-2]}
    found = jaxrl_cb.sweep("CartPole-v1", space, num_seeds=2, **SETTINGS)
    assert len(found.results) == 1
    for row in found.rows()[::3]:
        own = {"env_params": {"gravity": row["env_params.gravity"]}}
        alone = train(seed=row["seed"], learning_rate=row["learning_rate"], **own)
        assert alone.history[-1].mean[0] == row["score"]


def test_env_kwargs_in_a_sweep_make_groups():
    space = {"env_kwargs.max_steps_in_episode": [20, 30]}
    found = jaxrl_cb.sweep("CartPole-v1", space, **SETTINGS)
    assert len(found.results) == 2
    limits = [result.history[0].lengths.max() for result in found.results]
    assert limits[0] <= 20
    assert limits[1] <= 30


def test_a_curriculum_goes_from_its_first_value_to_its_last():
    logger, seen = MemoryLogger(), []

    def look(epoch, env_step, context):
        seen.append(context.policy.env_params)

    curriculum = EpochTrainCallbackCurriculum({"gravity": (5.0, 9.0), "length": (1.0, 0.5)}, 160)
    test = EpochTestCallbackSetEnvParams({"gravity": 9.0})
    callbacks = TrainerCallbacks([curriculum, look], [test, look])
    names = {"gravity": 1.0, "length": 1.0}
    train(callbacks, env_params=names, max_epochs=4, logger=logger)
    rows = [data for _, _, data in logger.rows if "env/gravity" in data]
    assert [row["env/gravity"] for row in rows] == [5.0, 7.0, 9.0, 9.0]
    assert [row["env/length"] for row in rows] == [1.0, 0.75, 0.5, 0.5]
    gravities = [params["gravity"] for params in seen]
    assert gravities == [9.0, 5.0, 9.0, 7.0, 9.0, 9.0, 9.0, 9.0, 9.0]


def test_they_are_part_of_a_checkpoint_and_of_the_folder(tmp_path):
    curriculum = EpochTrainCallbackCurriculum({"gravity": (5.0, 9.0)}, 320)
    settings = {"env_params": {"gravity": 5.0}, "checkpoint_every": 1}
    callbacks = TrainerCallbacks(curriculum)
    whole = train(callbacks, max_epochs=4, run_dir=tmp_path / "whole", **settings)
    train(callbacks, max_epochs=2, run_dir=tmp_path / "cut", **settings)
    cut = train(callbacks, max_epochs=4, run_dir=tmp_path / "cut", resume="must", **settings)
    for ours, theirs in zip(cut.history, whole.history, strict=True):
        np.testing.assert_array_equal(ours.returns, theirs.returns)
    for name in ("whole", "cut"):
        assert jaxrl_cb.load_policy(tmp_path / name).num_seeds == 1


def test_without_them_nothing_is_there():
    environment = make("CartPole-v1")
    assert environment.fixed is environment
    assert environment.with_params({}) is environment
    assert train(max_epochs=0).state.hyperparams.env_params == {}
    assert dataclasses.asdict(environment.spec)["id"] == "CartPole-v1"


@pytest.mark.parametrize(
    ("env_params", "error", "words"),
    [
        ({"gravty": 1.0}, ConfigError, "did you mean 'gravity'"),
        ({"max_steps_in_episode": 100}, ConfigError, "no parameter 'max_steps_in_episode'"),
        ({"gravity": "9"}, ConfigTypeError, "gravity='9'"),
        ({"gravity": float("nan")}, ConfigError, "gravity=nan"),
        ([1], ConfigTypeError, "env_params="),
    ],
)
def test_wrong_parameters(env_params, error, words):
    with pytest.raises(error, match=words):
        train(env_params=env_params)


def test_wrong_callbacks():
    with pytest.raises(CallbackTypeError, match="expected a dict"):
        EpochTrainCallbackCurriculum([1], 10)
    with pytest.raises(CallbackValueError, match="expected a pair"):
        EpochTrainCallbackCurriculum({"gravity": 1.0}, 10)
    callbacks = TrainerCallbacks(EpochTrainCallbackCurriculum({"gravity": (1.0, 2.0)}, 10))
    with pytest.raises(CallbackValueError, match="none of the run's env_params"):
        train(callbacks)
    callbacks = TrainerCallbacks(None, EpochTestCallbackSetEnvParams({"length": 2.0}))
    with pytest.raises(CallbackValueError, match="which are gravity"):
        train(callbacks, env_params={"gravity": 1.0})

    def sets(epoch, env_step, context):
        context.policy.set_env_params(length=1.0)

    with pytest.raises(CallbackValueError, match="have no 'length'; they have gravity"):
        train(TrainerCallbacks(sets), env_params={"gravity": 1.0})


def test_training_of_seeds_without_force_does_not_depend_on_actions():
    """A force of zero: whatever is done, episodes of training have the lengths of the start."""
    logger = MemoryLogger()
    settings = {"max_epochs": 1, "epoch_num_steps": 400, "logger": logger}
    train(env_params={"force_mag": 0.0}, **settings)
    train(env_params={"force_mag": 0.0}, epsilon_start=0.0, learning_rate=1e-1, **settings)
    train(env_params={"force_mag": 10.0}, **settings)
    returns = [data["train/return_mean"] for _, _, data in logger.rows if data["epoch"] == 1]
    assert returns[0] == returns[1] != returns[2]


WRAPPERS = {
    "sticky_actions": lambda env: sticky_actions(env, 0.5),
    "two": lambda env: frame_stack(time_limit(env, 10), 2),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_pass_parameters_on(name):
    wrapper = WRAPPERS[name]
    one = wrapper(make("CartPole-v1", {}, {"gravity": 9.8}))
    other = wrapper(make("CartPole-v1", {}, {"gravity": 30.0}))
    assert one.env_params == {"gravity": 9.8}
    assert one == other != wrapper(make("CartPole-v1"))
    assert one.fixed != other.fixed
    heavy = trajectory(wrapper(make("CartPole-v1", {"gravity": 30.0})))
    np.testing.assert_allclose(trajectory(other), heavy, rtol=1e-5)
    np.testing.assert_array_equal(trajectory(one.with_params({"gravity": 30.0})), trajectory(other))
    again = make(one, env_params={"gravity": 30})
    assert again.env_params == {"gravity": 30.0}
    np.testing.assert_array_equal(trajectory(again), trajectory(other))
    assert np.abs(heavy - trajectory(one)).max() > 0.01


def test_callbacks_set_the_parameters_inside_a_wrapper():
    """A force of zero from the second epoch on, through a wrapper: as if it had been there."""
    env_kwargs = SETTINGS["env_kwargs"]
    wrapped = action_repeat(make("CartPole-v1", env_kwargs, {"force_mag": 10.0}), 2)
    settings = {k: v for k, v in SETTINGS.items() if k != "env_kwargs"} | {"max_epochs": 1}

    def without_force(epoch, env_step, context):
        context.policy.set_env_params(force_mag=0.0)

    result = jaxrl_cb.train(wrapped, callbacks=TrainerCallbacks(without_force), **settings)
    weak = jaxrl_cb.train(wrapped, env_params={"force_mag": 0.0}, **settings)
    strong = jaxrl_cb.train(wrapped, **settings)
    ours, theirs, others = (r.history[-1].returns for r in (result, weak, strong))
    np.testing.assert_array_equal(ours, theirs)  # without force actions do nothing to a test
    assert (ours != others).any()


def test_wrong_parameters_of_an_environment():
    wrapped = clip_reward(make("CartPole-v1", {}, {"gravity": 9.8}))
    with pytest.raises(ConfigError, match=r"made without .length. .* which are gravity"):
        make(wrapped, env_params={"length": 1.0})
    with pytest.raises(ConfigError, match="gravity=nan"):
        make(wrapped, env_params={"gravity": float("nan")})
