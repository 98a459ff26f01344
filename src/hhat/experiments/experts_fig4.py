"""experts/fig4: NMSE against SNR on CDL-A to CDL-D, as many training channels of each profile."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import experts, experts_gauss, experts_nets
from hhat.experiments.engine_sparse_cdl import lasso, pcsbl_gamp
from hhat.experiments.start_demo import auto, gamp, rls

SOURCE = f"{experts.PAPER}, Fig. 4"
SPARSE = ("pcsbl-gamp", "em-gm-amp", "lasso")
HIGH_SNR_DB = 30.0
SNRS_DB = tuple(5.0 * step for step in range(-2, 7))
QUICK = (
    *("auto", *SPARSE, "rls", "lmmse", *experts_gauss.METHODS),
    *("experts-vb", experts.PROPOSED, "evidence-oamp"),
)
"""ray-coupling takes seconds per channel, a sample covariance seconds to draw, a sampler tens of milliseconds"""


def points(snrs: tuple[float, ...], alphas: tuple[float, ...]) -> tuple:
    return grid({"profile": experts.PROFILES, "snr_db": snrs, "alpha": alphas})


EXPERIMENT = Experiment(
    name="experts/fig4",
    title="NMSE against SNR: CDL-A to CDL-D, 64 x 16 antennas, 38 and 19 pilots",
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
        "experts-vb": experts_nets.default,
        **experts_nets.rows(),
        **experts_nets.RIVALS,
        "ray-coupling": experts_gauss.ray_coupling,
    },
    profiles={
        "quick": Profile(points((10.0, HIGH_SNR_DB), (0.6,)), blocks=1, block_size=experts.BLOCK, methods=QUICK),
        "full": Profile(points(SNRS_DB, (0.6, 0.3)), blocks=25, block_size=experts.BLOCK),
    },
    claims=(
        Ordering(
            "from best to worst the mixture of experts, one diffusion model, LDAMP, WGAN",
            SOURCE,
            methods=(experts.PROPOSED, experts.SINGLE, "ldamp", "wgan"),
        ),
        *(
            Ordering(
                "RLS fails; taken as: behind the sparse estimators at the highest SNR",
                SOURCE,
                methods=(label, "rls"),
                at={"snr_db": HIGH_SNR_DB},
            )
            for label in SPARSE
        ),
        Words("PCSBL, EM-GM-AMP and LASSO saturate as the SNR grows", SOURCE, "where, is not reported as a number"),
        Words("the mixture leads one diffusion model by a slight margin", SOURCE, "'slight' is not a number"),
    ),
    note="lmmse knows the exact covariance of its profile: the bound for linear methods, no method of the paper; "
    "covariance-mixture knows those of all four and finds the profile by evidence, pooled-lmmse their mean; "
    "covariance-mixture-1000 and on are sample covariances of so many channels of each; angular-mixture knows the "
    "angular powers of 3000 channels of each, angular-em-mixture 16 sets of them per profile, by EM; ray-coupling the "
    "profile's table of rays. lasso is tuned per profile and SNR on other draws, for 38 pilots. The others learn from "
    "the one observation; auto is what is taken without naming a method. experts-vb by default knows what "
    "covariance-mixture knows: no estimate was better with networks beside. experts-vb-paper has a network per "
    "profile, equal shares at first and the paper's sampler; diffusion-posterior one network for all profiles and the "
    "same sampler, ldamp and wgan the paper's other learned rivals, trained on all profiles. The rest is not of the "
    "paper: evidence-dmps, evidence-variance-map and evidence-oamp take the network of the profile that the evidence "
    "of its Gaussian moments finds, by the paper's sampler, by 25 steps with a map of variances, and inside oamp; "
    "single-variance-map and single-oamp do so with the network for all. The paper's share of pilots is not known to "
    "us: 0.6, as in the works that it follows, and 0.3 beside.",
)
