"""Environments behind one interface; `make` accepts all that a user may have."""

from jaxrl_cb.envs.environment import Environment, EnvSpec, functional
from jaxrl_cb.envs.make import make

__all__ = ["EnvSpec", "Environment", "functional", "make"]
