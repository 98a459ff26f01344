"""experts/fig5: one profile has a tenth of the training channels of the others; NMSE on that profile."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import experts, experts_gauss, experts_nets
from hhat.experiments.engine_sparse_cdl import pcsbl_gamp

SOURCE = f"{experts.PAPER}, Fig. 5"
QUICK = (
    *("pcsbl-gamp", "covariance-mixture", "covariance-mixture-1000", "angular-mixture"),
    *(experts.SINGLE, "evidence-dmps", "evidence-oamp", "single-oamp"),
)


def points(snrs: tuple[float, ...]) -> tuple:
    return grid({"profile": ("B", "D"), "snr_db": snrs, "alpha": (0.6,)})


EXPERIMENT = Experiment(
    name="experts/fig5",
    title="NMSE against SNR on the profile that is scarce in training: 1,000 channels beside 10,000 of each other",
    scenario=experts.scenario,
    methods={
        "pcsbl-gamp": pcsbl_gamp,
        "covariance-mixture": experts_gauss.covariance_mixture,
        **experts_gauss.SCARCE,
        "angular-mixture": experts_gauss.scarce_angular,
        **experts_nets.rows(scarce=True),
    },
    profiles={
        "quick": Profile(points((10.0, 30.0)), blocks=1, block_size=experts.BLOCK, methods=QUICK),
        "full": Profile(points((-10.0, 0.0, 10.0, 20.0, 30.0)), blocks=5, block_size=experts.BLOCK),
    },
    claims=(
        Ordering(
            "the mixture of experts is ahead of one diffusion model on the scarce profile, each of A, B, C and D",
            SOURCE,
            methods=(experts.PROPOSED, experts.SINGLE),
        ),
        Words(
            "it is ahead by more than 5 dB on CDL-D and by nearly 4 dB on CDL-B",
            SOURCE,
            "at which SNR is not known to us",
        ),
    ),
    note="At every point the point's own profile is the scarce one, in the training of its expert and in that of the "
    "network for all four. Networks there are for B and D scarce, fixed arrays. covariance-mixture-1000 and on: the "
    "scarce profile by the sample covariance of so many of its channels, the other three exactly; covariance-mixture: "
    "all exactly; angular-mixture: angular powers of 1,000 channels, 10,000 of the others. For the other labels see "
    "experts/fig4. The paper's share of pilots is not known to us.",
)
