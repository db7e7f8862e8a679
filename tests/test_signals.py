"""Ctrl-C and SIGTERM: what is finished, what is saved, what the process exits with."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny

import jaxrl_cb
from jaxrl_cb import signals
from jaxrl_cb.errors import CheckpointWriteError
from jaxrl_cb.signals import Interrupted, SignalGuard, Terminated
from jaxrl_cb.trainer import EpochTrainCallback, TrainerCallbacks, checkpointer
from jaxrl_cb.trainer.checkpoint_store import CheckpointStore

INT, TERM = signal.SIGINT, signal.SIGTERM


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [INT, TERM])
def test_a_signal_is_noted_and_nothing_raised(number):
    with SignalGuard(lambda: True) as guard:
        assert guard.received is None
        guard.epoch_ended(0.1)
        send(number)
        assert guard.received is number


@pytest.mark.parametrize(("number", "error"), [(INT, Interrupted), (TERM, Terminated)])
def test_an_epoch_is_dropped_if_the_last_was_long(number, error):
    with SignalGuard(lambda: True) as guard:
        guard.epoch_ended(5.1)
        with pytest.raises(error) as caught, guard.epoch():
            send(number)
        assert caught.value.is_dropped
        assert not guard.is_at_once
    with SignalGuard(lambda: True) as guard:
        guard.epoch_ended(5.1)
        send(number)  # between epochs, where it would cut a save short
        assert guard.received is number
    with SignalGuard(lambda: False) as guard, guard.epoch():
        guard.epoch_ended(5.1)
        send(number)


def test_exit_codes():
    with SignalGuard(lambda: True) as guard:
        send(TERM)
        assert guard.error("words").code == 143
        assert guard.error("words").message == "words"
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_a_second_ctrl_c_raises_at_once():
    with SignalGuard(lambda: False) as guard:
        send(TERM)
        send(TERM)  # asked again, no more
        with pytest.raises(KeyboardInterrupt):
            send(INT)
    with SignalGuard(lambda: False) as guard:
        send(INT)
        assert guard.received is INT
        with pytest.raises(KeyboardInterrupt):
            send(INT)
        assert guard.is_at_once


def test_a_first_epoch_that_goes_on_is_dropped(monkeypatch):
    monkeypatch.setattr(signals, "LONG_EPOCH", 0.2)
    with SignalGuard(lambda: True) as guard:
        send(TERM)
        with pytest.raises(Terminated), guard.epoch():
            time.sleep(5)
    with SignalGuard(lambda: True) as guard:
        send(TERM)
        guard.epoch_ended(0.1)  # it ended in time
        time.sleep(0.4)
        assert guard.received is TERM


def test_ctrl_c_after_the_first_was_too_late_still_ends_at_once(monkeypatch):
    monkeypatch.setattr(signals, "LONG_EPOCH", 0.1)
    with SignalGuard(lambda: True) as guard:
        send(INT)  # between epochs: the timer finds nothing to drop
        time.sleep(0.3)
        with pytest.raises(KeyboardInterrupt):
            send(INT)
        assert guard.is_at_once


def test_handlers_are_put_back_and_ignored_signals_stay_ignored():
    before = signal.getsignal(INT)
    previous = signal.signal(TERM, signal.SIG_IGN)
    try:
        with SignalGuard(lambda: True) as guard:
            assert signal.getsignal(INT) != before
            send(TERM)
            assert guard.received is None
        assert signal.getsignal(INT) == before
        assert signal.getsignal(TERM) is signal.SIG_IGN
    finally:
        signal.signal(TERM, previous)


def test_handlers_are_put_back_after_an_error():
    before = [signal.getsignal(number) for number in (INT, TERM)]
    with pytest.raises(ZeroDivisionError), SignalGuard(lambda: True):
        1 / 0  # noqa: B018
    assert [signal.getsignal(number) for number in (INT, TERM)] == before


def test_off_the_main_thread_signals_are_left_alone():
    before, seen = signal.getsignal(INT), []

    def enter():
        with SignalGuard(lambda: True):
            seen.append(signal.getsignal(INT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


# --- train ---

TINY = tiny.TINY | tiny.SHORT | {"max_epochs": 5}


class Sends(EpochTrainCallback):
    """Sends a signal to its own process at the start of an epoch."""

    def __init__(self, number, epoch, times=1):
        self.number, self.epoch, self.times = int(number), epoch, times

    def callback(self, epoch, env_step, context):
        if epoch == self.epoch:
            for _ in range(self.times):
                send(self.number)

    def state_dict(self):
        return {}

    def _tostring_excludes(self):
        return ["number", "epoch", "times"]


def train(path, callback, **changes):
    callbacks = TrainerCallbacks(callback)
    return jaxrl_cb.train("CartPole-v1", callbacks=callbacks, run_dir=path, **(TINY | changes))


def newest(run_dir):
    return CheckpointStore(run_dir / "checkpoints").steps()[0]


@pytest.mark.parametrize(("number", "error"), [(INT, KeyboardInterrupt), (TERM, SystemExit)])
def test_the_epoch_is_finished_and_saved_and_the_run_can_go_on(tmp_path, number, error):
    before = signal.getsignal(number)
    with pytest.raises(error, match="143" if number is TERM else "resume"):
        train(tmp_path / "run", Sends(number, 2))
    assert signal.getsignal(number) == before
    assert newest(tmp_path / "run") == 2
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [0, 80, 160]
    result = train(tmp_path / "run", Sends(number, None), resume="must")
    straight = train(tmp_path / "straight", Sends(number, None))
    assert [r.mean.tolist() for r in result.history] == [r.mean.tolist() for r in straight.history]


def test_a_second_ctrl_c_saves_nothing_more(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", Sends(INT, 2, times=2))
    assert not list((tmp_path / "run").glob("checkpoints/2"))


class Slow(EpochTrainCallback):
    """Makes epoch 2 long, and waits for a signal in epoch 3."""

    def callback(self, epoch, env_step, context):
        if epoch == 2:
            time.sleep(0.4)
        if epoch == 3:
            timer = threading.Timer(0.1, send, [TERM])
            timer.start()
            time.sleep(60)


def test_a_long_epoch_is_dropped_and_the_one_before_it_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "LONG_EPOCH", 0.3)
    monkeypatch.setattr(checkpointer, "LONG_EPOCH", 0.3)
    with pytest.raises(SystemExit, match="143"):
        train(tmp_path / "run", Slow())
    assert newest(tmp_path / "run") == 2
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["epoch"] == 2
    assert jaxrl_cb.load_policy(tmp_path / "run", "last").num_seeds == 1


class Long(EpochTrainCallback):
    """Makes every epoch long, and gets a signal in the midst of one of them."""

    def __init__(self, epoch):
        self.epoch = epoch

    def callback(self, epoch, env_step, context):
        if epoch == self.epoch:
            threading.Timer(0.1, send, [TERM]).start()
        time.sleep(0.6)

    def state_dict(self):
        return {}

    def _tostring_excludes(self):
        return ["epoch"]


@pytest.fixture
def short_is_long(monkeypatch):
    """Epochs of more than 0.3 s are long."""
    monkeypatch.setattr(signals, "LONG_EPOCH", 0.3)
    monkeypatch.setattr(checkpointer, "LONG_EPOCH", 0.3)


def message_of(run_dir, callback, **changes):
    with pytest.raises(SystemExit) as error:
        train(run_dir, callback, **changes)
    return error.value.message


@pytest.mark.usefixtures("short_is_long")
@pytest.mark.filterwarnings("ignore:an epoch takes")
def test_a_long_epoch_is_finished_where_the_one_before_it_is_not_saved(tmp_path):
    message = message_of(tmp_path / "run", Long(3), checkpoint_every=100)
    assert "up to epoch 3;" in message
    assert newest(tmp_path / "run") == 3


@pytest.mark.usefixtures("short_is_long")
@pytest.mark.filterwarnings("ignore:an epoch takes")
def test_a_long_epoch_is_finished_where_saves_take_long_too(tmp_path, monkeypatch):
    write = checkpointer.Checkpointer._write

    def slow(self, *arguments):
        time.sleep(0.2)  # the next save by default is 10 s later
        write(self, *arguments)

    monkeypatch.setattr(checkpointer.Checkpointer, "_write", slow)
    message = message_of(tmp_path / "run", Long(4))
    assert "up to epoch 4;" in message
    assert newest(tmp_path / "run") == 4


@pytest.mark.usefixtures("short_is_long")
def test_a_first_epoch_that_is_dropped_is_said_to_have_saved_nothing(tmp_path):
    message = message_of(tmp_path / "run", Long(1))
    assert message.startswith("nothing was saved yet in ")
    assert message.endswith("starts anew")
    assert not CheckpointStore(tmp_path / "run" / "checkpoints").steps()
    assert train(tmp_path / "run", Long(None), resume="auto", max_epochs=1).epoch == 1


def no_room(self, *arguments):
    raise OSError("no more room")


@pytest.mark.usefixtures("short_is_long")
@pytest.mark.filterwarnings("ignore:an epoch takes")
def test_an_epoch_is_finished_where_the_save_before_it_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointStore, "_write", no_room)
    with pytest.raises(CheckpointWriteError, match="no more room"):
        train(tmp_path / "run", Long(2))


def test_a_failed_save_is_noted_on_what_a_callback_raises(tmp_path, monkeypatch):
    class Raises(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            if epoch == 2:
                raise KeyError("mine")

    monkeypatch.setattr(CheckpointStore, "_write", no_room)
    with pytest.raises(KeyError, match="mine") as error:
        train(tmp_path / "run", Raises(), checkpoint_every=1)
    assert any("no more room" in note for note in error.value.__notes__)


# --- the command line, in a process of its own ---


def start(run_dir, *flags):
    code = "from jaxrl_cb.cli import main; main()"
    arguments = ["train", "CartPole-v1", "--run-dir", str(run_dir), "--stop-at", "never", *flags]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )


def wait_for(process, words):
    """Reads until a line has these words."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return
    raise AssertionError("".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (INT, 130)])
def test_the_command_line_exits_with_the_signals_code(tmp_path, number, code):
    process = start(tmp_path / "run", "--max-epochs", "100000", "--epoch-num-steps", "1600")
    wait_for(process, "epoch 2:")
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert "jaxrl-cb resume" in output.splitlines()[-1]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["epoch"] == newest(tmp_path / "run") >= 2


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_command_line_in_a_long_epoch(tmp_path):
    """Of an epoch of some minutes; the first is waiting for it to end."""
    process = start(tmp_path / "run", "--epoch-num-steps", "10000000")
    wait_for(process, "epoch 0:")
    time.sleep(1)
    process.send_signal(INT)
    time.sleep(0.5)
    assert process.poll() is None
    started = time.monotonic()
    process.send_signal(INT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert time.monotonic() - started < 30
    assert "Traceback" not in output
