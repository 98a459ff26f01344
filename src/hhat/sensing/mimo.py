"""Transmitting and receiving arrays both with unknown gains: one virtual array, whose gains are a product.

    Y_rsm = gamma kappa_r a_r(u) b_s(R) sum_t kappa_t a_t(u) x_tsm + CN(0, noise_var)        (rx, subcarrier, symbol)

With waveforms that are orthogonal on each subcarrier, sum_m x_tsm x_qsm^* = P for t = q and 0 else, the matched filter

    y_(r,t)s = sum_m Y_rsm x_tsm^* / sqrt(P)
             = gamma sqrt(P) kappa_r kappa_t exp(+j 2 pi (p_r + p_t) u) b_s + CN(0, noise_var)

is an `Echoes` of rx times tx antennas at p_r + p_t with noise as white as before: search, start and shift are those of
any array, and the eigenvector is sought among products (`Eigenvector(factors=(rx, tx))`): N_r + N_t unknowns, not their
product. Not observable: one complex scale between the two, and one common shift of angles, which the sectors tell as
they do for one array; the difference of the two arrays' shifts is, for u is the same at both.
Source: isac calibration, section 10.2, for orthogonal waveforms: with a precoder the noise of y is not white.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.sensing.echoes import Echoes

UNEVEN = 1e-3
"""Largest share of P by which waveforms may be off from orthogonal"""


def virtual_array(
    y: Complex[Tensor, "*batch rx subcarrier symbol"],
    waveforms: Complex[Tensor, "tx subcarrier symbol"],
    rx_positions: Float[Tensor, " rx"],
    tx_positions: Float[Tensor, " tx"],
    u_limits: Tensor,
    range_limits_m: Tensor,
    subcarrier_spacing_hz: float,
    carrier_hz: float,
    noise_var: float | None = None,
    snr: float | None = None,
) -> Echoes:
    """The echoes of the virtual array, antenna r * num_tx + t, per subcarrier with symbols 1 (see `compress`).

    positions: in wavelengths, each from its own first antenna at 0. The rest as in `Echoes`.
    ValueError where the waveforms are not orthogonal and of equal power on every subcarrier.
    """
    gram = torch.einsum("tsm,qsm->stq", waveforms, waveforms.conj())
    power = gram.diagonal(dim1=-2, dim2=-1).real.mean()
    off = (gram - power * torch.eye(len(waveforms), dtype=gram.dtype, device=gram.device)).abs().max()
    if not float(off) <= UNEVEN * float(power):
        raise ValueError(f"waveforms: expected orthogonal ones of equal power per subcarrier, off by {float(off):.3g}")
    seen = torch.einsum("...rsm,tsm->...rts", y, waveforms.conj()) / power.sqrt()
    positions = (rx_positions[:, None] + tx_positions).flatten()
    one = torch.ones(y.shape[-2], dtype=y.dtype, device=y.device)
    return Echoes(
        seen.flatten(-3, -2),
        u_limits,
        range_limits_m,
        subcarrier_spacing_hz,
        carrier_hz,
        noise_var,
        symbols=one,
        positions=positions,
        snr=snr,
    )
