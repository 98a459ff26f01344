"""Arrays whose antennas are shared by processing units: local estimates, fusion, refinement, the link between them."""

from hhat.decentralized.compact import ParametricUpload, TopUpload
from hhat.decentralized.execute import Executor, Processes, Serial
from hhat.decentralized.feedback import CovarianceFeedback
from hhat.decentralized.method import Decentralised
from hhat.decentralized.oamp import DecentralisedOamp
from hhat.decentralized.quantise import Floats, MidRise, MidTread, Quantiser
from hhat.decentralized.refine import Concatenate, Literal, ReportedNoise
from hhat.decentralized.units import UnitsLostError
from hhat.decentralized.uploads import ExtrinsicUpload, PosteriorUpload, RawUpload, Upload

__all__ = [
    "Concatenate",
    "CovarianceFeedback",
    "Decentralised",
    "DecentralisedOamp",
    "Executor",
    "ExtrinsicUpload",
    "Floats",
    "Literal",
    "MidRise",
    "MidTread",
    "ParametricUpload",
    "PosteriorUpload",
    "Processes",
    "Quantiser",
    "RawUpload",
    "ReportedNoise",
    "Serial",
    "TopUpload",
    "UnitsLostError",
    "Upload",
]
