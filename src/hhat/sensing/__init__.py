"""Sensing with a communication array: angle-delay maps of echoes, detection, gain-phase calibration."""

from hhat.sensing.angle_delay import Found, angle_delay_map, refine, search
from hhat.sensing.echoes import Echoes, EchoTruth, aligned, compress, noise_level

__all__ = ["EchoTruth", "Echoes", "Found", "aligned", "angle_delay_map", "compress", "noise_level", "refine", "search"]
