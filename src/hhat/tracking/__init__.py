"""Estimates that follow the channel from slot to slot: what is known of its change in time."""

from hhat.tracking.autoregressive import AutoregressiveTracking
from hhat.tracking.dynamics import Belief, Counts, MarkovGauss, Prediction, Seen
from hhat.tracking.sparse import SparseTracking

__all__ = ["AutoregressiveTracking", "Belief", "Counts", "MarkovGauss", "Prediction", "Seen", "SparseTracking"]
