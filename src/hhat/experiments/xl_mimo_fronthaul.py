"""xl-mimo/fronthaul: error against the bits that a unit sends: pilots, coefficients, the largest of them, paths."""

from collections.abc import Callable
from typing import Any

import hhat
from hhat.bench.claims import Level
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.decentralized import (
    Concatenate,
    CovarianceFeedback,
    ExtrinsicUpload,
    MidRise,
    ParametricUpload,
    PosteriorUpload,
    RawUpload,
    ReportedNoise,
    TopUpload,
    Upload,
)
from hhat.decentralized.refine import Centre
from hhat.experiments import xl_mimo as xl
from hhat.experiments.xl_mimo_link import PRICE, Link, link, score_link
from hhat.priors.m_step import PatternCoupling

BITS = (3, 4, 5, 6, 8)
REFINED, FUSED = ReportedNoise(PatternCoupling()), Concatenate()
MOST_PATHS = 6
PSI_BITS, DELAY_BITS = 4, 2
"""More than a gain's: a beam of 32 antennas and a delay bin of 16 tones are to be cut as finely as a gain"""
SLACK_DB = 0.5
FUSED_DB = {3: -6.29, 4: -8.52, 5: -9.87, 6: -10.43, 8: -10.73}
RAW_DB = {3: -10.83, 4: -12.64, 6: -13.13}
TOP_DB = {16: -7.96, 32: -9.34, 64: -10.34}
"""The prototype's, at 10 dB on 48, 16 and 48 other channels; TOP_DB with values that are not rounded"""


def raw(build: Callable[[Any], Any]) -> Callable[[Link], Any]:
    """Quantised pilots, estimated by one method for the whole array."""
    return lambda place: hhat.method(
        "decentralised", upload=RawUpload(build(place.scene), place.quantiser), num_unit=place.scene.num_unit
    )


def sent(
    upload: Callable[[Link], Upload], centre: Centre = REFINED, feedback: CovarianceFeedback | None = None
) -> Callable[[Link], Any]:
    """Coefficients of `oamp` with the pattern-coupled prior at every unit."""
    return lambda place: hhat.method(
        "decentralised",
        unit=xl.oamp_pattern_coupled(place.scene.local_basis()),
        upload=upload(place),
        centre=centre,
        feedback=feedback,
        num_unit=place.scene.num_unit,
    )


def top(count: int, centre: Centre = REFINED) -> Callable[[Link], Any]:
    return sent(lambda place: TopUpload(place.quantiser, count), centre)


def paths(place: Link, centre: Centre = FUSED) -> Any:
    """Parameters of the paths that each unit finds, those of a gain with the point's bits."""
    bits = place.bits
    unit = hhat.method("nomp", model=xl.path_model(place.scene, local=True, curved=False), max_paths=MOST_PATHS)
    upload = ParametricUpload(place.quantiser, psi=bits + PSI_BITS, delay=bits + DELAY_BITS)
    return hhat.method("decentralised", unit=unit, upload=upload, centre=centre, num_unit=place.scene.num_unit)


def paths_refined(place: Link) -> Any:
    """The units' paths as one channel in white noise, in which `nomp` finds the array's."""
    return paths(place, ReportedNoise(method=xl.nomp(place.scene)))


METHODS = {
    "raw-pattern-coupled": raw(lambda scene: xl.sbl_pattern_coupled(scene.basis())),
    "raw-nomp": raw(xl.nomp),
    "raw-hybrid": raw(xl.hybrid),
    "posterior": sent(lambda place: PosteriorUpload(place.quantiser), FUSED),
    "posterior-mid-rise": sent(lambda place: PosteriorUpload(MidRise(place.bits)), FUSED),
    "posterior-refined": sent(lambda place: PosteriorUpload(place.quantiser)),
    "extrinsic-refined": sent(lambda place: ExtrinsicUpload(place.quantiser)),
    "extrinsic-feedback": sent(lambda place: ExtrinsicUpload(place.quantiser), feedback=CovarianceFeedback()),
    **{f"top-{count}": top(count, FUSED) for count in TOP_DB},
    **{f"top-{count}-refined": top(count) for count in TOP_DB},
    "paths": paths,
    "paths-refined": paths_refined,
}
QUICK = (
    "raw-pattern-coupled",
    "raw-hybrid",
    "posterior-refined",
    "extrinsic-refined",
    "extrinsic-feedback",
    "top-16-refined",
    "top-32-refined",
    "top-64-refined",
    "paths",
    "paths-refined",
)


def level(label: str, number: float, bits: int) -> Level:
    """Not above the prototype's number by more than two of its standard errors."""
    text = f"{label}, {bits} bits per real number: {number:g} dB"
    return Level(text, "prototype", label, high=number + SLACK_DB, at={"bits": bits})


EXPERIMENT = Experiment(
    name="xl-mimo/fronthaul",
    title="NMSE against fronthaul bits at 10 dB, 4 units, 16 pilot slots",
    scenario=link,
    methods=METHODS,
    profiles={
        "quick": Profile(grid({"bits": BITS}), blocks=1, block_size=xl.BLOCK, methods=QUICK),
        "full": Profile(grid({"bits": BITS}), blocks=20, block_size=xl.BLOCK),
    },
    metrics=("nmse_db", PRICE, "variance_ratio"),
    over=PRICE,
    score=score_link,
    claims=(
        *(level("posterior", number, bits) for bits, number in FUSED_DB.items()),
        *(level("raw-pattern-coupled", number, bits) for bits, number in RAW_DB.items()),
        *(level(f"top-{count}", number, 8) for count, number in TOP_DB.items()),
    ),
    note="raw-: quantised pilots, one method for the whole array. posterior, extrinsic: what oamp with the "
    "pattern-coupled prior says of a unit's 512 coefficients; top-k: the k largest. paths: what nomp finds at a unit, "
    "at most 6 paths. -refined: behind a pattern-coupled centre, paths-refined behind nomp for the whole array; else "
    "put together. -feedback: the same with variances returned once (4 bits) and a second upload. Bits are of a unit, "
    "both ways, per pilot resource element (256 of them), with everything that is sent. Paths are points here, for "
    "which nomp is made; see xl-mimo/clusters for others.",
)
