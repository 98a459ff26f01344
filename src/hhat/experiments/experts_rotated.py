"""experts/rotated: NMSE against SNR where both arrays are turned at random, so that no covariance tells a profile."""

from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import experts, experts_gauss, experts_nets
from hhat.experiments.engine_sparse_cdl import lasso, pcsbl_gamp
from hhat.experiments.start_demo import auto, gamp, rls

QUICK = (
    *("auto", "pcsbl-gamp", "em-gm-amp", "lasso", "rls", "lmmse", *experts_gauss.METHODS),
    *(experts.PROPOSED, *experts_nets.EVIDENCE[1:]),
)


def points(snrs: tuple[float, ...], alphas: tuple[float, ...]) -> tuple:
    return grid({"profile": experts.PROFILES, "geometry": ("rotated",), "snr_db": snrs, "alpha": alphas})


EXPERIMENT = Experiment(
    name="experts/rotated",
    title="NMSE against SNR: CDL-A to CDL-D, arrays turned at random, 64 x 16 antennas, 38 and 19 pilots",
    scenario=experts.scenario,
    methods={
        "auto": auto,
        "pcsbl-gamp": pcsbl_gamp,
        "em-gm-amp": gamp,
        "lasso": lasso,
        "rls": rls,
        "lmmse": experts_gauss.lmmse,
        **experts_gauss.METHODS,
        **experts_gauss.SAMPLED,
        "angular-em-mixture": experts_gauss.angular_em_mixture,
        **experts_nets.rows(),
    },
    profiles={
        "quick": Profile(points((10.0, 30.0), (0.6,)), blocks=1, block_size=experts.BLOCK, methods=QUICK),
        "full": Profile(points((-10.0, 0.0, 10.0, 20.0, 30.0), (0.6, 0.3)), blocks=25, block_size=experts.BLOCK),
    },
    note="The transmitter is turned by up to 60 degrees, the receiver by up to 180, anew for each channel. lmmse and "
    "the covariance mixtures know the covariances of these laws, exactly or by so many channels; the networks are "
    "those of turned arrays. lasso has the strength tuned for fixed arrays and 38 "
    "pilots. For the other labels see experts/fig4.",
)
