"""`posterior`: the exact Gaussian posterior of x given y = A x + n, by the cheapest exact way A's structure allows."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.ops.base import LinearOp, cached
from hhat.ops.conditional import Conditional
from hhat.ops.linalg import per_axis
from hhat.ops.ways import Sharing, way
from hhat.types import Gaussian


class Posterior(NamedTuple):
    """Belief on the view of x, and log p(y) per batch item (natural log, complex density)."""

    belief: Gaussian
    log_evidence: Tensor


def posterior(
    op: LinearOp, y: Tensor, prior: Gaussian, noise_var: Tensor | float, view: LinearOp | None = None
) -> Posterior:
    """Exact posterior of z = view(x), x ~ CN(prior.mean, diag prior.var), y = op(x) + CN(0, diag noise_var).

    y (*batch, *op.out_shape); prior.mean and prior.var broadcast to (*batch, *op.in_shape): an axis of size 1 is
    shared, and sharing is what opens the fast ways. noise_var broadcasts to y. The ways, first that fits: entry by
    entry; unitary factors moved onto y, their axes becoming a batch of small problems; Kronecker singular basis
    (one prior and one noise variance per item); Cholesky in data or coefficient space, whichever is smaller.

    Where a system is factored, noise below 1e-7 (complex64) or 1e-14 (complex128) of the signal's power at y is
    raised to that, and further where round-off would leave the system indefinite.
    Raises ValueError where shapes do not fit or a dense system would exceed LARGEST_SYSTEM unknowns.
    Source: Kay, Fundamentals of Statistical Signal Processing I, theorem 11.1, complex form.
    """
    given = condition(op, prior.var, noise_var, view, like=y)
    if bool(prior.mean.any()):
        mean = prior.mean.expand(*prior.mean.shape[: max(prior.mean.ndim - len(op.in_shape), 0)], *op.in_shape)
        shift, evidence = given(y - op.apply(mean))
        shift = shift + (mean if view is None else view.apply(mean))
    else:
        shift, evidence = given(y)
    shape = op.in_shape if view is None else view.out_shape
    return Posterior(Gaussian(shift, given.var), evidence.expand(shift.shape[: shift.ndim - len(shape)]))


def condition(
    op: LinearOp, var: Tensor, noise_var: Tensor | float, view: LinearOp | None = None, *, like: Tensor
) -> Conditional:
    """The factored form: `given.var` and `given(y - op(mean)) -> (shift, log_evidence)` for as many y as one likes.

    Arguments as `posterior`; `like` gives device and precision. How to factor is chosen once per operator, view and
    sharing of variances, and remembered by the operator.
    """
    op, view = op.like(like), None if view is None else view.like(like)
    real = like.dtype.to_real()
    noise = torch.as_tensor(noise_var, dtype=real, device=like.device)
    v = per_axis(var.to(real), len(op.in_shape), op.in_shape)
    s2 = per_axis(noise, len(op.out_shape), op.out_shape)
    sharing = Sharing.of(v, len(op.in_shape), s2, len(op.out_shape))
    # the view stands in the value too: a key by id must keep its object alive
    return cached(op, ("way", id(view), sharing), lambda: (view, way(_twin(op), sharing, view)))[1](v, s2)


def _twin(op: LinearOp) -> LinearOp:
    """The same operator with a memory of its own: a way that held the operator that remembers it would be a circle,
    and its tensors would wait for the garbage collector."""

    def make() -> LinearOp:
        twin = copy.copy(op)
        vars(twin).pop("_cache")
        return twin

    return cached(op, ("twin",), make)
