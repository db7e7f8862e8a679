"""What the compiled programs do to large arrays (write a row, read a batch), and what they give."""

import dataclasses
import re
import types
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import make
from jaxrl_cb.learners import ReplayConfig, ReplayLearner, TargetConfig
from jaxrl_cb.networks import MLP
from jaxrl_cb.ops.counters import NEVER
from jaxrl_cb.trainer import programs
from jaxrl_cb.trainer.programs import ProgramPlan, compile_programs, metrics_of, state_shapes

ROWS, ENVS = 1000, 10


def compiled_chunk(samples_per_insert, width=1, n_step=1, **more):
    sizes = ReplayConfig(
        num_envs=ENVS,
        buffer_size=ROWS * ENVS,
        batch_size=32,
        samples_per_insert=samples_per_insert,
        start_timesteps=40,
        n_step=n_step,
        **more,
    )
    target = TargetConfig(tau=1.0, target_update_period=10)
    learner = ReplayLearner(make("CartPole-v1"), DQN(MLP(2, (16,))), sizes, target)
    plan = ProgramPlan(width, (50,), 2, jax.local_devices()[0])
    return compile_programs(learner, plan).chunks[50].compiled


# One gradient step for each vector step, three for two, and one for two.
@pytest.mark.parametrize(("rate", "width"), [(3.2, 1), (4.8, 1), (1.6, 2)])
def test_no_step_copies_a_ring(rate, width):
    """Of any of the ring's arrays: [T, E, ...] in the program's text, with [S] in front."""
    text = compiled_chunk(rate, width).as_text()
    ring = rf"\w+\[(?:{width},)?{ROWS},{ENVS}[\],]"
    operations = set(re.findall(rf"= {ring}\S* (\S+?)\(", text))
    assert "dynamic-update-slice" in operations
    assert not operations & {"copy", "select", "transpose", "concatenate", "gather", "scatter"}


@pytest.mark.parametrize(("rate", "width", "n_step"), [(3.2, 1, 1), (4.8, 1, 3), (1.6, 2, 3)])
def test_no_step_copies_the_priorities(rate, width, n_step):
    """The leaves and the sums of 8 of them, 10,000 and 1,256 numbers."""
    text = compiled_chunk(rate, width, n_step, priority_alpha=0.5).as_text()
    for count in (10_000, 1_256):
        numbers = rf"f32\[(?:{width},)?{count}\]"
        operations = set(re.findall(rf"= {numbers}\S* (\S+?)\(", text))
        assert "scatter" in operations
        assert not operations & {"copy", "select", "transpose", "concatenate"}
    ring = rf"\w+\[(?:{width},)?{ROWS},{ENVS}[\],]"
    assert "copy" not in set(re.findall(rf"= {ring}\S* (\S+?)\(", text))


def test_the_chunk_needs_no_second_ring():
    chunk = compiled_chunk(3.2)
    memory = chunk.memory_analysis()
    ring = ROWS * ENVS * (4 * 4 + 4 + 1 + 1)  # observation, reward, action, ending
    assert memory.alias_size_in_bytes > ring  # given over, not copied
    assert memory.temp_size_in_bytes < ring / 2


def test_words_become_the_metrics_of_each_seed():
    """Two seeds, their words made by NumPy."""
    counts = np.array([[3, 0, -1, 50, NEVER, 1], [0, 2**31 - 1, 4, 7, 12, 0]], np.int32)
    sums = np.array([[-0.5, 21.0], [np.nan, -np.inf]], np.float32)
    words = np.concatenate([sums.view(np.uint32), counts.view(np.uint32)], axis=1)
    metrics = metrics_of(words)
    np.testing.assert_array_equal(metrics.loss_sum, np.float32([-0.5, np.nan]))
    np.testing.assert_array_equal(metrics.return_sum, np.float32([21.0, -np.inf]))
    assert metrics.num_episodes.tolist() == [3, 0]
    assert metrics.num_masked.tolist() == [0, 2**31 - 1]
    assert metrics.num_lossy.tolist() == [-1, 4]
    assert metrics.num_sound_steps.tolist() == [50, 7]
    assert metrics.first_bad_update.tolist() == [NEVER, 12]
    assert metrics.is_params_finite.tolist() == [True, False]
    assert [x.dtype.kind for x in metrics] == list("ffiiiiib")


def counting_calls(env_id):
    """A CartPole of its own kind, and the calls of its step's Python."""
    environment, calls = make(env_id), []

    def step(*inputs):
        calls.append(inputs)
        return environment.step(*inputs)

    return dataclasses.replace(environment, step=step, cache_key=object()), calls


@pytest.mark.parametrize("width", [1, 2])
def test_an_environment_is_traced_for_training_and_for_tests_once(width):
    """Not by each program, nor by each length of a chunk."""
    environment, calls = counting_calls("CartPole-v1")
    sizes = ReplayConfig(num_envs=4, buffer_size=400, batch_size=16, start_timesteps=40)
    learner = ReplayLearner(environment, DQN(MLP(2, (16,))), sizes)
    state_shapes(learner)
    compile_programs(learner, ProgramPlan(width, (5, 4), 3, jax.local_devices()[0]))
    assert len(calls) == 2


def test_what_a_plan_has_in_common_with_an_earlier_one_is_not_compiled_again(compiles):
    environment, _ = counting_calls("CartPole-v1")
    sizes = ReplayConfig(num_envs=4, buffer_size=400, batch_size=16, start_timesteps=40)
    learner = ReplayLearner(environment, DQN(MLP(2, (16,))), sizes)
    found = []
    for lengths, episodes in [((5,), 3), ((5,), 3), ((4,), 3), ((5, 4), 3), ((5,), 2)]:
        compiles()
        compile_programs(learner, ProgramPlan(1, lengths, episodes, jax.local_devices()[0]))
        found.append(compiles())
    assert found == [3, 0, 1, 0, 1]


def test_a_program_that_could_not_be_compiled_is_tried_again():
    class Lowered:
        tries = 0

        def compile(self, compiler_options):
            self.tries += 1
            if self.tries == 1:
                raise MemoryError
            return "compiled"

    lowered = Lowered()
    program = programs._Program(types.SimpleNamespace(lower=lambda: lowered), (), None)
    for expected in (None, "compiled", "compiled"):
        with ThreadPoolExecutor() as pool:
            program.begin(pool)
        if expected is None:
            with pytest.raises(MemoryError):
                program.compiled()
        else:
            assert program.compiled() == expected
    assert lowered.tries == 2
