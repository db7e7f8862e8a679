"""Replay on the device."""

from jaxrl_cb.buffers.prioritized import PrioritizedRing
from jaxrl_cb.buffers.ring import Draw, ReplayRing, Surprises

__all__ = ["Draw", "PrioritizedRing", "ReplayRing", "Surprises"]
