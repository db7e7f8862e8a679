"""Checkpoints: what is saved is what is resumed, and nothing that was changed is ever used."""

import copy
import dataclasses
import errno
import functools
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from collections import Counter as Counts
from collections import OrderedDict, deque
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl_cb
from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import functional, make
from jaxrl_cb.errors import (
    CallbackTypeError,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointVersionError,
    CheckpointWarning,
    CheckpointWriteError,
    ConfigError,
    JaxrlError,
    NonFiniteError,
    RunFolderError,
    RunLockedError,
    RunWriteError,
)
from jaxrl_cb.learners import OptimizerConfig, ReplayConfig, ReplayLearner
from jaxrl_cb.networks import MLP
from jaxrl_cb.run_files import Rows, locked, replace
from jaxrl_cb.run_folder import RunFolder, read_metrics
from jaxrl_cb.trainer import (
    EpochStopCallback,
    EpochStopCallbackRewardThreshold,
    EpochTestCallback,
    EpochTrainCallback,
    EpochTrainCallbackDQNEpsLinearDecay,
    Trainer,
    TrainerCallbacks,
    TrainerParams,
    checkpointer,
)
from jaxrl_cb.trainer.checkpoint_store import CheckpointStore
from jaxrl_cb.trainer.checkpointer import Checkpointer
from jaxrl_cb.trainer.manifest import FORMAT, sealed
from jaxrl_cb.trainer.plain import from_plain, to_plain


class Remembers(EpochTrainCallback):
    """Keeps what JSON has no words for, and lets it act on the run."""

    def __init__(self):
        self.calls = deque([(0, 0)], maxlen=100)
        self.mean = np.float32(0.1)

    def callback(self, epoch, env_step, context):
        self.calls.append((epoch, env_step))
        self.mean = np.float32(self.mean * 3 + len(self.calls))
        context.policy.set_learning_rate(1e-4 * len(self.calls))


class Stops(EpochStopCallback):
    """Stops seed 1 at epoch 2; counts."""

    def __init__(self):
        self.means = ()

    def should_stop(self, mean_rewards, context):
        self.means = (*self.means, mean_rewards)
        return context.seed == 1 and len(self.means) == 2


LAST = 4


def made(num_seeds=1, vectorize_seeds=None, hidden=(16,), **params):
    environment = make("CartPole-v1", {"max_steps_in_episode": 50})
    learner = ReplayLearner(
        environment,
        DQN(MLP(2, hidden)),
        ReplayConfig(
            num_envs=4, buffer_size=400, batch_size=16, samples_per_insert=5.3, start_timesteps=40
        ),
        optimizer=OptimizerConfig(learning_rate_schedule="linear"),
    )
    sizes = {"max_epochs": LAST, "epoch_num_steps": 80, "num_test_episodes": 3, **params}
    own = TrainerParams(num_seeds=num_seeds, vectorize_seeds=vectorize_seeds, **sizes)
    decay = EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 250)
    return Trainer(learner, own, TrainerCallbacks([decay, Remembers()], None, Stops()))


def contents(trainer):
    """All that a run is, wall times aside: arrays as bytes, and JSON."""
    snapshot = trainer.snapshot()
    arrays = {
        name: (array.dtype.name, array.shape, array.tobytes())
        for name, array in snapshot.to_arrays().items()
        if not name.endswith("_seconds")
    }
    return arrays | {n: json.dumps(v) for n, v in snapshot.to_json().items() if n != "seconds"}


def differing(one, other):
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


KINDS = [(1, None), (3, False), (3, True)]


@pytest.fixture(scope="module", params=KINDS, ids=["one seed", "three seeds", "vectorized"])
def saved(request, tmp_path_factory):
    """Of each kind, what `save_all` gives."""
    return save_all(request.param, tmp_path_factory.mktemp("saved") / "checkpoints")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Of one seed, what `save_all` gives."""
    return save_all((1, None), tmp_path_factory.mktemp("one") / "checkpoints")


def save_all(kind, path):
    """A run that is saved after every epoch: its kind, its folders by epoch, what it became."""
    trainer = made(*kind)
    saver, folders = Checkpointer(path, trainer), {}
    for record in trainer.epochs():
        saver.save()
        saver.wait()
        folders[record.epoch] = path.with_name(f"after {record.epoch}")
        shutil.copytree(path, folders[record.epoch])
    return kind, folders, contents(trainer)


# --- exact ---


def test_a_run_resumed_at_any_epoch_is_the_run_that_was_not_interrupted(saved, compiles):
    kind, folders, expected = saved
    for epoch, folder in folders.items():
        compiles()
        trainer = made(*kind)
        assert Checkpointer(folder, trainer).restore() is True
        assert trainer.context.epoch == trainer.progress.epoch == epoch
        trainer.run()
        assert compiles() == 0
        assert differing(contents(trainer), expected) == [], f"resumed after epoch {epoch}"


class RaisesAt(EpochTestCallback):
    """Raises in the test of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def callback(self, epoch, env_step, context):
        if epoch == self.epoch:
            raise KeyError("mine")

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_half_an_epoch_is_never_saved(tmp_path):
    """Whoever holds the loop and saves at the end, whatever happened, resumes before the epoch."""
    base = made()

    def trainer(epoch):
        return Trainer(base.learner, base.params, TrainerCallbacks(None, RaisesAt(epoch)))

    raising = trainer(2)
    saver = Checkpointer(tmp_path / "c", raising, every=1)

    def run():
        try:
            for record in raising.epochs():
                saver.after_epoch(record.train_seconds)
        finally:
            saver.finish()

    with pytest.raises(KeyError, match="mine"):
        run()
    with pytest.raises(JaxrlError, match="not between two epochs"):
        saver.save()
    resumed, straight = trainer(None), trainer(None)
    again = Checkpointer(tmp_path / "c", resumed)
    assert again.restore()
    assert resumed.progress.epoch == 1
    for one in (resumed, straight):
        one.run()
    assert not differing(contents(resumed), contents(straight))
    assert [record.epoch for record in resumed.progress.history] == [0, 1, 2, 3, 4]


def test_nothing_is_saved_before_a_run_has_begun(tmp_path):
    saver = Checkpointer(tmp_path / "c", made())
    saver.finish()
    assert not saver.store.steps()


def test_what_was_saved_is_what_is_restored(saved):
    kind, folders, expected = saved
    trainer = made(*kind)
    Checkpointer(folders[LAST], trainer).restore()
    assert trainer.is_finished
    assert differing(contents(trainer), expected) == []


def test_saving_compiles_nothing_and_changes_nothing(saved, tmp_path, compiles):
    kind, _, expected = saved
    trainer = made(*kind)
    saver = Checkpointer(tmp_path / "checkpoints", trainer, every=1)
    for record in trainer.epochs():
        if record.epoch == 1:
            compiles()
        saver.after_epoch(0.0)
    saver.finish()
    assert compiles() == 0
    assert differing(contents(trainer), expected) == []


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_a_save_does_not_wait_for_a_device_that_is_at_work(num_seeds, tmp_path, monkeypatch):
    # What goes to a CPU of one core waits there for the epoch that runs.
    write, written = Checkpointer._write, []

    def guarded(self, snapshot, facts):
        with jax.transfer_guard("disallow_explicit"):
            write(self, snapshot, facts)
        written.append(snapshot.progress.epoch)

    monkeypatch.setattr(Checkpointer, "_write", guarded)
    settings = {"num_seeds": num_seeds, "max_epochs": 2, "epoch_num_steps": 64, "verbose": False}
    jaxrl_cb.train("CartPole-v1", run_dir=tmp_path, checkpoint_every=1, **settings)
    assert written == [1, 2]


def test_the_state_may_be_used_up_while_it_is_written(tmp_path, monkeypatch):
    """The write is held back until the run is over."""
    trainer, release = made(), []
    saver = Checkpointer(tmp_path / "checkpoints", trainer, every=1)
    monkeypatch.setattr(saver, "_write", lambda *args: release.append(args))
    epochs = trainer.epochs()
    next(epochs), next(epochs)
    expected = contents(trainer)
    saver.save()
    saver.wait()
    for _ in epochs:
        pass
    Checkpointer._write(saver, *release[0])
    other = made()
    Checkpointer(tmp_path / "checkpoints", other).restore()
    assert differing(contents(other), expected) == []


