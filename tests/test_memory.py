"""Memory: what a run needs, what is there, and that nothing large is copied by the way."""

import gc
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

import jaxrl_cb
from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import functional, make
from jaxrl_cb.errors import ConfigError, JaxrlError, MemoryEstimateError
from jaxrl_cb.learners import ReplayConfig, ReplayLearner
from jaxrl_cb.networks import MLP
from jaxrl_cb.schedule import describe
from jaxrl_cb.trainer import (
    EpochTrainCallback,
    MemoryEstimate,
    Trainer,
    TrainerCallbacks,
    TrainerParams,
    leaves,
    memory,
)
from jaxrl_cb.trainer.available_memory import available_bytes, host_bytes
from jaxrl_cb.trainer.members import Members


def learner(**sizes):
    small = {"num_envs": 4, "buffer_size": 400, "batch_size": 16, "start_timesteps": 80}
    environment = make("CartPole-v1", {"max_steps_in_episode": 50})
    return ReplayLearner(environment, DQN(MLP(2, (16,))), ReplayConfig(**{**small, **sizes}))


def params(**changes):
    small = {"max_epochs": 2, "epoch_num_steps": 80, "num_test_episodes": 3, "num_seeds": 3}
    return TrainerParams(**{**small, **changes})


@pytest.fixture
def available(monkeypatch):
    """A function that sets how many bytes are there, None for unknown."""

    def is_(amount):
        monkeypatch.setattr(memory, "available_bytes", lambda devices: amount)

    return is_


# --- the estimate ---

# Of one seed. T = 400 / 4 = 100 rows of E = 4 environments; an episode lasts 50 steps, so there are
# F = 100 / 50 + 1 = 3 slots of final observations. Observations are 4 float32, actions a uint8.
BUFFER = {
    "obs": 100 * 4 * 4 * 4,
    "action": 100 * 4 * 1,
    "reward": 100 * 4 * 4,
    "ending": 100 * 4 * 1,
    "final_obs": 3 * 4 * 4 * 4,
    "slot_used": 4 * 1,
    "num_masked": 4,
    "num_lossy": 4,
    "cursor.position": 4,
    "cursor.size": 4,
    "cursor.clock": 4,
}
NETWORK = 4 * (4 * 16 + 16 + 16 + 16 + 16 * 2 + 2)  # float32: dense, layer norm, dense
OTHERS = {
    "params": NETWORK,
    "target_params": NETWORK,
    "opt_state": 2 * NETWORK + 4,  # Adam's two moments, and its counter
    "rollout": 4 * (16 + 4 + 16 + 4 + 4)
    + 4,  # state and clock; obs; return and length so far; a counter
    "epsilon": 5 * 4 + 4,
    "hyperparams": 4 * 4,
    "key": 2 * 4,
    "test_key": 2 * 4,
    "num_updates": 4,
    "update_credit": 4,
}


def test_every_leaf_counts_with_its_bytes_for_every_seed(compiles):
    run = Trainer(learner(), params())
    compiles()
    estimate = run.memory_estimate()
    assert compiles() == 0
    groups = dict.fromkeys(OTHERS, 0)
    for path, size in estimate.by_leaf.items():
        group, _, rest = path.partition(".")
        if group == "buffer":
            assert size == 3 * BUFFER[rest], path
        else:
            groups[group] += size
    assert groups == {name: 3 * size for name, size in OTHERS.items()}
    assert estimate.total == 3 * (sum(BUFFER.values()) + sum(OTHERS.values()))


def test_bits_count_as_bits():
    """Breakout's 10 x 10 x 4 observations of zeros and ones are kept in 50 bytes each."""
    network = DQN(MLP(3, (16,)))
    sizes = ReplayConfig(num_envs=4, buffer_size=4000, batch_size=16, start_timesteps=40)
    run = Trainer(ReplayLearner(make("Breakout-MinAtar"), network, sizes), params(num_seeds=1))
    assert run.memory_estimate().by_leaf["buffer.obs"] == 4000 * 50


