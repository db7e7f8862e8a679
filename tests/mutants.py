"""Plants faults in a copy of the package and runs the tests that have to find them.

A test that cannot fail shows nothing. Each mutant below is a fault that Q-learning code is known to
have; it names the tests that must fail when it is planted. `test_mutants.py` checks that
the list still fits the source; this script plants them, one pytest run each (some minutes in all):

    python tests/mutants.py              # all
    python tests/mutants.py short rate   # those whose name contains a word
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """A fault: in a file of the package, `old` (which stands there once) becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    tests: str  # a test file and words of ``pytest -k``


MUTANTS = [
    Mutant(
        "truncation treated as death",
        "ops/returns.py",
        "jnp.where(terminated[last], 0.0, gammas[last + 1])",
        "jnp.where(ended[last], 0.0, gammas[last + 1])",
        "test_probes.py truncat",
    ),
    Mutant(
        "truncation treated as death, in the learner only",
        "buffers/ring.py",
        "terminated=window.ending == TERMINATED,",
        "terminated=window.ending != CONTINUES,",
        "test_probes.py truncat",
    ),
    Mutant(
        "final observation of the next episode, from the ring",
        "buffers/ring.py",
        "jnp.where(truncated, _read(buffer.final_obs, slot, env), following)",
        "following",
        "test_probes.py truncat",
    ),
    Mutant(
        "final observation of the next episode, from the environment",
        "envs/environment.py",
        "return result._replace(state=state, obs=obs)",
        "return result._replace(state=state, obs=obs, final_obs=obs)",
        "test_envs.py observation_after_an_end",
    ),
    Mutant(
        "windows dropped at an episode's end",
        "buffers/ring.py",
        "return jnp.where(first == MASKED, 0.0, 1.0).astype(jnp.float32)",
        "return jnp.where(jnp.any(ended[:-1]), 0.0, 1.0).astype(jnp.float32)",
        "test_ring.py starts_and_transitions",
    ),
    Mutant(
        "newest starts dropped although their episode has ended",
        "buffers/ring.py",
        "jnp.minimum(episode_length, n - 1)[env] if n > 1",
        "jnp.full_like(env, n - 1) if n > 1",
        "test_ring.py starts_and_transitions",
    ),
    Mutant(
        "rate held as a float, on the host",
        "ops/counters.py",
        "num_envs * Fraction(str(samples_per_insert)) / batch_size",
        "num_envs * Fraction(samples_per_insert) / batch_size",
        "test_ops.py rate",
    ),
    Mutant(
        "rate held as a float, counting",
        "ops/counters.py",
        "return num_vector_steps * rate.numerator // rate.denominator",
        "return int(num_vector_steps * float(rate))",
        "test_ops.py gradient_steps_are_exact",
    ),
    Mutant(
        "rate held as a float, on the device",
        "ops/counters.py",
        "credit = credit + rate.numerator % rate.denominator",
        "credit = credit + jnp.int32(0.999 * (rate.numerator % rate.denominator))",
        "test_trainer.py gradient_steps_are_counted or rate_is_the_decimal",
    ),
    Mutant(
        "target update by environment step % k",
        "learners/replay.py",
        "is_due = num_updates % period == 0",
        "is_due = num_updates * self.num_envs % period == 0",
        "test_trainer.py target_follows",
    ),
    Mutant(
        "key reused for every step",
        "learners/replay.py",
        "            key=key,\n            epsilon=state",
        "            epsilon=state",
        "test_trainer.py epsilon_falls_within or every_gradient_step",
    ),
    Mutant(
        "one key for the test of every epoch",
        "learners/replay.py",
        "key = jax.random.fold_in(jax.random.fold_in(test_key, phase[0]), phase[1])",
        "key = test_key",
        "test_trainer.py tests_depend or lucky or fresh_keys",
    ),
    Mutant(
        "random numbers drawn together with the next key",
        "ops/randomness.py",
        "arrays, start = [], num_key_words",
        "arrays, start = [], 0",
        "test_ops.py parts_of_a_draw",
    ),
    Mutant(
        "epsilon held for the epoch, in the scan",
        "learners/replay.py",
        "training=advance(state.epsilon.training, self.num_envs)",
        "training=advance(state.epsilon.training, 0)",
        "test_trainer.py epsilon_falls_within",
    ),
    Mutant(
        "epsilon held for the epoch, by the callback",
        "trainer/policy.py",
        "segment(start, final, decay_steps, env_step))",
        "segment(now := linear_decay(start, final, decay_steps, env_step), now, 0))",
        "test_trainer.py epsilon_falls_within",
    ),
    Mutant(
        "one coin for all environments",
        "ops/epsilon.py",
        "uniform(words[0]) < epsilon",
        "uniform(words[0, :1]) < epsilon",
        "test_ops.py coin",
    ),
    Mutant(
        "a test ends with its first episode, so that short ones win",
        "learners/evaluation.py",
        "jnp.any(alive & (lengths < time_limit))",
        "jnp.all(alive & (lengths < time_limit))",
        "test_trainer.py short_episodes or one_complete_episode",
    ),
    Mutant(
        "rewards of a second episode counted",
        "learners/evaluation.py",
        "returns + jnp.where(alive, result.score, 0.0)",
        "returns + result.score",
        "test_trainer.py short_episodes or one_complete_episode",
    ),
    Mutant(
        "functions found by their environment's name",
        "envs/environment.py",
        '("functional", ByIdentity(reset), ByIdentity(step), spec)',
        '("functional", spec.id)',
        "test_trainer.py another_environment_of_the_same_name",
    ),
    Mutant(
        "gymnax environments found by name, without their parameters",
        "envs/gymnax.py",
        ", tree_values(anything), tuple(sorted(env_params)))",
        ")",
        "test_trainer.py other_parameters_of_an_environment",
    ),
    Mutant(
        "environment objects found by name",
        "envs/gymnax.py",
        'key = ("object", ByIdentity(env), tree_values(params))',
        'key = ("object", env_id, tree_values(params))',
        "test_envs.py objects_of_the_same_name",
    ),
    Mutant(
        "best from an unconfirmed test",
        "trainer/history.py",
        "self.best = None if stopped else self._before\n        self._keep(score, epoch, params)",
        "pass",
        "test_trainer.py confirm",
    ),
    Mutant(
        "best of a tie is the earlier test",
        "trainer/history.py",
        "score >= best.score",
        "score > best.score",
        "test_trainer.py tie",
    ),
    Mutant(
        "stop callback asked twice in an epoch",
        "trainer/hooks.py",
        "            view.confirmed_score = None\n",
        "            view.confirmed_score = None\n            function(mean_reward)\n",
        "test_trainer.py three_epochs or asked_once",
    ),
    Mutant(
        "stop callback gets the best so far",
        "trainer/trainer.py",
        "float(record.mean[index])",
        "float(max(r.mean[index] for r in progress.history))",
        "test_trainer.py mean_of_this_test",
    ),
    Mutant(
        "one stop callback for all seeds",
        "trainer/hooks.py",
        "[copy.deepcopy(stop) for _ in views]",
        "[stop for _ in views]",
        "test_trainer.py own_copy",
    ),
    Mutant(
        "tests on keys that depend on training",
        "trainer/members.py",
        "inputs = (state.params, state.epsilon.inference, state.test_key)",
        "inputs = (state.params, state.epsilon.inference, state.key)",
        "test_trainer.py tests_depend",
    ),
    Mutant(
        "test epsilon ignored",
        "learners/evaluation.py",
        "q_values(obs, as_key(network, like=key)), epsilon)",
        "q_values(obs, as_key(network, like=key)), 0.0 * epsilon)",
        "test_trainer.py test_epsilon",
    ),
    Mutant(
        "large networks updated as one vector",
        "learners/optimizer.py",
        "return together if num_params < ONE_VECTOR_BELOW else transformation",
        "return together",
        "test_optimizer.py one_vector",
    ),
    Mutant(
        "bfloat16 in the head as well",
        "networks/mlp.py",
        'dense(self.num_actions * per_action, name="head")',
        'dense(self.num_actions * per_action, dtype=self.compute_dtype, name="head")',
        "test_networks.py bfloat16",
    ),
    Mutant(
        "a schedule overwrites the learning rate that was set",
        "learners/optimizer.py",
        "return hyperparams.learning_rate * SCHEDULES",
        "return self.learning_rate * SCHEDULES",
        "test_trainer.py learning_rate",
    ),
    Mutant(
        "an eager operation in a setter",
        "trainer/leaves.py",
        "values, places = [given[i] for i in changed],",
        "values, places = [jax.jit(lambda x: x)(given[i]) for i in changed],",
        "test_trainer.py nothing_is_compiled",
    ),
    Mutant(
        "programs not shared between runs",
        "trainer/programs.py",
        "@functools.lru_cache(maxsize=64)\ndef _chunk_program",
        "def _chunk_program",
        "test_trainer.py second_run",
    ),
    Mutant(
        "snapshot without the callbacks' state",
        "trainer/hooks.py",
        'callback.load_state_dict(from_plain(state["state"]))',
        "pass",
        "test_trainer.py patience_counter",
    ),
    Mutant(
        "ring copied at every step",
        "buffers/ring.py",
        "return self._unpacked(lax.platform_dependent(cpu=branch, default=sample))",
        "return self._unpacked(sample())",
        "test_programs.py copies",
    ),
    Mutant(
        "an episode that ends alone is not begun anew",
        "envs/environment.py",
        "lax.psum(done.astype(jnp.int32), ENV_AXIS) > 0",
        "lax.psum(done.astype(jnp.int32), ENV_AXIS) > 1",
        "test_envs.py resets_are_computed",
    ),
    Mutant(
        "all environments reset at every step",
        "envs/environment.py",
        "new = lax.platform_dependent(cpu=branch, default=fresh)",
        "new = fresh()",
        "test_envs.py resets_are_computed",
    ),
    Mutant(
        "time limit of a wrapper terminates",
        "envs/wrappers.py",
        "truncated=result.truncated | cut)",
        "terminated=result.terminated | cut)",
        "test_wrappers.py not_death",
    ),
    Mutant(
        "wrapped rewards reported by tests",
        "learners/evaluation.py",
        "jnp.where(alive, result.score, 0.0)",
        "jnp.where(alive, result.reward, 0.0)",
        "test_wrappers.py not_death",
    ),
    Mutant(
        "frames of the episode before",
        "envs/wrappers.py",
        "jnp.where(_ended(result), repeated(result.obs), pushed)",
        "jnp.where(_ended(result), pushed.at[-1].set(result.obs), pushed)",
        "test_wrappers.py frame_stack",
    ),
    Mutant(
        "observations that are not binary kept as bits",
        "ops/packing.py",
        "return jnp.any((obs != 0) & (obs != 1), axis=tuple(range(1, obs.ndim)))",
        "return jnp.zeros(obs.shape[0], bool)",
        "test_every_env.py wrong_claim",
    ),
    Mutant(
        "statistics of the target network lag behind",
        "learners/replay.py",
        "return joined(target, rest)",
        "return joined(target, split(target_params)[1])",
        "test_warm_start.py statistics",
    ),
    Mutant(
        "warm start forgets the target network",
        "trainer/members.py",
        '{"params": new, "target_params": new}',
        '{"params": new}',
        "test_warm_start.py begins",
    ),
    Mutant(
        "nonfinite: infinity passes for a number",
        "ops/finite.py",
        "jnp.any(~jnp.isfinite(x), axis=",
        "jnp.any(jnp.isnan(x), axis=",
        "test_nonfinite.py places_with or first_bad_environment_step",
    ),
    Mutant(
        "nonfinite: only the last of several gradient steps looked at",
        "learners/replay.py",
        "Losses(jnp.sum(losses.sum), jnp.min(losses.first_bad))",
        "Losses(jnp.sum(losses.sum), losses.first_bad[-1])",
        "test_nonfinite.py for_every_rate or second_step",
    ),
    Mutant(
        "nonfinite: gradient steps counted from 0",
        "learners/replay.py",
        "index_if_nonfinite(loss, num_updates)",
        "index_if_nonfinite(loss, state.num_updates - 1)",
        "test_nonfinite.py second_step",
    ),
    Mutant(
        "nonfinite: first step of the chunk told, not of the run",
        "trainer/nonfinite.py",
        "step = env_step // num_envs + own.num_sound_steps + 1",
        "step = own.num_sound_steps + 1",
        "test_nonfinite.py chunks_do_not_change or ends_a_run_of_one_seed",
    ),
    Mutant(
        "nonfinite: beginning of an episode not looked at",
        "learners/acting.py",
        "num_nonfinite(result.reward, result.final_obs, result.obs)",
        "num_nonfinite(result.reward, result.final_obs)",
        "test_nonfinite.py first_observation",
    ),
    Mutant(
        "nonfinite: a seed that diverged goes on",
        "trainer/trainer.py",
        "for index, text in texts.items():",
        "for index, text in {}.items():",
        "test_nonfinite.py ends_a_run_of_one_seed or do_not_notice",
    ),
    Mutant(
        "nonfinite: prefill not looked at",
        "trainer/trainer.py",
        "            self._deal_with(in_prefill(self._members.num_nonfinite()))\n",
        "",
        "test_nonfinite.py bad_prefill_of_one_seed",
    ),
    Mutant(
        "secrets of an environment kept in config.json",
        "config.py",
        "if looks_secret(str(name)):",
        "if looks_secret(type(name).__name__):",
        "test_bad_inputs.py wrong_input",
    ),
    Mutant(
        "secrets of a callback kept in config.json",
        "trainer/callbacks.py",
        "secrets = [name for name in vars(self) if looks_secret(name)]",
        "secrets = []",
        "test_bad_inputs.py secret",
    ),
    Mutant(
        "the second of two equal names in JSON taken",
        "files.py",
        "object_pairs_hook=_without_repeats",
        "object_pairs_hook=dict",
        "test_bad_inputs.py wrong_input or wrong_command",
    ),
    Mutant(
        "errors in callbacks do not say where",
        "trainer/hooks.py",
        'error.args = (f"{where}: {error}",)',
        "error.args = (str(error),)",
        "test_trainer.py cannot_run_the_trainer",
    ),
    Mutant(
        "memory: replays put together to read an epsilon",
        "trainer/policy.py",
        "s = jax.device_get(self._small.epsilon.training)",
        "s = jax.device_get(self.state.epsilon.training)",
        "test_memory.py no_replay_is_copied",
    ),
    Mutant(
        "memory: counted for one seed",
        "trainer/memory.py",
        "held = self.seeds_held() * ",
        "held = 1 * ",
        "test_memory.py every_leaf",
    ),
    Mutant(
        "memory: asked for only after compiling",
        "trainer/trainer.py",
        "        self.check_memory()\n        self._built",
        "        self._built",
        "test_memory.py refused_before",
    ),
    Mutant(
        "memory: not asked for before the states are made",
        "trainer/trainer.py",
        "        self.check_memory(self._members.programs(self._members.groups[0]))\n",
        "",
        "test_memory.py besides",
    ),
    Mutant(
        "memory: a container's limit ignored",
        "trainer/available_memory.py",
        "_least([_meminfo(root), *_groups(root)])",
        "_least([_meminfo(root)])",
        "test_memory.py read_from_linux",
    ),
    Mutant(
        "memory: the next size named, which does not fit",
        "trainer/memory.py",
        "values[number - 1] if number else None",
        "values[min(number, len(values) - 1)] if number else None",
        "test_memory.py named_buffer_size",
    ),
    Mutant(
        "checkpoints: digests not compared",
        "trainer/array_files.py",
        'if digest(array) != entry["sha256"]:',
        "if False:",
        "test_checkpoints.py bit_flips",
    ),
    Mutant(
        "checkpoints: manifest not sealed",
        "trainer/manifest.py",
        'is_whole = manifest["sha256"] == _seal(version, body)',
        "is_whole = True",
        "test_checkpoints.py bit_flips",
    ),
    Mutant(
        "checkpoints: another dtype cast in silence",
        "trainer/manifest.py",
        "if stored != expected.get(name):",
        "if stored is None or stored[0] != expected[name][0]:",
        "test_checkpoints.py another_dtype",
    ),
    Mutant(
        "checkpoints: links followed",
        "trainer/checkpoint_store.py",
        "if not stat.S_ISDIR((folder / part).lstat().st_mode):",
        "if not stat.S_ISDIR((folder / part).stat().st_mode):",
        "test_checkpoints.py link_out",
    ),
    Mutant(
        "checkpoints: a link to an array followed",
        "trainer/array_files.py",
        "status = file.lstat()",
        "status = file.stat()",
        "test_checkpoints.py place_of_a_file_is_not_followed",
    ),
    Mutant(
        "checkpoints: a bad one left where its number is needed",
        "trainer/checkpointer.py",
        "moved = self.store.reject(step)",
        "moved = self.store.path / str(step)",
        "test_checkpoints.py half_deleted or foreign",
    ),
    Mutant(
        "checkpoints: the best not kept",
        "trainer/checkpoint_store.py",
        "kept = {*sorted(steps)[-2:], max(known)[1]}",
        "kept = {*sorted(steps)[-2:]}",
        "test_checkpoints.py newest_two",
    ),
    Mutant(
        "checkpoints: state not copied before it is used up",
        "trainer/leaves.py",
        "            return np.array(leaf, copy=True)\n",
        "            return (leaf)\n",
        "test_checkpoints.py used_up",
    ),
    Mutant(
        "checkpoints: a failed last save in silence",
        "trainer/checkpointer.py",
        "# it does not go on before that is written\n        self.wait()\n",
        "# it does not go on before that is written\n",
        "test_checkpoints.py final_save",
    ),
    Mutant(
        "checkpoints: metrics not cut back",
        "run_files.py",
        "os.ftruncate(descriptor, self._size)",
        "pass",
        "test_checkpoints.py does_that_epoch_again",
    ),
    Mutant(
        "checkpoints: changed metrics gone on with",
        "run_files.py",
        'if size or digest.hexdigest() != facts["sha256"]:',
        "if False:",
        "test_checkpoints.py metrics_that_were_changed",
    ),
    Mutant(
        "checkpoints: a run with other settings taken up",
        "run_folder.py",
        'different = [f"{name} was {a!r} and is {b!r}" for name, a, b in pairs if a != b]',
        "different = []",
        "test_checkpoints.py other_settings",
    ),
    Mutant(
        "checkpoints: lockstep scalars of stopped seeds lost",
        "trainer/members.py",
        "own = {name: values[like] for name, values in lockstep.items()}",
        "own = {name: values.max() for name, values in lockstep.items()}",
        "test_checkpoints.py resumed_at_any_epoch or what_was_saved",
    ),
    Mutant(
        "checkpoints: tuples of callbacks dropped",
        "trainer/plain.py",
        "if type(value) in (tuple, set, frozenset):",
        "if type(value) in (set, frozenset):",
        "test_checkpoints.py come_back or resumed_at_any_epoch",
    ),
    Mutant(
        "links in a run folder followed",
        "run_files.py",
        'NO_LINK = getattr(os, "O_NOFOLLOW", 0)',
        "NO_LINK = 0",
        "test_checkpoints.py no_link_is_written",
    ),
    Mutant(
        "two processes in one folder",
        "run_files.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        "test_checkpoints.py two_runs",
    ),
    Mutant(
        "signals: handlers not put back",
        "signals.py",
        "signal.signal(number, previous)",
        "pass",
        "test_signals.py put_back",
    ),
    Mutant(
        "signals: a long epoch waited for",
        "signals.py",
        "is_long = self._seconds is not None and self._seconds > LONG_EPOCH",
        "is_long = False",
        "test_signals.py dropped_if",
    ),
    Mutant(
        "signals: SIGTERM ends with 0",
        "signals.py",
        "super().__init__(128 + signal.SIGTERM)",
        "super().__init__(0)",
        "test_signals.py exit_codes",
    ),
    Mutant(
        "layers: upwards",
        "ops/losses.py",
        "import jax.numpy as jnp\n",
        "import jax.numpy as jnp\nimport jaxrl_cb.learners\n",
        "test_layers.py imports",
    ),
    Mutant(
        "layers: siblings",
        "buffers/ring.py",
        "import jax.numpy as jnp\n",
        "import jax.numpy as jnp\nimport jaxrl_cb.envs\n",
        "test_layers.py imports",
    ),
    Mutant(
        "layers: clock",
        "learners/acting.py",
        "import jax.numpy as jnp\n",
        "import time\nimport jax.numpy as jnp\n",
        "test_layers.py clock",
    ),
    Mutant(
        "layers: jit below the trainer",
        "ops/losses.py",
        "def huber",
        "@jax.jit\ndef huber",
        "test_layers.py compiles",
    ),
    Mutant(
        "layers: attribute assigned",
        "learners/acting.py",
        "    done = result",
        "    environment.last = result\n    done = result",
        "test_layers.py assigns",
    ),
    Mutant(
        "gymnax imported with the package",
        "trainer/__init__.py",
        "from jaxrl_cb.trainer.history",
        "import gymnax\nfrom jaxrl_cb.trainer.history",
        "test_layers.py optional",
    ),
    Mutant(
        "signals: an epoch is dropped though those before it are not saved",
        "signals.py",
        " and self._may_drop()",
        "",
        "test_signals.py where_the_one_before",
    ),
    Mutant(
        "signals: a first epoch that is dropped is said to be saved",
        "experiment.py",
        "    if not steps:\n",
        "    if not path:\n",
        "test_signals.py saved_nothing",
    ),
    Mutant(
        "checkpoints: half an epoch is saved",
        "trainer/checkpointer.py",
        "if trainer.is_between_epochs and trainer",
        "if trainer",
        "test_checkpoints.py half_an_epoch",
    ),
    Mutant(
        "checkpoints: a folder in which a run was killed as it started is refused",
        "run_folder.py",
        "return entries <= STARTED and is_empty",
        "return False",
        "test_checkpoints.py killed_while_it_started",
    ),
    Mutant(
        "callbacks: jax arrays come back as NumPy's",
        "trainer/plain.py",
        "value = jax.device_put(array.item() if is_weak else array)",
        "value = array",
        "test_checkpoints.py jax_arrays",
    ),
    Mutant(
        "secrets: entries of dicts are saved",
        "trainer/plain.py",
        "if not _is_secret(k)}",
        "if True}",
        "test_checkpoints.py named_like_secrets",
    ),
    Mutant(
        "memory: what matrix products take is not counted",
        "trainer/memory.py",
        "return 3 * max(products, default=0)",
        "return 3 * min(products, default=0)",
        "test_memory.py matrix_products",
    ),
    Mutant(
        "memory: the states that debugging keeps are not counted",
        "trainer/memory.py",
        "(2 if self.params.debug else 1)",
        "1",
        "test_memory.py debugging",
    ),
    Mutant(
        "a dropped seed has part in the epoch that begins",
        "trainer/progress.py",
        "self.ended[index] = (self.epoch - 1, self.env_step)",
        "self.ended[index] = (self.epoch - 0, self.env_step)",
        "test_population.py dropped_seeds_end",
    ),
    Mutant(
        "a dropped seed goes on",
        "trainer/trainer.py",
        "            self._members.park(index)\n            self.progress.drop(index)",
        "            self.progress.drop(index)",
        "test_population.py dropped_seeds_end",
    ),
    Mutant(
        "which seeds were dropped is not saved",
        "trainer/snapshot.py",
        '"dropped": sorted(progress.dropped),',
        '"dropped": [],',
        "test_population.py stay_dropped",
    ),
    Mutant(
        "halving keeps the worst",
        "trainer/population_callbacks.py",
        "key=lambda trial: (-scores[trial], trial)",
        "key=lambda trial: (scores[trial], trial)",
        "test_population.py halving",
    ),
    Mutant(
        "halving compares the trials of its own group only",
        "trainer/population.py",
        "for group in self._groups for trial, score in group._own(epoch)",
        "for trial, score in self._own(epoch)",
        "test_sweep.py halving",
    ),
    Mutant(
        "scores of trials dropped long ago count",
        "trainer/population.py",
        "if index in progress.dropped and ended_at < epoch:",
        "if False:",
        "test_population.py by_hand",
    ),
    Mutant(
        "a copied seed keeps its own target network",
        "trainer/members.py",
        'names = ("params", "target_params", "opt_state")',
        'names = ("opt_state",)',
        "test_population.py worst_seeds",
    ),
    Mutant(
        "every seed of a sweep begins with the first trial's numbers",
        "trainer/members.py",
        "zip(*(starts[index] for index in group.indices), strict=True)",
        "zip(*(starts[0] for index in group.indices), strict=True)",
        "test_sweep.py run_by_itself",
    ),
    Mutant(
        "the trimmed mean is the mean",
        "scores.py",
        "0.25, axis=1)",
        "0.0, axis=1)",
        "test_scores.py by_hand",
    ),
    Mutant(
        "the bootstrap draws seeds for all tasks at once",
        "scores.py",
        "picks = random.integers(num_seeds, size=(size, num_seeds, num_tasks))",
        "picks = random.integers(num_seeds, size=(size, num_seeds, 1))",
        "test_scores.py rliable",
    ),
    Mutant(
        "tests are played with the first parameters of the environment",
        "learners/replay.py",
        "environment = self.environment.with_params(env_params)",
        "environment = self.environment",
        "test_env_params.py own_values",
    ),
    Mutant(
        "training is done with the first parameters of the environment",
        "learners/replay.py",
        "self.environment.with_params(state.hyperparams.env_params),",
        "self.environment.fixed,",
        "test_env_params.py training_of",
    ),
    Mutant(
        "narrowing takes the first seeds of a group",
        "trainer/groups.py",
        "[self.indices.index(i) for i in kept]",
        "list(range(width))",
        "test_compaction.py moves_states",
    ),
    Mutant(
        "waves compare trials of one seed in the place of all",
        "sweep_groups.py",
        "trials = [member.trial for member in group.members]",
        "trials = list(range(len(group.members)))",
        "test_sweep.py halving",
    ),
    Mutant(
        "a wave begins again with the first seeds of its trial",
        "sweep_groups.py",
        "Start(config.trainer.seed + member.own, *values)",
        "Start(config.trainer.seed + len(group.starts), *values)",
        "test_sweep.py many_seeds_of_one",
    ),
    Mutant(
        "a wrapper keeps the first values of the parameters inside",
        "envs/wrappers.py",
        "reset, step = around(env.with_params(values))",
        "reset, step = around(env)",
        "test_env_params.py wrappers_pass",
    ),
    Mutant(
        "narrower programs thought to save in proportion whatever was seen",
        "trainer/compaction.py",
        "if not wider:",
        "if True:",
        "test_compaction.py saved_follows",
    ),
    Mutant(
        "a group whose seeds were all dropped is saved again",
        "trainer/checkpointer.py",
        "if self._trainer.progress.epoch == self._saved_epoch:",
        "if False:",
        "test_sweep.py just_saved",
    ),
    Mutant(
        "the ladder of epsilons is left out",
        "learners/replay.py",
        "return ladder(epsilon, self.num_envs, exponent) if exponent else epsilon",
        "return epsilon",
        "test_trainer.py of_a_ladder",
    ),
    Mutant(
        "Munchausen's bonus of the best action for any",
        "ops/munchausen.py",
        "self.log_policy(q_values)[action]",
        "jnp.max(self.log_policy(q_values))",
        "test_algorithms.py munchausen",
    ),
    Mutant(
        "Munchausen without the entropy of the next step",
        "ops/munchausen.py",
        "(outcomes - self.log_policy(q_values)[:, None])",
        "outcomes",
        "test_algorithms.py munchausen",
    ),
    Mutant(
        "quantile fractions counted from the other end",
        "ops/distributions.py",
        "(error < 0)",
        "(error > 0)",
        "test_algorithms.py qr_dqn",
    ),
    Mutant(
        "mass beyond the last atom is lost",
        "ops/distributions.py",
        "inside = jnp.clip(values, atoms[0], atoms[-1])",
        "inside = values",
        "test_algorithms.py c51",
    ),
    Mutant(
        "all samples of a minibatch have the same quantile fractions",
        "algorithms/base.py",
        "return jax.random.fold_in(key, lax.axis_index(SAMPLE_AXIS))",
        "return jax.random.fold_in(key, 0 * lax.axis_index(SAMPLE_AXIS))",
        "test_algorithms.py fractions",
    ),
    Mutant(
        "tests are played with noise",
        "algorithms/base.py",
        "return lambda obs, _: q_values(obs, None)",
        "return lambda obs, key: q_values(obs, key)",
        "test_algorithms.py without_noise",
    ),
    Mutant(
        "noise of one output for all",
        "networks/layers.py",
        "_noise(key_in, inputs), _noise(key_out, self.features)",
        "_noise(key_in, inputs), _noise(key_out, 1)",
        "test_algorithms.py noisy_layer",
    ),
]


def survives(mutant: Mutant) -> bool:
    """Whether the named tests pass although the fault is there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("jaxrl_cb", "tests"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", copy)
        file = copy / "jaxrl_cb" / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
        test_file, _, words = mutant.tests.partition(" ")
        command = [sys.executable, "-m", "pytest", "-x", "-q", f"tests/{test_file}", "-k", words]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider"],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 1):  # neither passed nor failed
            raise RuntimeError(f"{mutant.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        if done.returncode:
            reasons = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
            print(f"caught    {mutant.name}: {reasons[0][7:160] if reasons else ''}", flush=True)
        else:
            print(f"SURVIVES  {mutant.name}", flush=True)
        return not done.returncode


if __name__ == "__main__":
    chosen = [m for m in MUTANTS if not sys.argv[1:] or any(w in m.name for w in sys.argv[1:])]
    survivors = [mutant.name for mutant in chosen if survives(mutant)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    sys.exit(bool(survivors))
