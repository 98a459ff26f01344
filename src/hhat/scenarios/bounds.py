"""Which bounds and genies a scenario has, by name: errors over the channel's energy, channel by channel."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from hhat.methods.linear import Lmmse
from hhat.methods.solve import solve
from hhat.ops.linalg import squared
from hhat.priors.gauss import covariance
from hhat.scenarios.cdl import Cdl, CdlChannel
from hhat.scenarios.cdl_bounds import coupling_nmse
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_bounds import bound_nmse, genie_nmse, genie_variances
from hhat.scenarios.ofdm import Ofdm
from hhat.scenarios.srs_bounds import sounding_nmse
from hhat.scenarios.srs_paths import SrsPaths
from hhat.types import Slot


class Known(NamedTuple):
    """A bound: what it knows in a few words, and the errors of a draw's channels."""

    words: str
    ratios: Callable[[], Tensor]


SOUNDING = {
    "cramer-rao": ("paths and offsets unknown, priors of Doppler shifts and timing", (True, False)),
    "cramer-rao-no-priors": ("paths and offsets unknown", (False, False)),
    "cramer-rao-known-offsets": ("phases and timing known, paths and their Doppler shifts not", (True, True)),
}
"""Bounds of hopping pilots; all but the words are arguments of `sounding_nmse`."""


BOUNDED = (SrsPaths, NearField, Cdl, Ofdm)
"""Scenarios that have any."""


def bounds_of(scene: Any, slot: Slot) -> dict[str, Known]:
    """The bounds of a scenario for one of its draws, empty where it is not BOUNDED; scene None: of a file of kind srs.

    Names as in the experiments: cramer-rao (unbiased estimates), lmmse (linear ones), genie-... (who is told part of
    the truth).
    """
    if scene is None or isinstance(scene, SrsPaths):
        return {name: Known(words, partial(sounding_nmse, slot, *told)) for name, (words, told) in SOUNDING.items()}
    if isinstance(scene, NearField):
        found = {
            "genie-geometry": Known("LMMSE, all paths known but for their gains", partial(genie_nmse, scene, slot)),
            "genie-variances": Known(
                "LMMSE, the power of every angle-delay coefficient known", partial(genie_variances, scene, slot)
            ),
        }
        specular = scene.wavefront == "fresnel" and scene.num_rays == 1 and scene.cdl_profile is None
        if specular and scene.min_visible_share == 1 and not (scene.phase_error_rad or scene.timing_error_s):
            found["cramer-rao"] = Known("five unknowns per path", partial(bound_nmse, scene, slot))
        return found
    if isinstance(scene, Cdl | Ofdm):
        found = {"lmmse": Known("linear estimates, exact covariance known", partial(_lmmse, scene, slot))}
        if isinstance(scene, Cdl) and isinstance(slot.truth, CdlChannel):
            words = "LMMSE, directions of all rays known, gains unknown"
            found["genie-coupling"] = Known(words, partial(coupling_nmse, scene, slot))
        return found
    return {}


def _lmmse(scene: Cdl | Ofdm, slot: Slot) -> Tensor:
    shape = tuple(slot.obs.op.in_shape)
    found = solve(Lmmse(covariance(matrix=scene.covariance(), shape=shape)), slot.obs)
    over = tuple(range(-len(shape), 0))
    return squared(found.belief.mean - slot.truth.h).sum(over) / squared(slot.truth.h).sum(over)