def test_sizes_up_to_the_largest_are_estimated():
    run = Trainer(learner(num_envs=16, buffer_size=2**31 - 16), params())
    assert run.memory_estimate().by_leaf["buffer.obs"] == 3 * 16 * (2**31 - 16)


def test_more_rows_than_are_counted_are_refused():
    most = {"num_envs": 1, "start_timesteps": 80}
    sizes = learner(**most, buffer_size=2**28)
    assert Trainer(sizes, params()).memory_estimate().by_leaf["buffer.obs"] == 3 * 16 * 2**28
    with pytest.raises(ConfigError, match="lower it to 268435456"):
        learner(**most, buffer_size=2**28 + 1)


@pytest.mark.parametrize("vectorized", [False, True])
def test_the_compiled_programs_need_the_states_and_what_is_between(vectorized, available):
    available(None)
    run = Trainer(learner(), params(vectorize_seeds=vectorized))
    run.init()
    states = run.memory_estimate().total
    assert states < run._memory.total - memory.HOST_BYTES < 3 * states
    assert run._memory.by_leaf == run.memory_estimate().by_leaf


def test_what_matrix_products_take_is_counted():
    """Three times the largest that one of them gives: here 16 x 1024 float32."""
    program = """
      %ynn_fusion.14 = f32[16,1024]{1,0} fusion(%constant.238, %fusion.5), kind=kCustom
      %add_fusion.3 = f32[32,1024]{1,0} fusion(%ynn_fusion.14), kind=kLoop
      %dot.1 = bf16[512,2]{1,0} dot(%add_fusion, %ynn_fusion.14), lhs_contracting_dims={0}
      ROOT %dot_general.2 = f32[] dot(%param_0.1, %param_1.2), lhs_contracting_dims={0}
    """
    assert memory._uncounted(program) == 3 * 16 * 1_024 * 4
    assert memory._uncounted("%add.1 = f32[16,1024] add(%a, %b)") == 0


def test_the_schedule_says_it(available):
    available(3 * 2**30)
    # 3 x 11600 bytes = 33.98 KiB; 3 GiB are 277,691 times 11600
    words = "memory: 34.0 KiB for the state of 3 seeds, 11.3 KiB each; 3.0 GiB available, enough "
    assert words + "for 277,691 seeds" in describe(learner(), params())
    available(None)
    assert "for the state of 1 seed\n" in describe(learner(), params(num_seeds=1))


def test_debugging_keeps_the_states_once_more():
    plain = Trainer(learner(), params())
    assert needed(Trainer(learner(), params(debug=True))) == 2 * needed(plain)


# --- the refusal ---


def needed(run):
    return run.memory_estimate().total


def num_arrays():
    gc.collect()
    return len(jax.live_arrays())


def refusal(run):
    with pytest.raises(MemoryEstimateError) as error:
        run.init()
    return str(error.value)


def test_a_run_that_does_not_fit_is_refused_before_anything(available, compiles):
    available(20_000)
    run = Trainer(learner(), params())
    before = num_arrays()
    compiles()
    message = refusal(run)
    assert compiles() == 0
    assert num_arrays() <= before
    # 3 x 11596 bytes; 3 x 6400; 3 x 1600; 3 x 584
    assert message.startswith(
        "the run needs 34.0 KiB of memory (buffer.obs 18.8 KiB, buffer.reward 4.7 KiB, "
        "opt_state.1.mu 1.7 KiB, ...), 19.5 KiB are available: lower buffer_size from 400 to "
    )
    assert issubclass(MemoryEstimateError, JaxrlError)
    assert issubclass(MemoryEstimateError, MemoryError)


@pytest.mark.parametrize("amount", [20_000, 25_000, 30_001, 34_787])
def test_the_named_buffer_size_fits_and_the_next_does_not(amount, available):
    available(amount)
    message = refusal(Trainer(learner(), params()))
    value = int(re.search(r"buffer_size from 400 to (\d+) or less", message).group(1))
    run = Trainer(learner(buffer_size=value), params())  # a valid one
    run.check_memory()
    with pytest.raises(MemoryEstimateError, match=f"from {value + 4} to {value} or less"):
        Trainer(learner(buffer_size=value + 4), params()).check_memory()


