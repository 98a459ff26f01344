"""engine/conditioning: how far message passing works when the matrix is not i.i.d., and what becomes of it beyond."""

from typing import Any

from torch import Tensor

import hhat
from hhat.bench.experiment import Experiment, Point, Profile, score_channel
from hhat.scenarios.ill_conditioned import IllConditioned
from hhat.types import Estimate, Slot, Status


def scenario(point: Point) -> IllConditioned:
    """Points hold one of log10_condition, mean, rank, correlation; none: the i.i.d. matrix."""
    settings: dict[str, Any] = {key: value for key, value in point.items() if key != "log10_condition"}
    if "log10_condition" in point:
        settings["condition"] = 10 ** float(point["log10_condition"])
    return IllConditioned(**settings)


def _law(scene: IllConditioned) -> Any:
    return hhat.prior("bernoulli-gauss", active=scene.active, learnable=False)


def gamp(scene: IllConditioned) -> Any:
    return hhat.method("gamp", prior=_law(scene))


def gamp_scalar(scene: IllConditioned) -> Any:
    return hhat.method("gamp", prior=_law(scene), average_axes=None)


def uamp(scene: IllConditioned) -> Any:
    return hhat.method("uamp", prior=_law(scene))


def oamp(scene: IllConditioned) -> Any:
    return hhat.method("oamp", prior=_law(scene))


def lmmse(scene: IllConditioned) -> Any:
    """Knows the power: what is left when sparsity is not used."""
    return hhat.method("lmmse", prior=hhat.prior("gauss", var=1.0))


def score(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """Errors as everywhere, and `converged`: 1 where an item ended with status OK."""
    return score_channel(estimate, slot) | {"converged": (estimate.status == Status.OK).double()}


SWEEPS: dict[str, tuple[float, ...]] = {
    "log10_condition": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0),
    "mean": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "rank": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3),
    "correlation": (0.5, 0.7, 0.8, 0.9, 0.95, 0.99),
}
QUICK = ({"log10_condition": 1.0}, {"log10_condition": 3.0}, {"mean": 0.3}, {"rank": 0.5}, {"correlation": 0.9})

EXPERIMENT = Experiment(
    name="engine/conditioning",
    title="NMSE and share of items that converge, 256 x 512, 10 % active, 30 dB",
    scenario=scenario,
    methods={"gamp": gamp, "gamp-scalar": gamp_scalar, "uamp": uamp, "oamp": oamp, "lmmse": lmmse},
    profiles={
        "quick": Profile(QUICK, blocks=2, block_size=20),
        "full": Profile(tuple({key: value} for key, sweep in SWEEPS.items() for value in sweep), 3, 20),
    },
    metrics=("nmse_db", "converged", "variance_ratio"),
    score=score,
    example=False,
    note="Every block has a matrix of its own. All but lmmse know the law of the coefficients, lmmse its power alone. "
    "The mean of NMSE is taken over all items, converged or not.",
)
