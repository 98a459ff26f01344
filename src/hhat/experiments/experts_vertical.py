"""experts/vertical: NMSE against SNR with arrays that see zenith alone, as the scripts behind the paper may have it."""

from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import experts, experts_gauss
from hhat.experiments.engine_sparse_cdl import pcsbl_gamp
from hhat.experiments.start_demo import auto, gamp


def points(snrs: tuple[float, ...], alphas: tuple[float, ...]) -> tuple:
    return grid({"profile": experts.PROFILES, "axis": ("vertical",), "snr_db": snrs, "alpha": alphas})


EXPERIMENT = Experiment(
    name="experts/vertical",
    title="NMSE against SNR: CDL-A to CDL-D, vertical arrays, 64 x 16 antennas, 38 and 19 pilots",
    scenario=experts.scenario,
    methods={
        "auto": auto,
        "pcsbl-gamp": pcsbl_gamp,
        "em-gm-amp": gamp,
        "lmmse": experts_gauss.lmmse,
        **experts_gauss.METHODS,
        "angular-em-mixture": experts_gauss.angular_em_mixture,
    },
    profiles={
        "quick": Profile(points((10.0, 30.0), (0.6,)), blocks=1, block_size=experts.BLOCK),
        "full": Profile(points((-10.0, 0.0, 10.0, 20.0, 30.0), (0.6, 0.3)), blocks=25, block_size=experts.BLOCK),
    },
    note="No network of the package is of vertical arrays. For the labels see experts/fig4; lmmse and the mixtures "
    "know the covariances or angular powers of vertical arrays.",
)
