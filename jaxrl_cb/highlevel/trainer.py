"""`jaxrl_cb.trainer` under the name of ``tianshou.highlevel.trainer``."""

from jaxrl_cb.trainer import *  # noqa: F403
from jaxrl_cb.trainer import __all__  # noqa: F401
