"""experts/fig6: NMSE against the share of pilots, on the profile that is scarce in training."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import experts, experts_gauss, experts_nets
from hhat.experiments.engine_sparse_cdl import pcsbl_gamp
from hhat.experiments.start_demo import auto, gamp

SOURCE = f"{experts.PAPER}, Fig. 6"


NETS = experts_nets.rows(scarce=True)
QUICK = ("auto", "pcsbl-gamp", "em-gm-amp", "lmmse", *experts_gauss.METHODS, "evidence-oamp-scarce", "single-oamp")


def points(alphas: tuple[float, ...]) -> tuple:
    return grid({"profile": ("B", "D"), "snr_db": (20.0,), "alpha": alphas})


EXPERIMENT = Experiment(
    name="experts/fig6",
    title="NMSE against pilots per transmit antenna: CDL-B and CDL-D, 64 x 16 antennas, 20 dB",
    scenario=experts.scenario,
    methods={
        "auto": auto,
        "pcsbl-gamp": pcsbl_gamp,
        "em-gm-amp": gamp,
        "lmmse": experts_gauss.lmmse,
        **experts_gauss.METHODS,
        experts.SCARCE: NETS[experts.PROPOSED],
        "evidence-oamp-scarce": NETS["evidence-oamp"],
        experts.SINGLE: NETS[experts.SINGLE],
        "single-oamp": NETS["single-oamp"],
        "ldamp": experts_nets.ldamp,
    },
    profiles={
        "quick": Profile(points((0.2, 0.6, 1.0)), blocks=2, block_size=experts.BLOCK, methods=QUICK),
        "full": Profile(points((0.2, 0.4, 0.6, 0.8, 1.0)), blocks=25, block_size=experts.BLOCK),
    },
    claims=(
        *(
            Ordering(
                "the mixture of experts is ahead of one diffusion model on the scarce profile",
                SOURCE,
                methods=(experts.SCARCE, experts.SINGLE),
                at={"profile": profile},
            )
            for profile in ("B", "D")
        ),
        Ordering(
            "on a scarce CDL-D it is ahead of LDAMP with the fewest pilots",
            SOURCE,
            methods=(experts.SCARCE, "ldamp"),
            at={"profile": "D", "alpha": 0.2},
        ),
        Words(
            "with the fewest pilots it leads one diffusion model by about 7.5 dB and LDAMP by 13 dB on a scarce CDL-D, "
            "one diffusion model by about 3.5 dB on a scarce CDL-B",
            SOURCE,
            "at which SNR and which share of pilots is not known to us",
        ),
    ),
    note="SNR and shares of pilots are ours: the paper's are not known to us. lmmse knows the exact covariance of its "
    "profile, covariance-mixture and pooled-lmmse those of all four. Networks, alone and for all profiles, have seen "
    "1,000 channels of the point's profile and 10,000 of each other, that of ldamp 10,000 of all. Estimators without "
    "training do not see which profile is scarce. LASSO would have to be tuned anew for each share of pilots, and is "
    "left out.",
)