# --- when ---


def saves(seconds_of_epochs, every, monkeypatch, tmp_path, cost=0.0):
    """The epochs after which a run saves, by a clock that only epochs and saves move."""
    now, epochs = [0.0], []
    monkeypatch.setattr(checkpointer.time, "monotonic", lambda: now[0])
    trainer = made(max_epochs=len(seconds_of_epochs))
    saver = Checkpointer(tmp_path / "checkpoints", trainer, every=every)

    def write(snapshot, facts):
        epochs.append(snapshot.progress.epoch)
        now[0] += cost

    monkeypatch.setattr(saver, "_write", write)
    for record, seconds in zip(trainer.epochs(), [0, *seconds_of_epochs], strict=True):
        now[0] += seconds
        saver.after_epoch(seconds)
        saver.wait()
        assert record.epoch == trainer.progress.epoch
    saver.finish()
    return epochs


@pytest.mark.parametrize(
    ("seconds", "every", "expected"),
    [
        # 4, 8, 12 (saved), 16, 20, 24 (12 s later: saved), and the end
        ([4, 4, 4, 4, 4, 4, 4], None, [3, 6, 7]),
        ([4.5, 4.5, 0.9, 0.1, 1], None, [4, 5]),
        ([5.5, 1, 1], None, [1, 3]),  # a long one at once, as a signal drops the next
        ([1] * 5, 2, [2, 4, 5]),
        ([1] * 4, 2, [2, 4]),  # the end is not saved twice
    ],
)
def test_when_a_run_is_saved(seconds, every, expected, monkeypatch, tmp_path):
    assert saves(seconds, every, monkeypatch, tmp_path) == expected


def test_a_state_that_takes_long_to_save_is_saved_less_often(monkeypatch, tmp_path):
    # Epochs of 10 s, saves of 1 s, which may be 2 % of the time: 50 s have to pass. Saved at 10 s
    # (until 11), at 61 (51 s later; until 62), at 112, and at the end.
    assert saves([10] * 14, None, monkeypatch, tmp_path, cost=1.0) == [1, 6, 11, 14]


def test_memory_of_the_last_save_is_used_again(tmp_path):
    trainer = made()
    trainer.init()
    first = trainer.snapshot()
    kept = first.state.buffer.obs.copy()
    trainer.execute_epoch()
    fresh = trainer.snapshot()
    again = trainer.snapshot(into=first)
    assert again.state.buffer.obs is first.state.buffer.obs
    assert not np.array_equal(kept, again.state.buffer.obs)
    for one, other in zip(fresh.to_arrays().values(), again.to_arrays().values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_last_save_takes_no_memory_of_its_own(monkeypatch, tmp_path):
    trainer = made()
    trainer.init()
    saver, kept = Checkpointer(tmp_path / "c", trainer), []
    take = trainer.snapshot

    def noted(*args, **kwargs):
        kept.append(take(*args, **kwargs).state.buffer.obs)
        return take(*args, **kwargs)

    monkeypatch.setattr(trainer, "snapshot", noted)
    saver.save()
    trainer.execute_epoch()
    saver.finish()
    now = trainer.context.policy.state.buffer.obs
    assert isinstance(kept[0], np.ndarray)
    assert kept[1] is now
    monkeypatch.undo()
    again = made()
    assert Checkpointer(tmp_path / "c", again).restore()
    assert contents(again) == contents(trainer)


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    store, arrays = CheckpointStore(tmp_path / "c"), {"a": np.arange(3)}
    for step, score in enumerate([1.0, 7.0, 2.0, float("-inf"), 3.0, 7.0, 1.0]):
        store.write(step, arrays, {}, score)
    assert store.steps() == [6, 5]  # of two that are equally good the later one
    for step, score in ((7, 6.0), (8, 6.0), (9, 6.0)):
        store.write(step, arrays, {}, score)
    assert store.steps() == [9, 8, 5]
    assert not (tmp_path / "c" / "trash").exists()
    store = CheckpointStore(tmp_path / "below")
    for step, score in enumerate([-2.0, 0.0, -1.0, -3.0]):
        store.write(step, arrays, {}, score)
    assert store.steps() == [3, 2, 1]


def test_the_best_is_known_to_a_store_that_did_not_write_it(tmp_path):
    arrays, scores = {"a": np.arange(3)}, [1.0, 7.0, 2.0, float("-inf"), float("nan"), 7.0, 1.0]
    for step, score in enumerate(scores):
        store = CheckpointStore(tmp_path / "c")
        store.write(step, arrays, {}, score)
        store.close()
    assert store.steps() == [6, 5]
    assert store.read_manifest(5)["score"] == 7.0
    store.write(7, arrays, {}, float("inf"))
    assert store.steps() == [7, 6, 5]
    assert store.read_manifest(7)["score"] is None  # JSON has no infinity


def test_what_cannot_be_read_is_not_the_best_and_is_left_where_it_is(tmp_path):
    arrays = {"a": np.arange(3)}
    for step, score in enumerate([9.0, 1.0, 0.0]):
        store = CheckpointStore(tmp_path / "c")
        store.write(step, arrays, {}, score)
        store.close()
    (tmp_path / "c" / "0" / "manifest" / "metadata").write_text("{")
    store = CheckpointStore(tmp_path / "c")
    for step in (3, 4, 5):
        store.write(step, arrays, {}, 0.0)
    assert store.steps() == [5, 4, 1, 0]


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint32", "float16", "complex64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"],
)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (3, 0, 2)])
def test_arrays_of_any_dtype_and_shape_come_back_bit_for_bit(tmp_path, dtype, shape):
    array = np.asarray(jnp.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape).astype(dtype))
    store = CheckpointStore(tmp_path / "c")
    store.write(1, {"a": array}, {}, 0.0)
    back = store.read_arrays(1, store.read_manifest(1)["arrays"])["a"]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, shape, array.tobytes())
    store.close()


def test_a_state_with_bfloat16_and_with_nothing_in_an_array_is_resumed(tmp_path):
    def reset(key):
        return {"n": jnp.int32(0), "none": jnp.zeros((0,))}, jnp.zeros(2)

    def step(key, state, action):
        n = state["n"] + 1
        return {**state, "n": n}, jnp.full(2, n, jnp.float32), 1.0, False, n >= 3

    learner = ReplayLearner(
        functional(reset, step, num_actions=2, time_limit=3),
        DQN(MLP(2, (4,))),
        ReplayConfig(num_envs=4, buffer_size=400, batch_size=16, start_timesteps=40),
        transformation=optax.scale_by_adam(mu_dtype=jnp.bfloat16),
    )
    params = TrainerParams(max_epochs=2, epoch_num_steps=80, num_test_episodes=2)
    straight, trainer = Trainer(learner, params), Trainer(learner, params)
    straight.run()
    saver = Checkpointer(tmp_path / "checkpoints", trainer, every=1)
    run_epochs(trainer, saver, 1)
    resumed = Trainer(learner, params)
    Checkpointer(tmp_path / "checkpoints", resumed).restore()
    resumed.run()
    assert any(kind == "bfloat16" for kind, *_ in contents(resumed).values())
    assert differing(contents(resumed), contents(straight)) == []


