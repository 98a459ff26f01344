"""Estimators: they see y and the operator, never the truth."""

from hhat.methods.base import Method
from hhat.methods.solve import solve, track
from hhat.methods.state import load_state, save_state

__all__ = ["Method", "load_state", "save_state", "solve", "track"]
