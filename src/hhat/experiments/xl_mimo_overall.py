"""xl-mimo/overall: the whole array by every way there is, beside what genies reach and the prototype's numbers."""

from hhat.bench.experiment import Experiment, Profile, grid
from hhat.decentralized import Literal
from hhat.experiments import xl_mimo as xl

POINTS = grid({"snr_db": xl.SNRS})
PROTOTYPE = {
    "sbl-em-literal": -8.91,
    "sbl-em-refined": -9.62,
    "uamp-sbl-literal": -8.12,
    "uamp-sbl-refined": -8.67,
    "sbl-mrf-literal": -9.53,
    "sbl-mrf-refined": -10.11,
    "sbl-pattern-coupled-literal": -10.97,
    "sbl-pattern-coupled-refined": -11.59,
    "cnn-sbl-literal": -11.73,
    "cnn-sbl-refined": -11.95,
    "oamp-decentralised": -13.4,
    "uamp-sbl-central": -11.38,
    "sbl-pattern-coupled-central": -13.37,
    "nomp-central": -30.17,
    "genie-variances": -14.66,
    "genie-geometry": -33.53,
}
"""NMSE in dB at 10 dB on 16 to 60 other channels, standard error about 0.15 to 0.25 dB"""
SLACK_DB = 0.5
"""Two of its standard errors"""
METHODS = {
    **xl.BEFORE,
    "uamp-sbl-literal": xl.refined(xl.uamp_sbl, Literal()),
    "uamp-sbl-refined": xl.refined(xl.uamp_sbl),
    **xl.OVERALL,
    **xl.BOUNDS,
}
QUICK = ("sbl-em-refined", *xl.QUICK, "nomp-central", *xl.BOUNDS)

EXPERIMENT = Experiment(
    name="xl-mimo/overall",
    title="The whole array: all methods and bounds against SNR, 4 units, 16 pilot slots",
    scenario=xl.near_field,
    methods=METHODS,
    profiles={
        "quick": Profile(POINTS, blocks=1, block_size=xl.BLOCK, methods=QUICK),
        "full": Profile(POINTS, blocks=20, block_size=xl.BLOCK),
    },
    claims=xl.levels(PROTOTYPE, SLACK_DB),
    note=xl.OVERALL_NOTE + " Without a suffix: the units' posterior means put together; -literal: algorithm 2 as "
    "printed. genie-variances knows |x|^2 of every coefficient, genie-geometry all paths but for their gains; "
    "cramer-rao is the bound for five real unknowns per path.",
)
