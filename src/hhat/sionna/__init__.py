"""hhat inside Sionna's OFDM links: `ChannelEstimator` stands where `LSChannelEstimator` does."""

from hhat.sionna.estimator import ChannelEstimator

__all__ = ["ChannelEstimator"]
