"""What the figures on gain-phase calibration share."""

PAPER = "Mateos-Ramos et al. 2025"
WAITS_FOR = "the echo scenario, the detector and the gain-phase calibration"
