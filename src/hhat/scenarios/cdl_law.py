"""The law of a CDL profile where scenarios look for it; it is `hhat.priors.cdl_law`, as it is known of h alone."""

from hhat.priors.cdl_law import (
    RX_FACING_RAD,
    RX_YAW_RAD,
    TX_FACING_RAD,
    TX_YAW_RAD,
    End,
    amplitudes,
    covariance,
    direction_cosine,
    ends,
    powers,
)

__all__ = [
    "RX_FACING_RAD",
    "RX_YAW_RAD",
    "TX_FACING_RAD",
    "TX_YAW_RAD",
    "End",
    "amplitudes",
    "covariance",
    "direction_cosine",
    "ends",
    "powers",
]
