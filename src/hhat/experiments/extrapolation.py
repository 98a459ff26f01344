"""What the figures on channel extrapolation from hopping pilots share."""

PAPER = "Wan & Liu 2024"
PROPOSED, NO_M_STEP, HOLD = "em-turbo", "em-turbo-no-m-step", "oamp-hold"
"""Labels of the tracker proposed, of it without updates of phase, timing, Doppler and grid, and of band parts tracked
one by one and held in between"""
