"""The sounding reference signal of 5G NR, 3GPP TS 38.211: which tones sound when, with what, and how to take it off."""

from hhat.nr.hopping import hop_index as hop_index
