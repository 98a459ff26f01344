"""How far detections are from the truth: errors of single targets, and GOSPA for sets of them."""

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hhat.sensing.detector import Detections, position_m
from hhat.sensing.echoes import EchoTruth

IN_CELL_U = 0.03
IN_CELL_M = 1.5
"""A detection nearer than both to the target counts as in its cell (cells: 2 / 64 in u, 2.44 m)."""
MOST_TARGETS = 6
"""GOSPA tries every assignment: 720 of 6 targets."""


class TargetErrors(NamedTuple):
    """Per snapshot of at most one target, (*batch): which were detected where there was one, which where there was
    none, errors where both (else nan), and whether they lie in the target's cell."""

    hit: Bool[Tensor, "*batch"]
    missed: Bool[Tensor, "*batch"]
    false_alarm: Bool[Tensor, "*batch"]
    angle_deg: Float[Tensor, "*batch"]
    range_m: Float[Tensor, "*batch"]
    position_m: Float[Tensor, "*batch"]
    in_cell: Bool[Tensor, "*batch"]


def target_errors(
    found: Detections, truth: EchoTruth, cell: tuple[float | int, float | int] = (IN_CELL_U, IN_CELL_M)
) -> TargetErrors:
    """The first detection of each snapshot against its only target. cell: largest |du| and |dR| (m) in cell.

    ValueError where the truth holds more than one target per snapshot."""
    if truth.present.shape[-1] != 1:
        raise ValueError(f"errors: expected one target per snapshot, got {truth.present.shape[-1]}; use gospa")
    present, detected = truth.present[..., 0], found.detected[..., 0]
    u, range_m, far = truth.u[..., 0], truth.range_m[..., 0], found.position_m[..., 0, :]
    hit = present & detected
    du, dr = found.u[..., 0] - u, found.range_m[..., 0] - range_m
    angle = torch.rad2deg(found.angle_rad[..., 0] - u.asin())
    away = (far - position_m(u, range_m)).norm(dim=-1)
    angle, along, away = (torch.where(hit, error, torch.nan) for error in (angle, dr, away))
    return TargetErrors(
        hit,
        present & ~detected,
        ~present & detected,
        angle,
        along,
        away,
        hit & (du.abs() < cell[0]) & (dr.abs() < cell[1]),
    )


def gospa(
    found: Float[Tensor, "*batch targets 2"],
    detected: Bool[Tensor, "*batch targets"],
    truth: Float[Tensor, "*batch others 2"],
    present: Bool[Tensor, "*batch others"],
    cutoff_m: float | int = 5.0,
    order: float | int = 2.0,
) -> Float[Tensor, "*batch"]:
    """GOSPA^order of each snapshot (alpha = 2), exact over all assignments:

        min over assignments of sum min(|p - q|, c)^order + c^order / 2 per missed and per false target

    average this, then take the root. found, truth: positions in metres; detected, present: which of them count.
    Source: Rahmathullah, Garcia-Fernandez & Svensson, FUSION 2017. ValueError for more than 6 targets on a side.
    """
    size = max(found.shape[-2], truth.shape[-2])
    if size > MOST_TARGETS:
        raise ValueError(f"gospa: expected at most {MOST_TARGETS} targets a side, got {size}")
    away = (found[..., :, None, :] - truth[..., None, :, :]).norm(dim=-1).clamp_max(cutoff_m) ** order
    both = detected[..., :, None] & present[..., None, :]
    one = detected[..., :, None] ^ present[..., None, :]
    alone = cutoff_m**order / 2
    cost = torch.where(both, away, torch.where(one, alone, 0.0))
    # padding on either side is a target that is not there
    full = cost.new_zeros(*cost.shape[:-2], size, size)
    full[..., : cost.shape[-2], cost.shape[-1] :] = alone * detected[..., :, None]
    full[..., cost.shape[-2] :, : cost.shape[-1]] = alone * present[..., None, :]
    full[..., : cost.shape[-2], : cost.shape[-1]] = cost
    orders = torch.tensor(list(itertools.permutations(range(size))), device=cost.device)
    return full[..., torch.arange(size, device=cost.device), orders].sum(-1).amin(-1)


def root_mean_square(values: Float[Tensor, "..."], where: Bool[Tensor, "..."]) -> float:
    """Over the entries where `where` holds; nan where there is none."""
    return float(values[where].double().square().mean().sqrt())
