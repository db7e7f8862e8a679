"""Replay on the device."""

from jaxrl_cb.buffers.ring import ReplayRing

__all__ = ["ReplayRing"]
