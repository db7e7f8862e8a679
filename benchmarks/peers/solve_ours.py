"""This library's DQN with its preset, for `time_to_solve.py`.

It stops at a test of the threshold that as many episodes on fresh keys confirm, or, where the work
has "train_on", goes on to so many environment steps. Its tests and confirmations count.
"""

from solving import begin, report


class Tests:
    """A logger that keeps seconds, environment steps and the mean return of each test."""

    def __init__(self, clock):
        self._clock, self.rows = clock, []

    def write(self, step_type, step, data):
        """Keeps the test."""
        self.rows.append((self._clock.seconds(), step, data["test/return_mean"]))


def main():
    """Trains once."""
    work, clock, out = begin()
    import jaxrl_cb
    from jaxrl_cb.envs import make
    from jaxrl_cb.presets import PRESETS
    from jaxrl_cb.trainer import EpochStopCallbackConfirmedRewardThreshold, TrainerCallbacks

    make("CartPole-v1")  # imports gymnax
    imported = clock.seconds()
    settings, callbacks = {}, TrainerCallbacks()
    if work["train_on"]:
        epoch = PRESETS["CartPole-v1", "dqn"]["epoch_num_steps"]
        settings["max_epochs"] = -(-work["train_on"] // epoch)
    else:
        stop = EpochStopCallbackConfirmedRewardThreshold()
        callbacks = TrainerCallbacks(epoch_stop_callback=stop)
    tests = Tests(clock)
    result = jaxrl_cb.train(
        "CartPole-v1",
        seed=work["seed"],
        callbacks=callbacks,
        logger=tests,
        verbose=False,
        **settings,
    )
    total = clock.seconds()
    rows = tests.rows
    if not work["train_on"]:  # it is solved when the confirmation has been played
        rows[-1] = (total, result.env_step, result.best_score if result.stopped else 0.0)
    report(
        *(out, *map(list, zip(*rows, strict=True)), "jaxrl-cb", "jax", "gymnax"),
        **{"import": imported, "compile": result.seconds["compile"], "total": total},
    )


if __name__ == "__main__":
    main()
