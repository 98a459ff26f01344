"""What an estimate of a hopping-pilot channel of few paths can reach: Cramer-Rao bounds of a draw, or of its file."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from hhat.extrapolation.bound import Bound, channel_bound
from hhat.extrapolation.model import Sounding, sounded
from hhat.scenarios.srs import SoundingTruth
from hhat.types import Slot


def sounding_truth(truth: Any) -> SoundingTruth:
    """The record of a draw or of a file, whose fields have lost their class. ValueError where it is no such channel."""
    held = getattr(truth, "_asdict", dict)()
    if not {"h", "phase_rad", "timing_s"} <= held.keys():
        got = ", ".join(held) or "none"
        raise ValueError(f"bounds: expected a truth with h, phase_rad and timing_s, got {got}")
    return SoundingTruth(**{name: held[name] for name in SoundingTruth._fields if name in held})


def sounding_bound(slot: Slot, priors: bool = True, known_offsets: bool = False) -> Bound:
    """`channel_bound` at the truth of a slot, all symbols together.

    Raises ValueError where the slot lacks the paths, the noise variance or what `Sounding.of` needs.
    """
    truth = sounding_truth(slot.truth)
    model = Sounding.of(slot.about, truth.h.shape[-3])
    if truth.paths is None or model is None or slot.obs.noise_var is None:
        raise ValueError(
            "bounds: expected the truth's paths, a noise variance, element positions and tone spacing; "
            f"paths {'found' if truth.paths else 'missing'}, law {'found' if model else 'missing'}"
        )
    seen = sounded(model, slot.obs)
    assert seen.noise_var is not None
    noise_var = seen.noise_var.double()
    noise_var = noise_var.reshape(noise_var.shape[:-3] or ()) if noise_var.ndim else noise_var
    return channel_bound(
        model, truth.paths, truth.offsets, seen.index, noise_var, priors=priors, known_offsets=known_offsets
    )


def sounding_nmse(slot: Slot, priors: bool = True, known_offsets: bool = False) -> Float[Tensor, " n"]:
    """E|h_hat - h|^2 / |h|^2 of every channel, mean over its symbols."""
    return sounding_bound(slot, priors, known_offsets).nmse.mean(-1)