def test_what_is_just_enough_is_enough(available):
    run = Trainer(learner(), params())
    available(needed(run))
    run.check_memory()
    available(needed(run) - 1)
    with pytest.raises(MemoryEstimateError):
        run.check_memory()


FULL = {"start_timesteps": 400}  # leaves buffer_size no lower value


def test_fewer_seeds_are_named_where_no_buffer_size_helps(available):
    two = Trainer(learner(**FULL), params(num_seeds=2))
    available(needed(two) + 1)
    message = refusal(Trainer(learner(**FULL), params()))
    assert message.endswith(
        "lower num_seeds from 3 to 2 or less, or train them in waves, "
        "jaxrl_cb.sweep(env, {}, num_seeds=..., seeds_at_once=2)"
    )
    two.check_memory()


def test_fewer_environments_are_named_where_neither_helps(available):
    """Divisors of 400 and of the epoch's 80 steps below 16: 1, 2, 4, 5, 8, 10."""
    eight = Trainer(learner(**FULL, num_envs=8), params(num_seeds=1))
    available(needed(eight))
    message = refusal(Trainer(learner(**FULL, num_envs=16), params(num_seeds=1)))
    assert message.endswith("lower num_envs from 16 to 8")
    eight.check_memory()


def test_two_settings_are_named_where_one_does_not_do(available):
    one = Trainer(learner(buffer_size=200), params(num_seeds=1))
    available(needed(one))
    message = refusal(Trainer(learner(), params(num_seeds=30)))
    assert message.endswith("lower num_seeds from 30 to 1 and buffer_size from 400 to 200 or less")
    one.check_memory()
    available(1000)
    assert "use a smaller network" in refusal(Trainer(learner(), params()))


def test_what_the_programs_need_besides_is_asked_for_before_they_run(available, compiles):
    run = Trainer(learner(buffer_size=396), params())
    available(needed(run))
    compiles()
    before = num_arrays()
    message = refusal(run)
    assert compiles() > 0
    assert num_arrays() <= before
    assert "working memory" in message
    available(10 * needed(run) + memory.HOST_BYTES)
    run.init()  # the same trainer, when there is more
    assert compiles() == 0


