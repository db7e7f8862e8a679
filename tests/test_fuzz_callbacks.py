"""Callbacks that do anything at any time: the folder they leave always resumes, and exactly."""

import json
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import tiny
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import jaxrl_cb
from jaxrl_cb.trainer import (
    EpochStopCallback,
    EpochTestCallback,
    EpochTrainCallback,
    TrainerCallbacks,
)

TINY = tiny.TINY | tiny.SHORT | {"max_epochs": 4}
HARMLESS = ["nothing", "eps", "learning_rate", "evaluate", "log", "state"]
HARMFUL = ["raise", "interrupt", "eps of 2", "eps of NaN", "eps of text", "bad state", "run again"]


def act(name, callback, context):
    """Does one of the things that callbacks do, or should not."""
    policy, count = context.policy, len(callback.done)
    callback.done = (*callback.done, name)
    if name == "eps":
        policy.set_eps_training(1 / (1 + count))
    elif name == "learning_rate":
        policy.set_learning_rate(np.float32(1e-3) / (1 + count))
    elif name == "evaluate":
        callback.done = (*callback.done, float(np.sum(context.evaluate(4))))
    elif name == "log":
        context.logger.write("train/env_step", context.env_step, {"count": count})
    elif name == "state":
        hyperparams = context.state.hyperparams
        gamma = np.asarray(hyperparams.gamma) * np.float32(0.99)
        context.state = context.state.replace(hyperparams=hyperparams.replace(gamma=gamma))
    elif name == "raise":
        raise ZeroDivisionError("mine")
    elif name == "interrupt":
        raise KeyboardInterrupt
    elif name.startswith("eps of"):
        value = {"2": 2.0, "NaN": float("nan"), "text": "0.5"}[name.split()[-1]]
        policy.set_eps_training(value)
    elif name == "bad state":
        context.state = context.state.replace(key=None)
    elif name == "run again":
        callback.trainer.run()


class Acts:
    """Acts by a plan: at an epoch, a name of `HARMLESS` or `HARMFUL`; the latter only if wild."""

    def __init__(self, plan, *, wild):
        self.plan, self.wild, self.done = plan, wild, ()

    def act(self, epoch, context):
        name = self.plan.get(epoch, "nothing")
        act(name if self.wild or name in HARMLESS else "nothing", self, context)

    def state_dict(self):
        return {"done": self.done}

    def _tostring_excludes(self):
        return ["plan", "wild", "trainer"]


class TrainActs(Acts, EpochTrainCallback):
    def callback(self, epoch, env_step, context):
        self.act(epoch, context)


class TestActs(Acts, EpochTestCallback):
    __test__ = False

    def callback(self, epoch, env_step, context):
        self.act(epoch, context)


class StopActs(Acts, EpochStopCallback):
    """Its plan may say "stop" and what is no answer, too."""

    def should_stop(self, mean_rewards, context):
        name = self.plan.get(context.epoch, "nothing")
        if name == "stop":
            return np.bool_(context.seed == 0)
        if name == "no answer" and self.wild:
            return None
        self.act(context.epoch, context)
        return False


def plans(*more):
    names = st.sampled_from([*HARMLESS, *HARMFUL, *more])
    return st.dictionaries(st.integers(0, 4), names, max_size=3)


def run(path, plan, *, wild, **options):
    kinds = zip((TrainActs, TestActs, StopActs), plan, strict=True)
    callbacks = TrainerCallbacks(*[kind(own, wild=wild) for kind, own in kinds])

    def on_start(trainer):
        for own in trainer.callbacks.lists():
            own[0].trainer = trainer

    return jaxrl_cb.train(
        "CartPole-v1", run_dir=path, callbacks=callbacks, on_start=on_start, **(TINY | options)
    )


def fingerprint(path):
    newest = max(int(p.name) for p in (path / "checkpoints").iterdir() if p.name.isdigit())
    text = (path / "checkpoints" / str(newest) / "manifest" / "metadata").read_text()
    body = json.loads(text)["body"]
    arrays = {n: e["sha256"] for n, e in body["arrays"].items() if not n.endswith("_seconds")}
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows = [{n: v for n, v in row.items() if not n.startswith("time/")} for row in rows]
    return arrays, {n: v for n, v in body["run"].items() if n != "seconds"}, rows


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # an example is a run of some tenths of a second
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    st.tuples(plans(), plans(), plans("stop", "no answer")),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, None]),
)
def test_whatever_callbacks_do_the_folder_resumes_exactly(plan, num_seeds, every):
    folder = Path(tempfile.mkdtemp())
    options = {"num_seeds": num_seeds, "checkpoint_every": every}
    try:
        run(folder / "straight", plan, wild=False, **options)
        for _ in range(3):  # each time it gets no further than it did, but may not do harm
            try:
                run(folder / "wild", plan, wild=True, resume="auto", **options)
            except BaseException:
                continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(folder / "wild", plan, wild=False, resume="auto", **options)
        assert fingerprint(folder / "wild") == fingerprint(folder / "straight")
    finally:
        shutil.rmtree(folder)