# --- nothing that was changed is used ---


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def used(folder, kind=(1, None)):
    """The epoch that a run resumes at, with the warnings."""
    trainer = made(*kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Checkpointer(folder, trainer).restore("auto")
    words = [str(w.message) for w in caught if w.category is CheckpointWarning]
    return trainer, trainer.progress.epoch, words


@pytest.fixture
def folder(one, tmp_path):
    """A copy of the folder after epoch 3 of the run with one seed: checkpoints 3, 2, the best."""
    return Path(shutil.copytree(one[1][3], tmp_path / "checkpoints"))


def check_never_wrong(folder, one, what, is_saved=True):
    """A damaged newest checkpoint is unharmed where it counts, or said to be bad and not used.

    Where `is_saved`, the run can then also be saved in that folder.
    """
    trainer, epoch, words = used(folder)
    assert epoch in (2, 3), what
    if epoch == 2:
        assert len(words) == 1, what
        assert words[0].startswith("checkpoint 3 is not used: "), what
        assert "rejected" in words[0]
        assert "\n" not in words[0]
    trainer.run()
    assert differing(contents(trainer), one[2]) == [], what
    if is_saved:
        check_saves(folder, trainer, one, what)
    return epoch


def check_saves(folder, trainer, one, what):
    """A run that has come to its end can be saved, and is then what the folder gives back."""
    Checkpointer(folder, trainer).finish()
    again, epoch, words = used(folder)
    assert (epoch, words) == (LAST, []), what
    assert differing(contents(again), one[2]) == [], what


def test_bit_flips_are_all_found(one, folder, tmp_path):
    """Until 20 were found: 0 silent. The others are in bytes that no reader uses."""
    draw, found, number = random.Random(0), 0, 0
    while found < 20:
        number += 1
        assert number < 120
        copy = Path(shutil.copytree(folder, tmp_path / str(number)))
        files = [path for path in all_files(copy / "3")]
        file = draw.choices(files, [path.stat().st_size for path in files])[0]
        content, bit = bytearray(file.read_bytes()), draw.randrange(8 * file.stat().st_size)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        found += check_never_wrong(copy, one, f"bit {bit} of {file}") == 2


@pytest.mark.parametrize("how", ["deleted", "emptied", "halved", "last byte lost"])
def test_every_file_truncated_or_deleted(one, folder, tmp_path, how):
    for number, file in enumerate(all_files(folder / "3")):
        copy = Path(shutil.copytree(folder, tmp_path / str(number)))
        target = copy / file.relative_to(folder)
        size = file.stat().st_size
        if how == "deleted":
            target.unlink()
        else:
            left = {"emptied": 0, "halved": size // 2, "last byte lost": max(size - 1, 0)}[how]
            os.truncate(target, left)
        check_never_wrong(copy, one, f"{target} {how}", is_saved=file.suffix != ".bin")


def test_a_changed_array_is_told_with_its_file(folder):
    name = sorted(CheckpointStore(folder).read_manifest(3)["arrays"])[7]
    file = folder / "3" / "state" / "7.bin"
    content = bytearray(file.read_bytes())
    file.write_bytes(bytes([content[0] ^ 1, *content[1:]]))
    assert f"its array {name} is not as it was written (SHA-256 of 7.bin" in used(folder)[2][0]
    shutil.move(folder / "rejected" / "3", folder / "3")
    file.unlink()
    assert f"its array {name} has no file 7.bin" in used(folder)[2][0]


@pytest.mark.parametrize("how", ["deleted", "emptied", "a bit changed"])
def test_whatever_file_is_damaged_the_run_can_be_saved(one, folder, tmp_path, how):
    """Of every checkpoint that is kept, arrays aside: those are not read to save."""
    shutil.copytree(one[1][1] / "1", folder / "1")
    files = [file for file in all_files(folder) if file.suffix != ".bin"]
    assert {file.relative_to(folder).parts[0] for file in files} == {"1", "2", "3"}
    for number, file in enumerate(files):
        copy = Path(shutil.copytree(folder, tmp_path / str(number)))
        target = copy / file.relative_to(folder)
        content = bytearray(file.read_bytes())
        if how == "deleted":
            target.unlink()
        elif how == "emptied":
            target.write_bytes(b"")
        elif content:
            content[3] ^= 8
            target.write_bytes(content)
        trainer = used(copy)[0]
        trainer.run()
        check_saves(copy, trainer, one, f"{target} {how}")


FOREIGN = {
    "a file named trash": lambda folder: (folder / "trash").write_text("x"),
    "a link named trash": lambda folder: (folder / "trash").symlink_to(folder.parent),
    "twenty digits": lambda folder: (folder / ("1" * 20)).mkdir(),
    "a file of twenty digits": lambda folder: (folder / ("1" * 20)).write_text("x"),
    "leading zeros": lambda folder: (folder / "007").mkdir(),
    "other digits": lambda folder: (folder / "\N{ARABIC-INDIC DIGIT NINE}").mkdir(),
    "a line break": lambda folder: (folder / "9\n").mkdir(),
    "an older folder": lambda folder: (folder / "0").mkdir(),
    "an older file": lambda folder: (folder / "0").write_text("x"),
    "metrics that orbax would read": lambda folder: (
        (folder / "2" / "metrics").mkdir(exist_ok=True),
        (folder / "2" / "metrics" / "metrics").write_text("{"),
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_whatever_else_is_in_the_folder_the_run_can_be_saved(one, folder, what):
    FOREIGN[what](folder)
    mine = {path.name for path in folder.parent.iterdir()}
    trainer, epoch, words = used(folder)
    assert (epoch, words) == (3, [])
    trainer.run()
    check_saves(folder, trainer, one, what)
    assert {path.name for path in folder.parent.iterdir()} == mine
    if "digits" in what or "zeros" in what:
        assert len(list((folder / "rejected").iterdir())) == 1


@pytest.mark.parametrize("part", ["manifest", "state", "."])
def test_a_half_deleted_checkpoint_is_not_used(one, folder, part):
    shutil.rmtree(folder / "3" / part)
    (folder / "3").mkdir(exist_ok=True)
    assert check_never_wrong(folder, one, part) == 2
    assert (folder / "rejected" / "3").is_dir()


def test_foreign_entries_are_not_used(one, folder):
    (folder / "9").mkdir()
    (folder / "8").write_text("not a folder")
    (folder / "notes").mkdir()
    (folder / "007").mkdir()
    trainer, epoch, words = used(folder)
    assert epoch == 3
    assert [word.split(":")[0] for word in words] == [
        "checkpoint 9 is not used",
        "checkpoint 8 is not used",
    ]
    saver = Checkpointer(folder, trainer, every=1)
    trainer.execute_epoch()
    saver.after_epoch(0.0)
    saver.finish()
    assert used(folder)[1:] == (4, [])


def test_a_link_out_of_the_folder_is_not_followed(one, folder, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(folder / "3" / "state", outside)
    (folder / "3" / "state").symlink_to(outside)
    assert check_never_wrong(folder, one, "link") == 2


@pytest.mark.parametrize("name", ["manifest", "manifest/metadata", "state/0.bin"])
def test_a_link_in_place_of_a_file_is_not_followed(one, folder, tmp_path, name):
    shutil.move(folder / "3" / name, tmp_path / "outside")
    (folder / "3" / name).symlink_to(tmp_path / "outside")
    assert check_never_wrong(folder, one, name) == 2


@pytest.mark.parametrize("name", ["manifest/metadata", "state/0.bin"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(one, folder, name):
    (folder / "3" / name).unlink()
    os.mkfifo(folder / "3" / name)
    assert check_never_wrong(folder, one, name) == 2


def test_files_that_are_not_opened_are_not_looked_at(folder, monkeypatch):
    for number in range(300):
        (folder / "3" / str(number)).write_bytes(b"")
    looked, stat = [], os.stat

    def noted(path, **kwargs):
        looked.append(str(path))
        return stat(path, **kwargs)

    monkeypatch.setattr(os, "stat", noted)
    monkeypatch.setattr(os, "lstat", lambda path: noted(path, follow_symlinks=False))
    CheckpointStore(folder).read_manifest(3)
    assert 3 < len([path for path in looked if path.startswith(str(folder))]) < 30


def test_a_link_in_place_of_a_checkpoint_is_not_followed(one, folder, tmp_path):
    shutil.move(folder / "3", tmp_path / "3")
    (folder / "3").symlink_to(tmp_path / "3")
    assert check_never_wrong(folder, one, "link") == 2


def test_a_manifest_beyond_all_measure_is_not_read(one, folder):
    with (folder / "3" / "manifest" / "metadata").open("ab") as file:
        file.truncate(17 * 2**20)
    assert check_never_wrong(folder, one, "size") == 2


def rewrite(folder, change):
    """Changes checkpoint 3 and seals it again, as one who means it would."""
    store = CheckpointStore(folder)
    body = store.read_manifest(3)
    arrays = store.read_arrays(3, body["arrays"])
    change(arrays, body)
    shutil.rmtree(folder / "3")
    content = {name: value for name, value in body.items() if name != "arrays"}
    store.write(3, arrays, content, 0.0)
    store.close()


def test_arrays_of_other_shapes_than_their_manifest_says_are_not_read(one, folder):
    """Else a small manifest could make a reader allocate anything."""

    def change(arrays, body):
        arrays["state.params.params.Dense_0.kernel"] = np.zeros((1, 4, 4000), np.float32)

    good = (folder / "3" / "manifest" / "metadata").read_bytes()
    rewrite(folder, change)
    (folder / "3" / "manifest" / "metadata").write_bytes(good)
    assert check_never_wrong(folder, one, "shape") == 2


@pytest.mark.parametrize(
    ("name", "new", "words"),
    [
        ("buffer.action", lambda x: x.astype(np.int32), "uint8[1, 100, 4]"),
        ("params.params.Dense_0.kernel", lambda x: x.astype(np.float16), "is float16[1, 4, 16]"),
        ("params.params.Dense_0.kernel", lambda x: x[:, :, :8], "float32[1, 4, 16]"),
        ("num_updates", lambda x: None, "state.num_updates is absent, expected int32[]"),
    ],
)
def test_another_dtype_or_shape_is_refused_by_name(folder, name, new, words):
    def change(arrays, body):
        arrays[f"state.{name}"] = new(arrays[f"state.{name}"])
        if arrays[f"state.{name}"] is None:
            del arrays[f"state.{name}"]

    rewrite(folder, change)
    with pytest.raises(CheckpointMismatchError) as caught:
        Checkpointer(folder, made()).restore("auto")
    assert words in str(caught.value)
    assert f"state.{name}" in str(caught.value)
    assert "checkpoint 3" in str(caught.value)
    assert (folder / "3").is_dir()  # where it was: the error is not the checkpoint's


def test_a_checkpoint_of_another_network_is_refused_by_name(folder):
    with pytest.raises(
        CheckpointMismatchError, match=r"Dense_0.bias is float32\[1, 16\], expected"
    ):
        Checkpointer(folder, made(hidden=(32,))).restore("auto")


def test_a_checkpoint_of_other_callbacks_is_refused(folder):
    trainer = made()
    trainer = Trainer(trainer.learner, trainer.params, TrainerCallbacks(Remembers()))
    with pytest.raises(
        CheckpointMismatchError, match=r"had the callbacks .*Stops.*, now there are"
    ):
        Checkpointer(folder, trainer).restore("auto")


@pytest.mark.parametrize("given", [None, [Remembers()], [Remembers()] * 2])
def test_other_callbacks_are_told_before_anything_is_compiled(folder, given, compiles):
    kept = made()
    params = dataclasses.replace(kept.params, chunk_num_steps=28)  # which nothing has compiled yet
    trainer = Trainer(kept.learner, params, TrainerCallbacks(given))
    compiles()
    with pytest.raises(CheckpointMismatchError, match="give it the same ones"):
        Checkpointer(folder, trainer).restore("auto")
    assert compiles() == 0
    assert trainer.progress.history == []
    trainer.init()
    assert compiles() > 0 or given  # it was not compiled before


def test_a_later_format_is_refused(folder, monkeypatch):
    monkeypatch.setattr("jaxrl_cb.trainer.manifest.FORMAT", FORMAT + 1)
    rewrite_with = CheckpointStore(folder)
    monkeypatch.setattr("jaxrl_cb.trainer.manifest.FORMAT", FORMAT)
    body = rewrite_with.read_manifest(3)
    arrays = rewrite_with.read_arrays(3, body["arrays"])
    monkeypatch.setattr("jaxrl_cb.trainer.manifest.FORMAT", FORMAT + 1)
    shutil.rmtree(folder / "3")
    rewrite_with.write(3, arrays, {n: v for n, v in body.items() if n != "arrays"}, 0.0)
    monkeypatch.setattr("jaxrl_cb.trainer.manifest.FORMAT", FORMAT)
    for resume in ("auto", "must"):
        with pytest.raises(CheckpointVersionError, match=f"format {FORMAT + 1}"):
            Checkpointer(folder, made()).restore(resume)


def test_auto_starts_anew_and_must_refuses_where_no_good_one_is(folder, tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint in"):
        Checkpointer(tmp_path / "none", made()).restore("must")
    assert Checkpointer(tmp_path / "none", made()).restore("auto") is False
    for step in CheckpointStore(folder).steps():
        os.truncate(folder / str(step) / "manifest" / "metadata", 7)
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointCorruptError, match="none of"):
        Checkpointer(folder, made()).restore("must")
    with pytest.warns(CheckpointWarning):
        assert Checkpointer(again, made()).restore("auto") is False


@pytest.mark.parametrize(
    ("refusal", "fix"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied.*let this user"),
        (MemoryError("no 3 GiB"), "no 3 GiB.*free memory"),
        (MemoryError(), "MemoryError.*free memory"),
    ],
    ids=["permission", "memory", "wordless"],
)
@pytest.mark.parametrize("resume", ["auto", "must"])
@pytest.mark.parametrize(
    "where",
    ["pathlib.Path.iterdir", "pathlib.Path.open", "orbax.checkpoint.JsonCheckpointHandler.restore"],
)
def test_trouble_that_passes_is_told_and_nothing_is_moved(
    folder, monkeypatch, refusal, fix, resume, where
):
    def refuses(*args):
        raise refusal

    trainer = made()
    with monkeypatch.context() as patch:
        patch.setattr(where, refuses)
        with pytest.raises(CheckpointError, match=rf"{fix}.* and resume again$") as caught:
            Checkpointer(folder, trainer).restore(resume)
    assert type(caught.value) is CheckpointError
    assert "iterdir" in where or f"checkpoint 3 in {str(folder)!r}: its " in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    assert used(folder)[1:] == (3, [])


def test_must_moves_nothing_if_it_finds_no_good_one(folder):
    for step in (2, 3):
        os.truncate(folder / str(step) / "state" / "0.bin", 1)
    with (
        pytest.warns(CheckpointWarning, match="is not used") as told,
        pytest.raises(CheckpointCorruptError, match="none of"),
    ):
        Checkpointer(folder, made()).restore("must")
    words = [str(warning.message) for warning in told]
    assert [word.split(" is")[0] for word in words] == ["checkpoint 3", "checkpoint 2"]
    assert not any("it is now" in word for word in words)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    with pytest.warns(CheckpointWarning, match="it is now"):
        assert Checkpointer(folder, made()).restore("auto") is False
    assert sorted(path.name for path in folder.iterdir()) == ["rejected"]


def test_nothing_is_moved_before_an_older_one_is_used(folder):
    os.truncate(folder / "3" / "manifest" / "metadata", 1)
    with pytest.raises(CheckpointMismatchError, match="checkpoint 2"):
        Checkpointer(folder, made(hidden=(32,))).restore("auto")
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]


def test_a_bad_one_that_cannot_be_moved_is_told(folder):
    os.truncate(folder / "3" / "state" / "0.bin", 1)
    (folder / "rejected").write_text("x")
    with pytest.raises(CheckpointError, match=r"checkpoint 3 in .* cannot be moved to 'rejected'"):
        Checkpointer(folder, made()).restore("auto")


def test_a_manifest_that_is_sealed_but_of_no_run_is_not_used(one, folder):
    def change(arrays, body):
        del body["run"]["best"]

    rewrite(folder, change)
    assert check_never_wrong(folder, one, "no run") == 2


def places(content, path=()):
    """The paths to all that JSON holds, of lists the first two entries."""
    if path:
        yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content[:2])
    for key, value in inner if isinstance(content, dict | list) else ():
        yield from places(value, (*path, key)) if isinstance(value, dict | list) else [(*path, key)]


def mutations(body):
    """(path, value, body with it): two odd values at every place of a manifest."""
    draw = random.Random(0)
    arrays = ("history.returns", "lockstep.num_updates", "state.num_updates")
    table = {name: body["arrays"][name] for name in arrays}
    for path in places(body | {"arrays": table}):
        for value in draw.sample([[], None, {}, "x", -1, 2**70, [[1]]], 2):
            changed = copy.deepcopy(body)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            yield ".".join(map(str, path)), value, changed


# What a run may have been, as far as anyone can tell: its score, and what its callbacks kept.
FREE = ("score", "run.best.0.0", "run.seconds", "run.diverged", "run.callbacks", "facts")


def test_a_sealed_manifest_with_odd_content_is_a_bad_checkpoint_and_nothing_else(
    one, folder, tmp_path
):
    """The older one is used, or an error says what is wrong, or it is the same run."""
    manifest = folder / "3" / "manifest" / "metadata"
    body = CheckpointStore(folder).read_manifest(3)
    body["run"]["ended"], body["run"]["diverged"] = [[0, 3, 240]], [[0, "loss"]]
    outcomes = Counts()
    for path, value, changed in mutations(body):
        manifest.write_text(json.dumps(sealed({}, changed)))
        trainer, what = made(), f"{path} = {value!r}"
        before = [dict(vars(c)) for c in trainer.callbacks.lists()[0]]
        refused = ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                Checkpointer(folder, trainer).restore("auto")
            except CheckpointError as error:
                refused = str(error)
        epoch = trainer.progress.epoch
        outcomes["refused" if refused else epoch] += 1
        if refused:
            assert "\n" not in refused, what
            assert trainer.progress.history == [], what
            assert [dict(vars(c)) for c in trainer.callbacks.lists()[0]] == before, what
        elif epoch == 2:
            shutil.move(folder / "rejected" / "3", folder / "3")
        else:
            assert epoch == 3, what
            assert path.startswith(FREE) or changed == body, what
    assert min(outcomes[name] for name in ("refused", 2, 3)) >= 1, outcomes
    assert outcomes[2] > 60


@pytest.mark.parametrize("value", [[], None, {}, "x", -1, {"settings": []}])
@pytest.mark.parametrize("name", ["run", "versions", "metrics"])
def test_odd_facts_in_a_sealed_manifest_make_a_bad_checkpoint(tmp_path_factory, name, value):
    path = tmp_path_factory.getbasetemp() / "odd facts"
    if not path.exists():
        train(path, max_epochs=1)
    store = CheckpointStore(path / "checkpoints")
    copied = Path(shutil.copytree(path, path.with_name(f"{name} {value}")))
    body = store.read_manifest(1)
    body["facts"][name] = value
    (copied / "checkpoints/1/manifest/metadata").write_text(json.dumps(sealed({}, body)))
    with pytest.warns(CheckpointWarning, match=r"checkpoint 1 is not used|another machine"):
        train(copied, max_epochs=1, resume="auto")


def test_callbacks_that_keep_too_much_are_told_when_it_is_saved(tmp_path):
    class Hoards(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            self.text = "x" * (17 * 2**20)

    with pytest.raises(CheckpointWriteError, match=r"bytes as JSON, of 16,777,216 at most"):
        train(tmp_path / "run", Hoards(), max_epochs=1)


# --- the disk ---


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 2 MiB; where none can be mounted, one that says that it is full."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def run_epochs(trainer, saver, last):
    for record in trainer.epochs():
        saver.after_epoch(0.0)
        saver.wait()
        if record.epoch == last:
            break


def test_a_full_disk_is_an_error_and_the_next_save_works(small_disk):
    trainer = made()
    saver = Checkpointer(small_disk / "checkpoints", trainer, every=1)
    run_epochs(trainer, saver, 2)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))
    trainer.execute_epoch()
    with pytest.raises(CheckpointWriteError, match=r"MiB are needed, 0\.0 MiB free") as caught:
        saver.finish()
    assert isinstance(caught.value, OSError)
    assert used(small_disk / "checkpoints")[1:] == (2, [])
    (small_disk / "ballast").unlink()
    saver.save()
    saver.finish()
    assert used(small_disk / "checkpoints")[1:] == (3, [])
    assert not list((small_disk / "checkpoints").glob("*tmp*"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_fills_up_during_the_write_is_an_error(small_disk, monkeypatch):
    trainer = made()
    saver = Checkpointer(small_disk / "checkpoints", trainer, every=1)
    run_epochs(trainer, saver, 2)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))
    room = shutil._ntuple_diskusage(2**40, 0, 2**40)
    trainer.execute_epoch()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: room)
        with pytest.raises(CheckpointWriteError, match="No space left"):
            saver.finish()
    assert used(small_disk / "checkpoints")[1:] == (2, [])
    (small_disk / "ballast").unlink()
    saver.save()
    saver.finish()
    assert used(small_disk / "checkpoints")[1:] == (3, [])
    gc.collect()  # what orbax leaves open after an error is told then, and ignored here


def test_a_read_only_folder_is_an_error_and_the_next_save_works(tmp_path, monkeypatch):
    trainer = made()
    saver = Checkpointer(tmp_path / "checkpoints", trainer, every=1)
    run_epochs(trainer, saver, 2)
    trainer.execute_epoch()

    def refuses(self, mode=0o777, parents=False, exist_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuses)
        with pytest.raises(CheckpointWriteError, match="Read-only"):
            saver.finish()
    saver.save()
    saver.finish()
    assert used(tmp_path / "checkpoints")[1:] == (3, [])


def test_a_folder_that_is_gone_is_an_error_by_the_next_epoch(tmp_path):
    class Removes(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            if epoch == 2:
                shutil.rmtree(tmp_path / "run")

    with pytest.raises(RunWriteError, match=r"run_dir=.* cannot be written: No such file"):
        train(tmp_path / "run", Removes(), max_epochs=4, checkpoint_every=50)


def test_a_save_that_failed_is_told_at_the_next_epoch(tmp_path, monkeypatch):
    trainer = made()
    saver = Checkpointer(tmp_path / "checkpoints", trainer, every=1)
    epochs = trainer.epochs()
    next(epochs), next(epochs)
    monkeypatch.setattr(saver.store, "_write", lambda *args: 1 / 0)
    saver.after_epoch(0.0)
    next(epochs)
    with pytest.raises(CheckpointWriteError, match="division by zero"):
        saver.after_epoch(0.0)


def test_a_final_save_that_fails_makes_the_run_fail(tmp_path, monkeypatch):
    def refuses(self, *args):
        raise OSError("no more room")

    monkeypatch.setattr(CheckpointStore, "_write", refuses)
    with pytest.raises(CheckpointWriteError, match="no more room"):
        train(tmp_path / "run", checkpoint_every=50)  # so that there is no other


# --- train ---

TINY = tiny.TINY | tiny.SHORT | {"max_epochs": 3, "checkpoint_every": 1}


class Writes(EpochTrainCallback):
    """Writes a row with what it remembers."""

    def __init__(self):
        self.total = 0

    def callback(self, epoch, env_step, context):
        self.total += env_step
        context.logger.write("train/env_step", env_step, {"total": self.total})


class FailsAt(EpochTestCallback):
    """Raises before the test of an epoch, in which its train callbacks have been called."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.calls = 0

    def callback(self, epoch, env_step, context):
        self.calls += 1
        if epoch == self.epoch:
            raise KeyError("mine")

    def _tostring_excludes(self):
        return ["epoch"]

    def state_dict(self):
        return {"calls": self.calls}


def train(run_dir, train=None, test=None, stop=None, **changes):
    callbacks = TrainerCallbacks(train, test, stop)
    return jaxrl_cb.train("CartPole-v1", callbacks=callbacks, run_dir=run_dir, **(TINY | changes))


def rows(path):
    kept = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{n: v for n, v in row.items() if not n.startswith("time/")} for row in kept]


def test_a_run_whose_callback_raised_is_resumed_and_does_that_epoch_again(tmp_path):
    expected = train(tmp_path / "straight", Writes(), FailsAt(None))
    with pytest.raises(KeyError, match="mine"):
        train(tmp_path / "run", Writes(), FailsAt(2))
    assert [row["step"] for row in rows(tmp_path / "run")][-1] == 80  # of epoch 2, before it failed
    test = FailsAt(None)
    result = train(tmp_path / "run", Writes(), test, resume="must")
    assert test.calls == 4  # epochs 0 to 3, of which it has made only two itself
    np.testing.assert_array_equal(result.history[-1].returns, expected.history[-1].returns)
    for one, other in zip(
        jax.tree.leaves(result.policy.params), jax.tree.leaves(expected.policy.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert rows(tmp_path / "run") == rows(tmp_path / "straight")


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path, capsys):
    with pytest.raises(KeyError):
        train(tmp_path / "run", Writes(), FailsAt(1), checkpoint_every=50)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for policy in (tmp_path / "run").glob("policy*"):
        policy.unlink()
    train(tmp_path / "run", Writes(), FailsAt(None), resume="auto", verbose=True)
    assert "the run starts anew" in capsys.readouterr().out
    train(tmp_path / "straight", Writes(), FailsAt(None))
    assert rows(tmp_path / "run") == rows(tmp_path / "straight")


STARTS = (
    *(".lock", ".config.json.tmp", "config.json", "checkpoints/", "metrics.jsonl"),
    *(".versions.json.tmp", "versions.json", ".command.json.tmp", "command.json"),
)
"""What a start leaves, killed before the next of them."""


def killed_start(path, names):
    path.mkdir()
    for name in names:
        (path / name).mkdir() if name.endswith("/") else (path / name).touch()
    return path


@pytest.mark.parametrize("number", range(len(STARTS) + 1))
def test_a_run_killed_while_it_started_is_begun_anew(tmp_path, number):
    for resume in ("never", "auto"):
        path = killed_start(tmp_path / resume, STARTS[:number])
        train(path, resume=resume, max_epochs=0)
        assert json.loads((path / "config.json").read_text())["env"] == "CartPole-v1"
    with pytest.raises(CheckpointNotFoundError):
        train(killed_start(tmp_path / "must", STARTS[:number]), resume="must")


def test_a_start_of_another_order_is_begun_anew(tmp_path):
    train(killed_start(tmp_path / "a", (".lock", "checkpoints/", "metrics.jsonl")), max_epochs=0)


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/1", "thesis.tex"])
def test_a_folder_with_more_than_a_start_leaves_is_not_begun_anew(tmp_path, name):
    path = killed_start(tmp_path / "run", STARTS)
    (path / name).write_text("x")
    with pytest.raises(RunFolderError, match="is not an empty folder"):
        train(path)
    (path / "config.json").unlink()
    with pytest.raises(RunFolderError, match="not empty and not a run's"):
        train(path, resume="auto")


def test_a_config_that_no_start_left_is_not_written_over(tmp_path):
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(RunFolderError, match="is not an empty folder"):
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_finished_run_is_resumed_as_finished(tmp_path):
    first = train(tmp_path / "run", Writes())
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again = train(tmp_path / "run", Writes(), resume="auto")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert repr(again) == repr(first)
    assert len(again.history) == len(first.history) == 4


def test_a_run_may_have_more_epochs_and_other_chunks(tmp_path):
    constant = {"learning_rate_schedule": "constant"}
    train(tmp_path / "run", Writes(), max_epochs=2, **constant)
    longer = {"max_epochs": 4, "chunk_num_steps": 8, **constant}
    result = train(tmp_path / "run", Writes(), resume="auto", **longer)
    assert result.epoch == 4
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["max_epochs"] == 4
    settings = {"max_epochs": 2, "epsilon_decay_steps": 80, **constant}
    train(tmp_path / "two", Writes(), **settings)
    result = train(tmp_path / "two", Writes(), resume="auto", **(settings | {"max_epochs": 4}))
    straight = train(tmp_path / "four", Writes(), **(settings | {"max_epochs": 4}))
    assert [r.mean.tolist() for r in result.history] == [r.mean.tolist() for r in straight.history]


def test_a_run_that_raised_is_resumed_to_find_the_operation(tmp_path):
    """The error says to use debug=True: nothing else has to be given up for it."""
    path, changes = tmp_path / "run", {"learning_rate": 1e30, "loss": "squared", "max_epochs": 3}
    with pytest.raises(NonFiniteError, match="with debug=True; no checkpoint had been written"):
        train(path, on_nan="raise", **changes)
    with pytest.raises(NonFiniteError, match="run again, in vector step"):
        train(path, on_nan="raise", debug=True, resume="auto", **changes)


def test_a_full_disk_is_told_whatever_is_written_first(small_disk):
    train(small_disk / "run", max_epochs=1)
    result = train(small_disk / "run", max_epochs=1, resume="must")
    folder = RunFolder(small_disk / "run", "auto")
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(RunWriteError, match="No space left"):
        folder.save_policies(result)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 7}, "seed was 0 and is 7"),
        ({"batch_size": 32}, "batch_size was 16 and is 32"),
        ({"hidden_sizes": (8, 8)}, r"hidden_sizes was \[16\] and is \[8, 8\]"),
        ({"env_kwargs": {"max_steps_in_episode": 60}}, "env_kwargs was"),
        ({"gamma": 0.9, "tau": 0.1}, "gamma was 0.99 and is 0.9; tau was"),
    ],
)
def test_a_run_with_other_settings_is_refused(tmp_path_factory, change, words):
    path = tmp_path_factory.getbasetemp() / "other settings"
    if not path.exists():
        train(path)
    with pytest.raises(CheckpointMismatchError, match=words):
        train(path, resume="auto", **change)
    assert json.loads((path / "config.json").read_text())["settings"]["seed"] == 0


def test_a_threshold_that_was_changed_is_told_not_hidden(tmp_path):
    """The state of a callback includes what it was made with."""
    train(tmp_path / "run", stop=EpochStopCallbackRewardThreshold(400.0), max_epochs=1)
    stop = EpochStopCallbackRewardThreshold(0.0)
    with pytest.warns(CheckpointWarning, match=r"threshold=400\.0.* was given as .*threshold=0\.0"):
        train(tmp_path / "run", stop=stop, resume="auto")
    assert stop.threshold == 400.0


def test_the_same_callback_objects_go_on_without_a_word(tmp_path):
    stop = EpochStopCallbackRewardThreshold(400.0)
    writes = Writes()
    train(tmp_path / "run", writes, stop=stop, max_epochs=1)
    train(tmp_path / "run", writes, stop=stop, max_epochs=2, resume="auto")


@pytest.mark.parametrize("resume", ["never", "auto", "must"])
def test_folders_that_are_not_a_runs(tmp_path, resume):
    def error(path):
        with pytest.raises(RunFolderError) as caught:
            train(path, resume=resume)
        return type(caught.value), str(caught.value)

    (tmp_path / "file").write_text("x")
    assert error(tmp_path / "file")[1].endswith("is not a folder; choose another name")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    kind, words = error(tmp_path / "full")
    assert kind is (CheckpointNotFoundError if resume == "must" else RunFolderError)
    assert "full" in words
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    (tmp_path / "old").mkdir()
    for name in ("config.json", "policy.json"):  # a run of a version without checkpoints
        (tmp_path / "old" / name).write_text("{}")
    if resume != "must":
        assert error(tmp_path / "old")[0] is RunFolderError
    for name in ("empty", "new"):
        if name == "empty":
            (tmp_path / "empty").mkdir()
        if resume == "must":
            assert error(tmp_path / name)[0] is CheckpointNotFoundError
        else:
            train(tmp_path / name, resume=resume)


LINKS = ("metrics.jsonl", "config.json", ".policy_best.safetensors.tmp", "checkpoints", "notes")


@pytest.mark.parametrize("resume", ["never", "auto", "must"])
@pytest.mark.parametrize("name", [".lock", *LINKS])
def test_a_link_in_a_run_folder_is_refused(tmp_path, name, resume):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    path = tmp_path / "run"
    path.mkdir()
    (path / name).symlink_to(outside)
    with pytest.raises(RunFolderError, match=f"holds '{name}', a symbolic link; put the file"):
        train(path, resume=resume)
    assert outside.read_text() == "precious"
    assert list(path.iterdir()) == [path / name]


def test_a_run_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    train(tmp_path / "run", max_epochs=0)
    train(tmp_path / "run", resume="must", max_epochs=1)
    assert (tmp_path / "disk" / "config.json").is_file()


def test_no_link_is_written_through(tmp_path):
    """Whoever looks for links may be too early to see one."""
    outside, link = tmp_path / "outside", tmp_path / "metrics.jsonl"
    outside.write_text("precious")
    link.symlink_to(outside)
    rows = Rows(link)
    for write in (lambda: locked(link), lambda: rows.start(keep=False), lambda: rows.append("x")):
        with pytest.raises(OSError, match="symbolic links"):
            write()
    (tmp_path / ".new.tmp").symlink_to(outside)
    replace(tmp_path / "new", lambda path: path.write_text("new"))
    assert (tmp_path / "new").read_text() == "new"
    assert not (tmp_path / "new").is_symlink()
    assert outside.read_text() == "precious"


def test_resume_needs_a_folder():
    with pytest.raises(ConfigError, match="need a run_dir"):
        train(None, resume="auto")
    with pytest.raises(ConfigError, match="'sometimes' is not one of 'never', 'auto', 'must'"):
        train("x", resume="sometimes")
    with pytest.raises(ConfigError, match="checkpoint_every=0 is out of range"):
        train("x", checkpoint_every=0)
    assert not Path("x").exists()


def test_metrics_that_were_changed_are_not_gone_on_with(tmp_path):
    train(tmp_path / "run", Writes(), max_epochs=2)
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:-1]))  # the row of epoch 2
    with pytest.warns(CheckpointWarning, match=r"checkpoint 2 is not used: metrics.jsonl does not"):
        result = train(tmp_path / "run", Writes(), resume="must", max_epochs=2)
    assert result.epoch == 2
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 0, 80, 80, 160]


def test_half_a_row_is_not_read(tmp_path):
    train(tmp_path / "run", max_epochs=1)
    whole = read_metrics(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step_type": "test/env')
    assert read_metrics(tmp_path / "run") == whole


def test_another_machine_is_told(tmp_path, monkeypatch):
    train(tmp_path / "run", max_epochs=1)
    monkeypatch.setenv("XLA_FLAGS", "--xla_other")
    with pytest.warns(CheckpointWarning, match=r"xla_flags '.*' -> '--xla_other'; from here on"):
        train(tmp_path / "run", max_epochs=2, resume="auto")


def test_two_runs_in_one_folder_are_refused(tmp_path):
    class Intrudes(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            train(tmp_path / "run", resume="auto")

    with pytest.raises(RunLockedError, match=rf"in use by process {os.getpid()} on "):
        train(tmp_path / "run", Intrudes())
    with pytest.raises(RunLockedError):
        train(tmp_path / "run", Intrudes(), resume="auto")  # free again, until it intrudes


def test_a_lock_is_gone_with_its_process(tmp_path):
    code = (
        "import os, signal, sys; from jaxrl_cb.run_files import locked; from pathlib import Path\n"
        "locked(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "run" / ".lock"
    path.parent.mkdir()
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.read_text().startswith("process ")
    train(tmp_path / "run")


# --- callbacks' states ---

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.builds(np.float32, st.floats(width=32, allow_nan=False))
    | st.builds(lambda x: np.array(x, np.int64), st.lists(st.integers(-9, 9), max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(lambda x: deque(x, 5))
        | st.sets(st.integers(), max_size=3)
        | st.frozensets(st.text(), max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.just("$tuple"), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one, other):
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@settings(max_examples=200, deadline=None, derandomize=True)
@given(VALUES)
def test_values_come_back_as_they_were(value):
    assert same(from_plain(json.loads(json.dumps(to_plain(value)))), value)


def test_numbers_that_are_not_finite_come_back():
    back = from_plain(json.loads(json.dumps(to_plain([float("nan"), float("-inf")]))))
    assert np.isnan(back[0])
    assert back[1] == float("-inf")


class Averages(EpochTrainCallback):
    """Keeps jax arrays, and calls what only they have."""

    def __init__(self):
        self.mean = jnp.zeros(3)
        self.rate = jnp.asarray(1e-3)  # of a weak type
        self.key = jax.random.PRNGKey(0)

    def callback(self, epoch, env_step, context):
        self.key, key = jax.random.split(self.key)
        self.mean = self.mean.at[0].add(jax.random.uniform(key)) * self.rate
        context.policy.set_learning_rate(float(self.mean[0]))


def test_a_callback_that_keeps_jax_arrays_goes_on_as_if_it_had_not_stopped(tmp_path):
    straight, first, second = Averages(), Averages(), Averages()
    train(tmp_path / "straight", straight, max_epochs=3)
    train(tmp_path / "run", first, max_epochs=1)
    train(tmp_path / "run", second, max_epochs=3, resume="must")
    for name, expected in vars(straight).items():
        value = getattr(second, name)
        assert isinstance(value, jax.Array)
        assert (value.dtype, value.weak_type) == (expected.dtype, expected.weak_type)
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "uint32", "float16", "float32"])
def test_jax_arrays_come_back_as_jax_arrays(dtype, compiles):
    value = jax.device_put(np.array([[0, 1, 3]], dtype))
    compiles()
    back = from_plain(json.loads(json.dumps(to_plain(value))))
    assert compiles() == 0
    assert isinstance(back, jax.Array)
    assert (back.dtype, back.weak_type, back.shape) == (value.dtype, False, (1, 3))
    np.testing.assert_array_equal(back, value)


@pytest.mark.parametrize("value", [2, 0.1])
def test_jax_numbers_of_a_weak_type_stay_weak(value):
    back = from_plain(json.loads(json.dumps(to_plain(jnp.asarray(value)))))
    assert (back.weak_type, back.shape, back) == (True, (), jnp.asarray(value))


def test_jax_arrays_that_could_not_come_back_exactly_are_refused():
    for value in (jnp.broadcast_to(jnp.asarray(2.0), (2,)), jax.random.key(0)):
        with pytest.raises(TypeError):
            to_plain(value)
    with pytest.raises(TypeError):
        to_plain(jnp.zeros(2, jnp.bfloat16))
    with pytest.raises(ValueError, match="jax_enable_x64"):
        from_plain({"$jax": ["float64", [1], [0.0], False]})


@pytest.mark.parametrize("value", [object(), {"a": [lambda: 0]}, np.array(["x"]), {1: Path("x")}])
def test_what_json_cannot_bring_back_is_refused(value):
    with pytest.raises(TypeError):
        to_plain(value)


@pytest.mark.parametrize("value", [{"$object": 1}, {"$array": ["O", [1], ["x"]]}, {"$tuple": 3}])
def test_what_was_never_written_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        from_plain(value)


class Uploads(EpochTrainCallback):
    """Keeps secrets one, two and three levels down."""

    def __init__(self, secret):
        self.options = {"api_key": secret, "url": "a", "login": {"password": secret, "user": "b"}}
        self.servers = [{"token": secret}, ({"secret": secret, 1: 2},)]
        self.last = deque([{"token": secret}], 3)
        self.by_name = OrderedDict(credentials=secret)
        self.num_calls = 0

    def callback(self, epoch, env_step, context):
        self.num_calls += 1
        self.options["url"] = f"a{self.num_calls}"


def test_entries_that_are_named_like_secrets_are_in_no_file(tmp_path):
    with pytest.warns(CheckpointWarning, match=r"Uploads\.by_name \(OrderedDict\)"):
        train(tmp_path / "run", Uploads("canary"), max_epochs=1)
    files = all_files(tmp_path / "run")
    assert len(files) > 10
    assert [file for file in files if b"canary" in file.read_bytes()] == []
    assert "url='a'" in str(Uploads("canary"))
    assert "canary" not in f"{Uploads('canary')} {[Uploads('canary')]}"


def test_entries_that_were_left_out_are_those_of_the_callback_that_goes_on(tmp_path):
    with pytest.warns(CheckpointWarning, match="by_name"):
        train(tmp_path / "run", Uploads("old"), max_epochs=2)
    uploads = Uploads("new")
    with pytest.warns(CheckpointWarning, match="by_name"):
        train(tmp_path / "run", uploads, resume="must", max_epochs=3)
    login = {"password": "new", "user": "b"}
    assert uploads.options == {"api_key": "new", "url": "a3", "login": login}
    assert uploads.servers == [{"token": "new"}, ({"secret": "new", 1: 2},)]
    assert uploads.last == deque([{"token": "new"}], 3)
    assert uploads.last.maxlen == 3
    assert uploads.num_calls == 3


class Counter:
    """Callable, with a state that no checkpoint has."""

    count = 0

    def __call__(self, *arguments):
        self.count += 1

    def method(self, epoch, env_step, context):
        self.count += 1


def told_at_the_start(tmp_path, callback):
    trainer = Trainer(made().learner, made().params, TrainerCallbacks(callback))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Checkpointer(tmp_path, trainer)
    return [str(warning.message) for warning in caught]


def test_attributes_that_are_left_out_are_told(tmp_path):
    class Holds(Remembers):
        def __init__(self):
            super().__init__()
            self.file = object()
            self.counter = Counter()
            self.method = self.counter.method
            self.partial = functools.partial(self.method, 1)
            self.draw = np.random.default_rng(0).random
            self.functions = [print, lambda: 0]
            # These have no state.
            self.function, self.kind, self.own = print, Counter, self.callback
            self.square, self.tanh = functools.partial(pow, exp=2), np.tanh
            self.jitted, self.relu = jax.jit(lambda x: x), jax.nn.relu

    words = told_at_the_start(tmp_path, [Holds(), Holds()])
    left_out = {word.split()[0] for word in words}
    names = ("file", "counter", "method", "partial", "draw", "functions")
    assert left_out == {f"Holds.{name}" for name in names}
    assert len(words) == 6
    assert words[0].startswith("Holds.file (object) is not saved; give Holds a state_dict")


def test_the_state_of_an_object_whose_method_is_a_callback_is_told(tmp_path):
    def function(epoch, env_step, context):
        pass

    bound = Counter().method
    words = told_at_the_start(tmp_path, [function, bound, functools.partial(bound)])
    assert words[0].startswith("the state of the object whose method Counter.method is a callback")
    assert len(words) == 2


def test_an_attribute_that_comes_later_is_told_once_when_it_is_first_left_out(tmp_path):
    class Later(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            if epoch == 2:
                self.file = object()

    trainer = Trainer(made().learner, made().params, TrainerCallbacks(Later()))
    saver = Checkpointer(tmp_path / "checkpoints", trainer, every=1)
    told = []
    for record in trainer.epochs():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            saver.after_epoch(0.0)
        told += [(record.epoch, str(w.message).split(";")[0]) for w in caught]
    saver.finish()
    assert told == [(2, "Later.file (object) is not saved")]


class Draws(EpochTrainCallback):
    """Lets generators, of which one is made late, act on the run."""

    def __init__(self):
        self.old = np.random.Generator(np.random.PCG64DXSM([1, 2]))
        self.python = random.Random(3)
        self.drawn = []

    def callback(self, epoch, env_step, context):
        if not hasattr(self, "new"):
            self.new = np.random.default_rng(0)
        child = self.new.spawn(1)[0]
        drawn = [self.old.normal(), self.python.gauss(0, 1), self.new.random(), child.random()]
        self.drawn.append(drawn)
        context.policy.set_eps_training(drawn[2])


def test_generators_go_on_as_if_they_had_not_stopped(tmp_path):
    straight, second = Draws(), Draws()
    train(tmp_path / "straight", straight, max_epochs=4)
    train(tmp_path / "run", Draws(), max_epochs=1)
    train(tmp_path / "run", second, max_epochs=4, resume="must")
    assert second.drawn == straight.drawn
    assert len({tuple(drawn) for drawn in straight.drawn}) == 4


def test_generators_that_could_not_come_back_exactly_are_refused():
    for bits in (np.random.MT19937(0), np.random.Philox(0), np.random.SFC64(0)):
        with pytest.raises(TypeError, match="a Generator of"):
            to_plain(np.random.Generator(bits))
    sequence = np.random.SeedSequence(0, pool_size=8)
    with pytest.raises(TypeError, match="a pool"):
        to_plain(np.random.default_rng(sequence))
    for name in ("MT19937", "SeedSequence", "__class__"):
        content = to_plain(np.random.default_rng(0))["$generator"]
        with pytest.raises(LookupError):
            from_plain({"$generator": [name, *content[1:]]})


def test_a_state_dict_that_cannot_be_kept_is_refused_by_name(tmp_path):
    class Odd(Remembers):
        def state_dict(self):
            return {"x": object()}

    with pytest.raises(CallbackTypeError, match=r"Odd\.state_dict\(\) holds a object"):
        train(tmp_path / "run", Odd())
    assert not (tmp_path / "run").exists()


def test_a_state_dict_that_is_no_dict_is_refused_by_name(tmp_path):
    class Odd(Remembers):
        def state_dict(self):
            return self.mean

    with pytest.raises(CallbackTypeError, match=r"Odd\.state_dict\(\) returned .*0.1.*; return a"):
        train(tmp_path / "run", Odd())


def test_the_estimate_of_memory_has_the_copy_that_is_saved(tmp_path):
    trainer = made()
    alone = trainer.memory_estimate().total
    Checkpointer(tmp_path, trainer)
    assert trainer.memory_estimate().total == 2 * alone


# --- manifest ---


def test_a_digest_is_that_of_the_bytes():
    # printf '\x01\x00\x02\x00' | sha256sum
    manifest = sealed({"a": np.array([1, 2], np.int16)}, {})
    entry = manifest["body"]["arrays"]["a"]
    assert entry == {
        "sha256": "7b11c1133330cd161071bf23a0c9b6ce5320a8f3a0f83620035a72be46df4104",
        "shape": [2],
        "dtype": "int16",
    }


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ([2**40], "int16", "has 4 bytes, not 2199023255552, in 0.bin"),
        ([2**62, 2**62], "int16", "in 0.bin"),
        ([-1, -2], "int16", r"cannot have the shape \[-1, -2\] and the dtype 'int16'"),
        ([2.0], "int16", "cannot have the shape"),
        ([True, 2], "int16", "cannot have the shape"),
        ("2", "int16", "cannot have the shape"),
        (None, "int16", "cannot have the shape"),
        ([0, 2**70], "int16", "has 4 bytes, not 0, in 0.bin"),
        ([1], "object", "cannot have the shape"),
        ([2], "i2", "cannot have the shape"),
        ([2], "int15", "cannot be read"),
        ([2], ["int16"], "cannot"),
    ],
)
def test_no_more_is_allocated_than_a_file_has(tmp_path, monkeypatch, shape, dtype, words):
    store = CheckpointStore(tmp_path / "c")
    store.write(1, {"a": np.array([1, 2], np.int16)}, {}, 0.0)
    store.close()
    table = store.read_manifest(1)["arrays"]
    table["a"] |= {"shape": shape, "dtype": dtype}
    monkeypatch.setattr(np, "empty", lambda *args: pytest.fail(f"allocates {args}"))
    with pytest.raises(CheckpointCorruptError, match=words):
        store.read_arrays(1, table)