TOO_MUCH = """
import sys
import jaxrl_cb
from jaxrl_cb.errors import MemoryEstimateError
try:
    jaxrl_cb.train("CartPole-v1", buffer_size=2 * 10**9, num_seeds=10_000, run_dir=sys.argv[1])
except MemoryEstimateError as error:
    print(error)
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(host_bytes() is None, reason="it is not known how much memory is there")
def test_a_process_that_asks_for_far_too_much_stays_small(tmp_path):
    command = [sys.executable, "-c", TOO_MUCH, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    message, peak = done.stdout.splitlines()
    # 2e9 transitions of 22 bytes and 4e6 + 16 final observations of 16, for each seed
    assert message.startswith("the run needs 820,7")  # of which half is the copy that is saved
    assert "lower " in message
    assert int(peak) < 600 * 1024  # KiB; importing alone takes 240 MiB
    assert not (tmp_path / "run").exists()


# --- the backend's own error ---


def failing(text):
    def run_chunk(self, length):
        raise jax.errors.JaxRuntimeError(text)

    return run_chunk


def test_a_backend_out_of_memory_says_what_was_expected(monkeypatch, available):
    available(2**30)
    run = Trainer(learner(), params())
    run.init()
    text = "RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."
    monkeypatch.setattr(Members, "run_chunk", failing(text))
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED") as error:
        run.execute_epoch()
    [note] = error.value.__notes__
    assert note.startswith("the run was expected to need ")
    assert ", 1.0 GiB were available: lower buffer_size from 400 to " in note
    monkeypatch.setattr(Members, "run_chunk", failing("INTERNAL: something else"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL") as error:
        run.execute_epoch()
    assert not hasattr(error.value, "__notes__")


def test_an_array_that_no_address_space_holds(available):
    """An allocation that really fails: 2e9 observations of 400 kB are 800 TB."""
    environment = functional(
        lambda key: (jax.numpy.int32(0), jax.numpy.zeros(100_000)),
        lambda key, state, action: (
            state + 1,
            jax.numpy.zeros(100_000),
            jax.numpy.float32(0.0),
            state >= 3,
            jax.numpy.bool_(False),
        ),
        num_actions=2,
        time_limit=10,
    )
    sizes = ReplayConfig(num_envs=16, buffer_size=2 * 10**9, batch_size=16, start_timesteps=0)
    run = Trainer(ReplayLearner(environment, DQN(MLP(2, (4,))), sizes), params(num_seeds=1))
    available(None)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory") as error:
        run.init()
    assert "lower buffer_size from 2,000,000,000 to " in error.value.__notes__[0]


# --- what is there ---

MEMINFO = "MemTotal:       24684092 kB\nMemFree:        100 kB\nMemAvailable:   2000000 kB\n"
STAT = "anon 5\ninactive_file 300\nactive_file 20\n"
STAT_V1 = "inactive_file 1\nactive_file 1\ntotal_inactive_file 300\ntotal_active_file 20\n"
V1 = "sys/fs/cgroup/memory"


def machine(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def group(folder, limit, used, stat=STAT):
    if folder.startswith(V1):
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    else:
        names = ("memory.max", "memory.current")
    files = dict(zip(names, (limit, used), strict=True))
    return {f"{folder}/{name}": text for name, text in {**files, "memory.stat": stat}.items()}


PLAIN = {"proc/meminfo": MEMINFO}
IN_V2 = {**PLAIN, "proc/self/cgroup": "0::/a.slice/b.scope\n"}
IN_V1 = {**PLAIN, "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n"}
WHOLE = 2_000_000 * 1024

MACHINES = {
    "nothing is known": ({}, None),
    "no groups": (PLAIN, WHOLE),
    "v2": ({**IN_V2, **group("sys/fs/cgroup/a.slice/b.scope", "5000\n", "2000\n")}, 3320),
    "v2, of the group above": ({**IN_V2, **group("sys/fs/cgroup/a.slice", "5000", "2000")}, 3320),
    "v2, in a container": ({**IN_V2, **group("sys/fs/cgroup", "5000", "2000", "")}, 3000),
    "v2, without limit": ({**IN_V2, **group("sys/fs/cgroup", "max", "2000")}, WHOLE),
    "v2, more than is free": ({**IN_V2, **group("sys/fs/cgroup", str(2**60), "2000")}, WHOLE),
    "v2, used up": ({**IN_V2, **group("sys/fs/cgroup", "5000", "9000")}, 0),
    "v1": ({**IN_V1, **group(f"{V1}/docker/abc", "5000", "2000", STAT_V1)}, 3320),
    "v1, in a container": ({**IN_V1, **group(V1, "5000", "2000", STAT_V1)}, 3320),
    "v1, without limit": ({**IN_V1, **group(V1, "9223372036854771712", "2000")}, WHOLE),
    "a group alone": (
        {"proc/self/cgroup": "0::/", **group("sys/fs/cgroup", "5000", "2000")},
        3320,
    ),
    "no sense": (
        {"proc/meminfo": b"MemAvailable: \xff\xfe kB", "proc/self/cgroup": b"\0:\xff"},
        None,
    ),
    "a number too long": ({"proc/meminfo": f"MemAvailable: {'9' * 6000} kB"}, None),
    "a number of other digits": ({"proc/meminfo": "MemAvailable: \u0663 kB"}, None),
    "a group that climbs": ({**PLAIN, "proc/self/cgroup": "0::/../../x\n0::\0\n::\n:"}, WHOLE),
    "a limit below zero": ({**IN_V2, **group("sys/fs/cgroup", "-1", "2000")}, WHOLE),
    "a long path": ({**PLAIN, "proc/self/cgroup": "0::/" + "a" * 5000}, WHOLE),
}


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_there_is_read_from_linux(name, tmp_path):
    files, expected = MACHINES[name]
    assert host_bytes(machine(tmp_path, files)) == expected


def test_folders_in_place_of_files_are_not_known(tmp_path):
    for name in ("proc/meminfo", "proc/self/cgroup"):
        (tmp_path / name).mkdir(parents=True)
    assert host_bytes(tmp_path) is None


def accelerator(stats):
    return SimpleNamespace(platform="gpu", memory_stats=lambda: stats)


def test_what_is_there_is_asked_of_an_accelerator():
    free = accelerator({"bytes_limit": 1000, "bytes_in_use": 200})
    fuller = accelerator({"bytes_limit": 1000, "bytes_in_use": 300})
    silent = accelerator(None)
    assert available_bytes([free]) == 800
    assert available_bytes([free, silent, fuller]) == 700
    assert available_bytes([silent]) is None


def test_an_estimate_fits_where_nothing_is_known():
    assert MemoryEstimate(10, {}, None).fits
    assert MemoryEstimate(10, {}, 10).fits
    assert not MemoryEstimate(10, {}, 9).fits


def test_seeds_of_several_accelerators_are_shared_out(monkeypatch):
    """5 seeds on 2 devices, one by one: 3 on the first. Under vmap all are on one."""
    devices = [accelerator({"bytes_limit": 10**9}), accelerator({"bytes_limit": 10**8})]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    one = Trainer(learner(), params(num_seeds=1)).memory_estimate()
    alone = Trainer(learner(), params(num_seeds=5, vectorize_seeds=False)).memory_estimate()
    together = Trainer(learner(), params(num_seeds=5, vectorize_seeds=True)).memory_estimate()
    assert [one.total * 3, one.total * 5] == [alone.total, together.total]
    assert [alone.available, together.available] == [10**8, 10**9]


# --- nothing large is copied on the way ---


class Reads(EpochTrainCallback):
    """Reads all that a callback may read of a policy without asking for the whole state."""

    def callback(self, epoch, env_step, context):
        policy = context.policy
        self.read = (policy.eps_training, policy.eps_inference, policy.learning_rate)
        self.read = (*self.read, policy.epsilon, policy.params)


@pytest.mark.parametrize("vectorized", [False, True])
def test_no_replay_is_copied_by_a_run_of_several_seeds(vectorized, monkeypatch):
    """Reading a number of all seeds must not put their states together, of which it is part."""
    copied = []
    for name, states in (("stacked", lambda first: first), ("rows", lambda first: [first])):
        original = getattr(leaves, name)

        def watching(first, *rest, original=original, states=states):
            copied.extend(state.buffer is not None for state in states(first))
            return original(first, *rest)

        monkeypatch.setattr(leaves, name, watching)
    reads = Reads()
    donor = Trainer(learner(), params(num_seeds=1, max_epochs=0)).run().policy
    run = Trainer(
        learner(), params(vectorize_seeds=vectorized), TrainerCallbacks(epoch_train_callback=reads)
    )
    run.warm_start(donor)
    result = run.run()
    assert copied or vectorized  # those that are held together are not put together
    assert not any(copied)
    assert [np.shape(x) for x in reads.read[:4]] == [(3,)] * 4
    assert result.state.buffer.obs.shape == (3, 100, 4, 4)  # asked for, it is put together
    assert result.state is result.state


class Raises(EpochTrainCallback):
    def callback(self, epoch, env_step, context):
        raise KeyError("mine")


def test_no_replay_is_copied_where_a_run_ends_early(tmp_path, monkeypatch):
    held, asked = Members.held, []

    def watching(self, *, copy):
        asked.append(copy)
        return held(self, copy=copy)

    monkeypatch.setattr(Members, "held", watching)
    with pytest.raises(KeyError, match="mine"):
        jaxrl_cb.train(
            "CartPole-v1",
            callbacks=TrainerCallbacks(Raises()),
            run_dir=tmp_path / "run",
            **(tiny.TINY | tiny.SHORT),
        )
    assert asked == [False]


def test_a_result_stays_what_it_was_when_training_goes_on():
    run = Trainer(learner(), params())
    run.init()
    result = run.result()
    run.execute_epoch()
    state = result.state  # put together only now
    assert state.num_updates.tolist() == 0
    assert state.buffer.cursor.size.tolist() == 20  # the prefill: 80 steps of 4 environments
    assert run.result().state.buffer.cursor.size.tolist() == 40
