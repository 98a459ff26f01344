"""experts/fig7b: how many outer passes the paper's mixture of experts needs."""

from dataclasses import replace
from typing import Any

from hhat.bench.claims import Trend, Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import experts, experts_nets

SOURCE = f"{experts.PAPER}, Fig. 7(b)"


def points(profiles: tuple[str, ...], snrs: tuple[float, ...], passes: tuple[int, ...]) -> tuple:
    return grid({"profile": profiles, "snr_db": snrs, "alpha": (0.6,), "passes": passes})


def paper(place: experts.Passes) -> Any:
    """As many passes as the point says, unless q has settled before."""
    return replace(experts_nets.paper(place.scene), max_steps=place.passes)


def evidence(place: experts.Passes) -> Any:
    """The evidence start, and the paper's sampler: the first pass has the profile already."""
    return replace(experts_nets.sampled(place.scene, "dmps"), max_steps=place.passes)


EXPERIMENT = Experiment(
    name="experts/fig7b",
    title="NMSE against outer passes: 64 x 16 antennas, 38 pilots",
    scenario=experts.with_passes,
    methods={experts.PROPOSED: paper, "evidence-dmps": evidence},
    profiles={
        "quick": Profile(points(("A", "C"), (10.0, 30.0), (1, 2, 3)), blocks=1, block_size=10),
        "full": Profile(points(experts.PROFILES, (0.0, 10.0, 20.0, 30.0), (1, 2, 3, 4, 5)), blocks=10, block_size=10),
    },
    claims=(
        Trend("the NMSE falls from pass to pass", SOURCE, method=experts.PROPOSED, over="passes"),
        Words("most of it within the first few passes, sooner at high SNR", SOURCE, "'few' is not a number"),
    ),
    note="Every number of passes starts anew, on the same channels. The share of pilots is ours. A pass in which no q "
    "moves by more than 0.001 ends a channel: later ones then change nothing. evidence-dmps is not of the paper: the "
    "profile by evidence, before any network runs.",
)
