"""xl-mimo/units: every estimator of a unit beside what genies reach, and beside the prototype's numbers."""

from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import xl_mimo as xl

POINTS = grid({"snr_db": xl.SNRS})
BUILDS = {
    **xl.FIGURE,
    "sbl-em-converged": xl.sbl_em_converged,
    "uamp-sbl": xl.uamp_sbl,
    "oamp-pattern-coupled": xl.oamp_pattern_coupled,
}
PROTOTYPE = {
    "sbl-em": -8.21,
    "uamp-sbl": -8.05,
    "sbl-mrf": -9.18,
    "uamp-mrf": -9.04,
    "sbl-pattern-coupled": -10.80,
    "sbl-gnn": -9.08,
    "cnn-sbl": -11.67,
    "genie-variances": -12.10,
    "genie-geometry": -27.67,
}
"""NMSE in dB at 10 dB on 48 other channels, standard error about 0.15 to 0.2 dB"""
SLACK_DB = 0.4
"""Two of its standard errors"""

EXPERIMENT = Experiment(
    name="xl-mimo/units",
    title="The units' own estimates: all methods and bounds against SNR, 16 pilot slots",
    scenario=xl.units,
    methods={**{label: xl.local(build) for label, build in BUILDS.items()}, "nomp": xl.nomp_unit, **xl.BOUNDS},
    profiles={
        "quick": Profile(POINTS, blocks=1, block_size=xl.BLOCK),
        "full": Profile(POINTS, blocks=20, block_size=xl.BLOCK),
    },
    metrics=("nmse_db",),
    score=xl.score_units,
    claims=xl.levels(PROTOTYPE, SLACK_DB),
    note="One realisation is one channel: the mean over its four units. All know the noise level. "
    "genie-variances knows |x|^2 of every coefficient, genie-geometry all paths but for their gains; cramer-rao is the "
    "bound for five real unknowns per path. nomp takes a unit for far field.",
)
