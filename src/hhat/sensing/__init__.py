"""Sensing with a communication array: angle-delay maps of echoes, detection, gain-phase calibration."""

from hhat.sensing.angle_delay import Found, angle_delay_map, refine, search
from hhat.sensing.detector import Detections, detect, integrated
from hhat.sensing.echoes import Echoes, EchoTruth, aligned, compress, noise_level
from hhat.sensing.scores import gospa, target_errors
from hhat.sensing.threshold import closed_form_threshold, detection_probability, empirical_threshold, snr_of

__all__ = [
    "Detections",
    "EchoTruth",
    "Echoes",
    "Found",
    "aligned",
    "angle_delay_map",
    "closed_form_threshold",
    "compress",
    "detect",
    "detection_probability",
    "empirical_threshold",
    "gospa",
    "integrated",
    "noise_level",
    "refine",
    "search",
    "snr_of",
    "target_errors",
]
