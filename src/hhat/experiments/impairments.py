"""What the figures on joint tracking of channel and hardware impairments share."""

PAPER = "Xu & Liu 2026"
WAITS_FOR = "the impairments, their learned forward model and the joint tracker"
COMPENSATORS = ("gmp", "gru")
FAMILY = ("mp-ttbdl", "mp-bdl", "mp-bdl-frozen")
"""The forward model inside inference: its weights tracked with a slow drift, tracked as constants, or not updated"""
CHANNEL, SIGNAL, FIT = "nmse_db", "signal_nmse_db", "fitting_nmse_db"
"""Of the channel, of the received signal without distortion, of the distorted signal as the model gives it back"""
