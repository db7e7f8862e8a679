"""When a run is saved, and how it is taken up again."""

import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxrl_cb.checks import check_choice, check_int
from jaxrl_cb.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointWarning,
    shown,
)
from jaxrl_cb.trainer.checkpoint_store import CheckpointStore
from jaxrl_cb.trainer.manifest import check_expected
from jaxrl_cb.trainer.snapshot import Snapshot, expected_state, from_stored, shapes_of
from jaxrl_cb.trainer.trainer import Trainer

RESUME = ("never", "auto", "must")
SECONDS = 10.0
"""Between two saves at least, where no number of epochs is given."""
SHARE = 0.02
"""Of the time that saves may take, where no number of epochs is given."""
LONG_EPOCH = 5.0
"""Seconds; a signal drops an epoch if the one before took longer, so that one is saved at once."""


class Checkpointer:
    """Saves a trainer at the ends of epochs, in the background, and brings it back.

    A run that is killed and resumed is bit for bit the run that was not. What is resumed at the
    end of epoch n does epoch n + 1 again, its callbacks included, from the same state.

    Attributes:
        store: the checkpoints.
        every: epochs from one save to the next; None saves when `SECONDS` have passed since the
            last, or the epoch took longer than `LONG_EPOCH`; of a state that takes long to save,
            only when so much time has passed that the last save was a `SHARE` of it.
        facts: gives what else belongs to a checkpoint, as JSON, at the time of a save.
        on_saved: called with each snapshot in the background, before its checkpoint is written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        trainer: Trainer,
        every: int | None = None,
        facts: Callable[[], dict[str, Any]] = dict,
        on_saved: Callable[[Snapshot], None] | None = None,
    ):
        """Raises CallbackTypeError if a callback's state cannot be saved."""
        if every is not None:
            check_int("checkpoint_every", every, 1)
        self.store = CheckpointStore(path)
        self.every = every
        self.facts = facts
        self.on_saved = on_saved
        self._trainer = trainer
        trainer.num_copies = 1  # see `save`
        self._saved_at = time.monotonic()
        self._saved_epoch: int | None = None
        self._cost = 0.0  # seconds of the last save
        self._snapshot: Snapshot | None = None
        self._job: _Job | None = None
        for attribute in trainer.check_saveable():
            warnings.warn(attribute, CheckpointWarning, stacklevel=2)

    def restore(
        self, resume: str = "must", accept: Callable[[dict[str, Any]], None] | None = None
    ) -> bool:
        """Puts the trainer where the newest good checkpoint left it.

        Of those that are not good a warning says why. They are moved to ``rejected``, but only when
        an older one has been restored, or the run starts anew.

        Args:
            resume: "must", or "auto", which leaves the trainer as it is if there is none.
            accept: given the facts of a checkpoint, raises CheckpointCorruptError to go on to an
                older one, or another error to refuse.

        Returns:
            Whether there was one.

        Raises:
            CheckpointNotFoundError: there is none, and there must be.
            CheckpointCorruptError: there is no good one, and there must be.
            CheckpointMismatchError: the newest is of another run.
            CheckpointVersionError: the newest was written by a later version.
            CheckpointError: the newest may not be read, or memory does not suffice.
        """
        check_choice("resume", resume, RESUME[1:])
        steps, bad = self.store.steps(), dict[int, CheckpointCorruptError]()
        for step in steps:
            try:
                self._restore(step, accept)
            except CheckpointCorruptError as error:
                bad[step] = error
            except CheckpointError as error:
                raise type(error)(
                    f"checkpoint {step} in {str(self.store.path)!r}: {error}"
                ) from error
            else:
                break
        is_restored = len(bad) < len(steps)
        for step, error in bad.items():
            words = f"checkpoint {step} is not used: {error}"
            if is_restored or resume == "auto":
                moved = self.store.reject(step)
                words = f"{words}; it is now {str(moved)!r}"
            warnings.warn(words, CheckpointWarning, stacklevel=2)
        if resume == "must" and not is_restored:
            raise _none_good(steps, self.store)
        return is_restored

    def _restore(self, step: int, accept: Callable[[dict[str, Any]], None] | None) -> None:
        self._trainer.restore(self._read(step, accept))
        self._saved_epoch, self._saved_at = step, time.monotonic()

    def _read(self, step: int, accept: Callable[[dict[str, Any]], None] | None) -> Snapshot:
        """All of a checkpoint that the trainer will use; nothing is changed by it yet."""
        trainer = self._trainer
        try:
            body = self.store.read_manifest(step)
            if accept:
                accept(body["facts"])
            num_running = len(body["run"]["best"]) - len(body["run"]["ended"])
            expected = expected_state(trainer.learner, trainer.params, num_running)
            check_expected(body["arrays"], shapes_of(expected))
            arrays = self.store.read_arrays(step, body["arrays"])
            return from_stored(arrays, body["run"], expected)
        except (CheckpointError, MemoryError, Warning):  # a warning may have been made an error
            raise
        except Exception as error:  # whatever is in a file, it is no more than a bad checkpoint
            raise CheckpointCorruptError(
                f"its content is not that of a run: {shown(error, 200)}"
            ) from error

    @property
    def is_current(self) -> bool:
        """Whether nothing but the running epoch would be lost now: the last is saved, or is being.

        What precedes the first epoch counts as nothing.
        """
        if self._job and self._job.has_failed:
            return False
        history = self._trainer.progress.history
        epoch = history[-1].epoch if history else 0
        return epoch in (0, self._saved_epoch)

    @property
    def newest(self) -> str:
        """In words, which checkpoint is the newest."""
        if self._saved_epoch is None:
            return "no checkpoint had been written"
        return f"the newest checkpoint is of epoch {self._saved_epoch}, before this"

    def after_epoch(self, seconds: float) -> None:
        """Saves if it is time to.

        Args:
            seconds: that the epoch took.

        Raises:
            CheckpointWriteError: the save before this one failed.
        """
        if self._job and self._job.is_done:
            self.wait()
        if self._trainer.progress.epoch == self._saved_epoch:  # callbacks dropped all seeds since
            return
        if self.every is None:
            passed = time.monotonic() - self._saved_at
            is_due = passed >= SECONDS or seconds > LONG_EPOCH
            if is_due and passed >= self._cost / SHARE and not self._job:
                self.save()
        elif (epoch := self._trainer.progress.epoch) and epoch % self.every == 0:
            self.save()

    def save(self) -> None:
        """Saves the trainer as it is now; it may go on while the checkpoint is written.

        Raises:
            CheckpointWriteError: the save before this one failed.
            JaxrlError: the trainer is not between two epochs.
        """
        self.wait()
        self._snapshot = self._save(self._snapshot)

    def _save(self, into: Snapshot | None = None, *, copy: bool = True) -> Snapshot:
        """Begins to write a snapshot, see `Trainer.snapshot`."""
        started = time.monotonic()
        snapshot, facts = self._trainer.snapshot(into, copy=copy), self.facts()
        self._saved_at, self._saved_epoch = time.monotonic(), snapshot.progress.epoch

        def write() -> None:
            self._write(snapshot, facts)
            self._cost = time.monotonic() - started

        self._job = _Job(write)
        return snapshot

    def _write(self, snapshot: Snapshot, facts: Mapping[str, Any]) -> None:
        if self.on_saved:
            self.on_saved(snapshot)
        means = snapshot.progress.history[-1].mean
        score = float(np.max(means, initial=-math.inf, where=np.isfinite(means)))
        content = {"run": snapshot.to_json(), "facts": facts}
        self.store.write(snapshot.progress.epoch, snapshot.to_arrays(), content, score)

    def wait(self) -> None:
        """Waits for the save in the background.

        Raises:
            CheckpointWriteError: it failed.
        """
        job, self._job = self._job, None
        if job:
            try:
                job.result()
            except BaseException:
                self._saved_epoch = None
                raise

    def finish(self) -> None:
        """Saves the trainer if it has moved since the last save, and waits.

        Where something raised in an epoch nothing is saved, so that it is done again from before.

        Raises:
            CheckpointWriteError: this save or the one before failed.
        """
        self.wait()
        trainer = self._trainer
        if trainer.is_between_epochs and trainer.progress.epoch != self._saved_epoch:
            self._save(copy=False)  # it does not go on before that is written
        self.wait()
        self.store.close()


class _Job:
    """A function running in a thread that does not keep the process alive."""

    def __init__(self, function: Callable[[], None]):
        self._error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    @property
    def has_failed(self) -> bool:
        return self._error is not None

    def result(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:
            self._error = error


def _none_good(steps: list[int], store: CheckpointStore) -> CheckpointError:
    if steps:
        return CheckpointCorruptError(
            f"none of the checkpoints in {str(store.path)!r} is good; resume='auto' starts anew"
        )
    return CheckpointNotFoundError(
        f"there is no checkpoint in {str(store.path)!r}; resume='auto' starts anew"
    )
