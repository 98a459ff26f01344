"""experts/los-phase: CDL-D, whose specular path has a phase of its own in every channel, or the same in all."""

from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import experts, experts_gauss, experts_nets
from hhat.experiments.engine_sparse_cdl import pcsbl_gamp
from hhat.experiments.start_demo import auto, gamp

QUICK = (
    *("auto", "pcsbl-gamp", "lmmse", "lmmse-known-mean", "covariance-mixture", "angular-mixture", experts.SINGLE),
    *experts_nets.EVIDENCE[1:],
)


def points(snrs: tuple[float, ...], alphas: tuple[float, ...]) -> tuple:
    return grid({"profile": ("D",), "los_phase": ("random", "constant"), "snr_db": snrs, "alpha": alphas})


EXPERIMENT = Experiment(
    name="experts/los-phase",
    title="NMSE against SNR: CDL-D, random and constant phase of the specular path, 64 x 16 antennas",
    scenario=experts.scenario,
    methods={
        "auto": auto,
        "pcsbl-gamp": pcsbl_gamp,
        "em-gm-amp": gamp,
        "lmmse": experts_gauss.lmmse,
        "lmmse-known-mean": experts_gauss.known_mean,
        **experts_gauss.METHODS,
        **experts_nets.rows(),
    },
    profiles={
        "quick": Profile(points((10.0, 30.0), (0.6,)), blocks=1, block_size=experts.BLOCK, methods=QUICK),
        "full": Profile(points((-10.0, 0.0, 10.0, 20.0, 30.0), (0.6, 0.3)), blocks=25, block_size=experts.BLOCK),
    },
    note="With a constant phase the mean channel holds the specular path's 0.888 of the power, and is the same in "
    "every channel: what was trained on such channels may know it by heart. lmmse-known-mean does; with a random phase "
    "it is lmmse. Second moments do not see the difference: lmmse and the mixtures are those of experts/fig4, where "
    "the other labels stand too. Networks: those of a constant phase where the package has them, else of a random one.",
)
