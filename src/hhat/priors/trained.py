"""Priors from files that `hhat train` wrote, whatever their kind; several files become experts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hhat.priors.base import Prior
from hhat.priors.diffusion import Diffusion
from hhat.priors.expert import angles
from hhat.priors.experts import Experts
from hhat.priors.fit_stationary import stationary
from hhat.priors.gauss import Gauss, covariance
from hhat.priors.weights import Weights, read_weights

KINDS = ("covariance", "mixture", "diffusion")


def trained(files: str | Path | Sequence[str | Path]) -> Prior:
    """The prior of one file of weights, or `Experts` of several, equally likely, named as the files are.

    Raises ValueError for no files, files that are not weights of a prior, and priors of different channels.
    """
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise ValueError("trained: expected at least one file of weights")
    found = [_read(path) for path in paths]
    return found[0] if len(found) == 1 else Experts(found, names=[Path(path).stem for path in paths])


def gauss_from(settings: Mapping[str, Any], tensors: Weights) -> Prior:
    """A covariance or a mixture of angular powers from a card's settings and its tensors.

    {"kind": "covariance", "shape"} with `matrix` (N, N, 2) or `lags` (2R-1, 2T-1, 2), real and imaginary part;
    {"kind": "mixture", "shape"} with `variances` (K, *shape) in the unitary DFT of every axis, and `shares` (K,).
    """
    try:
        shape = tuple(int(n) for n in settings["shape"])
        if settings["kind"] == "mixture":
            variances, shares = tensors["variances"], tensors["shares"]
            _expect("variances", variances, (len(shares), *shape))
            basis = angles(shape)
            return Experts([Gauss(v, basis=basis, ndim=len(shape)) for v in variances], shares / shares.sum())
        if settings["kind"] != "covariance":
            raise ValueError(f"weights: expected kind covariance or mixture, got '{settings['kind']}'")
        size = torch.Size(shape).numel()
        if "lags" in tensors:
            grid = shape if len(shape) == 2 else (1, *shape)
            _expect("lags", tensors["lags"], (*(2 * n - 1 for n in grid), 2))
            return stationary(torch.view_as_complex(tensors["lags"].contiguous()), shape)
        _expect("matrix", tensors["matrix"], (size, size, 2))
        return covariance(matrix=torch.view_as_complex(tensors["matrix"].contiguous()), shape=shape)
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"weights: setting or tensor missing or unknown: {wrong}") from None


def gauss_tensors(prior: Gauss | Experts | Tensor) -> Weights:
    """What `gauss_from` reads: of a covariance, of a mixture that `fit_mixture` made, or of lags."""
    if isinstance(prior, Tensor):
        return {"lags": torch.view_as_real(prior.to(torch.complex64)).contiguous()}
    if isinstance(prior, Experts):
        return {
            "variances": torch.stack([expert.moments().var for expert in prior.experts]).float(),
            "shares": prior.weights.float(),
        }
    assert prior.basis is not None
    root = prior.basis.dense(torch.complex64)
    return {"matrix": torch.view_as_real(root @ root.mH).contiguous()}


def _read(path: str | Path) -> Prior:
    found = read_weights(path)
    kind = found.card["settings"].get("kind")
    if kind not in KINDS:
        raise ValueError(
            f"weights {path}: expected a prior ({' '.join(KINDS)}), got those of model {found.card['model']}"
        )
    if kind == "diffusion":
        return Diffusion(weights=str(path))
    try:
        return gauss_from(found.card["settings"], found.weights)
    except ValueError as wrong:
        raise ValueError(f"weights {path}: {str(wrong).removeprefix('weights: ')}") from None


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"weights: {name}: expected shape {shape}, got {tuple(tensor.shape)}")
