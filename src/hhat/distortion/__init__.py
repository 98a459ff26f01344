"""Channels seen through receivers that distort: records, inference through a model of the distortion, trackers."""

from hhat.distortion.record import DistortedPilots, ImpairedTruth

__all__ = ["DistortedPilots", "ImpairedTruth"]
