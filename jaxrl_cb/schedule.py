"""What follows from the settings, in words: printed before a run starts."""

from typing import Any

import jax
from rich.filesize import decimal

from jaxrl_cb.learners import Learner, OnlineLearner
from jaxrl_cb.trainer.memory import MemoryEstimate, estimate, in_words
from jaxrl_cb.trainer.params import TrainerParams
from jaxrl_cb.trainer.programs import state_shapes


def describe(learner: Learner, params: TrainerParams) -> str:
    """The schedule of a run, a few lines of text."""
    total, epoch = params.total_env_steps, params.epoch_num_steps
    exploration = learner.exploration
    lines = [
        f"{learner.environment.spec.id}: up to {params.max_epochs} epochs of {epoch:,} environment "
        f"steps, {total:,} in all, {learner.num_envs} environments"
        + (f", {params.num_seeds} seeds" if params.num_seeds > 1 else ""),
        *(_online(learner) if isinstance(learner, OnlineLearner) else _replay(learner, epoch)),
        f"epsilon: {exploration.epsilon_start:g} to {exploration.epsilon_final:g} over "
        f"{exploration.decay_steps(total):,} environment steps, {exploration.epsilon_test:g} in "
        "tests, unless a callback sets it"
        + (f"; a ladder of {exploration.epsilon_ladder:g}" if exploration.epsilon_ladder else ""),
        _memory(estimate(learner, params), params.num_seeds),
        f"test: {params.num_test_episodes} episodes after each epoch",
    ]
    return "\n".join(lines)


def _replay(learner: Any, epoch: int) -> list[str]:
    replay, target = learner.replay, learner.target
    updates, state = learner.num_updates(epoch // replay.num_envs), state_shapes(learner)
    target_words = "copied" if target.tau == 1 else f"moved by {target.tau:g}"
    return [
        f"learning: {updates:,} gradient steps of {replay.batch_size} per epoch, about "
        f"{float(replay.rate):g} per vector step; each transition is used "
        f"{replay.samples_per_insert:g} times; {_step_size(learner)}, gamma {target.gamma:g}, "
        f"{replay.n_step}-step returns",
        f"target network: {target_words} every {target.target_update_period:,} gradient steps",
        f"replay: {replay.buffer_size:,} transitions, {replay.start_timesteps:,} before training; "
        f"{_bytes(state.buffer)} of {_bytes(state)} per seed" + _priorities(replay),
    ]


def _priorities(replay: Any) -> str:
    if not replay.priority_alpha:
        return ""
    betas = f"{replay.priority_beta:g} to {replay.priority_beta_final:g}"
    return f"; drawn by priority, alpha {replay.priority_alpha:g}, beta {betas}"


def _online(learner: OnlineLearner) -> list[str]:
    online = learner.online
    size = learner.iteration_steps // online.num_minibatches
    return [
        f"learning: {learner.num_updates(1):,} gradient steps of {size:,} after every "
        f"{online.rollout_length} vector steps; each transition is used {online.update_epochs} "
        f"times; {_step_size(learner)}, gamma {learner.gamma:g}, lambda {online.td_lambda:g}",
    ]


def _step_size(learner: Learner) -> str:
    optimizer = learner.optimizer
    return f"learning rate {optimizer.learning_rate:.3g} ({optimizer.learning_rate_schedule})"


def _memory(memory: MemoryEstimate, num_seeds: int) -> str:
    words = f"memory: {in_words(memory.total)} for the state of {num_seeds} "
    words += "seed" if num_seeds == 1 else f"seeds, {in_words(memory.total // num_seeds)} each"
    if memory.available is None:
        return words
    fit = memory.available * num_seeds // memory.total
    return f"{words}; {in_words(memory.available)} available, enough for {fit:,} seeds"


def _bytes(tree) -> str:
    return decimal(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)))
