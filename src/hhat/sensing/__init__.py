"""Sensing with a communication array: angle-delay maps of echoes, detection, gain-phase calibration."""
