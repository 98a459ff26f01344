"""What scenarios share: checks of settings, pilots, and the received block."""

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.ops import LinearOp
from hhat.random import complex_normal, generator, qpsk
from hhat.types import Observation

PILOTS = ("qpsk", "gaussian")
SNR_LIMIT_DB = 300.0


def check_count(where: str, name: str, value: object) -> None:
    """ValueError unless the value is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{where}: {name} is an integer of at least 1, got {value!r}")


def check_choice(where: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{where}: {name} is one of {', '.join(choices)}; got {value!r}")


def check_between(where: str, name: str, value: object, low: float | int, high: float | int) -> None:
    """ValueError unless low < value <= high, both numbers."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low < value <= high:
        raise ValueError(f"{where}: {name} is a number above {low:g} and at most {high:g}, got {value!r}")


def check_snr(where: str, snr_db: object) -> None:
    """ValueError unless the SNR leaves a noise variance that single precision can hold."""
    check_between(where, "snr_db", snr_db, -SNR_LIMIT_DB, SNR_LIMIT_DB)


def draw_pilots(kind: str, shape: tuple[int, ...], seed: int) -> Complex[Tensor, "..."]:
    """i.i.d. symbols of unit mean power, from their own seed so that every draw of a scenario sees the same block.

    "qpsk": (+-1 +-1j)/sqrt(2); "gaussian": CN(0, 1).
    """
    gen = generator("pilots", kind, *shape, seed)
    return qpsk(shape, gen) if kind == "qpsk" else complex_normal(shape, gen)


def receive(
    h: Complex[Tensor, "..."], op: LinearOp, noise_var: float, axes: tuple[str, ...], gen: torch.Generator
) -> Observation:
    """y = op(h) + CN(0, noise_var)."""
    clean = op.apply(h)
    return Observation(clean + complex_normal(tuple(clean.shape), gen, clean.dtype, noise_var), op, noise_var, axes)


def half_wave_line(num_ant: int, along: str) -> list[list[float]]:
    """Element positions in wavelengths of a half-wavelength line from the origin along "x", "y" or "z"."""
    column = "xyz".index(along)
    return [[0.5 * n if k == column else 0.0 for k in range(3)] for n in range(num_ant)]
