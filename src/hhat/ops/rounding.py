"""The mid-tread law that links and converters round by: steps around zero, what is zero stays zero."""

from torch import Tensor


def mid_tread_levels(bits: int) -> int:
    """Levels on either side of zero: 2^(bits - 1) - 1."""
    return 2 ** (bits - 1) - 1


def mid_tread(steps: Tensor, levels: int) -> Tensor:
    """Real numbers counted in steps to the nearest whole number within +-levels."""
    return steps.round().clamp(-levels, levels)
