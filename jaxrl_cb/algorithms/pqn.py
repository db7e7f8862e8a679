"""PQN."""

import dataclasses

from jaxrl_cb.algorithms.base import ActionValues


@dataclasses.dataclass(frozen=True)
class PQN(ActionValues):
    """Q-learning without replay and target network, which LayerNorm keeps steady.

    (Gallici et al. 2024, algorithm 1.) Its targets [], Q(lambda) returns, are made by the
    learner, see `jaxrl_cb.ops.returns.lambda_returns`.

    Attributes:
        network: gives [A] action values.
        loss_name: "squared" or "huber" (threshold 1).
    """

    loss_name: str = "squared"
