"""The sounding reference signal of 5G NR, 3GPP TS 38.211: which tones sound when, with what, and how to take it off."""

from hhat.nr.config import Occasions as Occasions
from hhat.nr.config import SoundingConfig as SoundingConfig
from hhat.nr.grid import SoundingPilots as SoundingPilots
from hhat.nr.grid import received as received
from hhat.nr.grid import sequences as sequences
from hhat.nr.grid import transmitted as transmitted
from hhat.nr.hopping import hop_index as hop_index
from hhat.nr.patterns import PATTERNS as PATTERNS
from hhat.nr.patterns import TonePattern as TonePattern
