"""MUSIC over delay for one path among others: its own turns from symbol to symbol are in the steering vector."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.extrapolation.model import delay_steering
from hhat.extrapolation.normal import Point, Task
from hhat.extrapolation.r_tst_music import signatures
from hhat.ops.linalg import squared


def path_spectrum(
    task: Task, point: Point, path: int, delay_s: Float[Tensor, " delay"], cancel: tuple[int, ...] = ()
) -> Float[Tensor, "item delay"]:
    """P_k(tau) = ||d_k||^2 / (||d_k||^2 - ||Us^H d_k(tau)||^2), symbols and tones of the pilots stacked as rows.

      d_k(tau) = e^{j phi_m} e^{j turn_mk} exp(-j 2 pi f (tau + timing_m));  Us: signal subspace, as many dimensions as
      paths are left
    Other paths stand in it as peaks too, at their delays where their turns are alike: a strong one hides a weak one.
    cancel: paths projected out before, Y <- (I - d d^H / ||d||^2) Y, one after the other; what has the same delay and
    turns goes with them.
    point: delays, turns, phases and timing as they are believed; wrong ones move the peaks of other paths.
    Source: Wan & Liu 2024, eqs. (20)-(22) and Fig. 4, as reconstructed.
    """
    frequency = task.frequency[list(task.band)]
    d, y = signatures(task, point, frequency).flatten(1, 2), task.y.flatten(1, 2)
    for other in cancel:
        y = y - _part(d[..., other : other + 1], y)
    # what is common to all delays, at delay 0
    turned = signatures(task, point._replace(delay=torch.zeros_like(point.delay)), frequency)[..., path]
    steering = delay_steering(frequency, delay_s)  # (symbol, tone, delay)
    own = (turned[..., None] * steering).flatten(1, 2)
    most = max(1, min(point.gain.shape[-1] - len(cancel), y.shape[-1]))
    basis = torch.linalg.svd(y, full_matrices=False)[0][..., :most]
    share = squared(basis.mH @ own).sum(-2) / own.shape[-2]
    return 1 / (1 - share).clamp_min(torch.finfo(share.dtype).eps)


def _part(d: Complex[Tensor, "item row 1"], y: Complex[Tensor, "item row rx_ant"]) -> Tensor:
    return d @ (d.mH @ y) / squared(d).sum(-2, keepdim=True)
