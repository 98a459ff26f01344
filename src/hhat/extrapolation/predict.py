"""The channel between soundings: the paths of a tracker's state, later."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.extrapolation.follow import channel_later, unpacked
from hhat.extrapolation.model import Paths, Sounding
from hhat.extrapolation.uncertainty import channel_variance
from hhat.ops.linalg import squared
from hhat.types import Gaussian, State


def predict(model: Sounding, state: State, lag_s: float | Float[Tensor, " lag"]) -> Gaussian:
    """The channel lag_s after the newest symbol of a tracker's state (`sliding-joint-ml`, `path-ekf`).

      mean = sum_k gain_k e^{j 2 pi f_k t} a(tau_k) b(u_k, v_k)^T, phase and timing as they were at that symbol, and
             the rays around the paths where the state has them
      var  = diag(J(t) C J(t)^H) + misfit max(1, (t / T)^2), at most 2 E|h|^2,  C the state's covariance of the paths
             given their mean Doppler shift, weighed by power
    Mean and variance are up to a common phase: with a phase of its own in every sounding symbol a Doppler shift common
    to all paths cannot be seen, and what it turns all of the channel by, until t, is not known. A downlink slot has the
    phase of its own transmit chain besides, and no precoder depends on it.
    The first term holds Doppler shifts and their uncertainty, which grows with t. The second is what fading of paths
    that are in truth many (`misfit`, seen at T, the time between soundings) adds: a smooth process, so that it grows as
    t^2. Shifts beyond half the sounding rate are aliased and the prediction with them: paths at 120 km/h and 3.5 GHz
    turn by two cycles in 5 ms.
    lag_s: a number gives mean (*batch, rx_ant, subcarrier) and var (*batch, 1, subcarrier); a tensor of times has them
           as one more axis before the tones.
    Raises ValueError for a state without paths and covariance: before the first estimate, or of another tracker.
    """
    if "covariance" not in state:
        raise ValueError("predict: expected the state of sliding-joint-ml or path-ekf after its first estimate")
    batch = state["started"].shape
    flat = {k: v.flatten(0, len(batch) - 1) if batch else v[None] for k, v in state.items() if isinstance(v, Tensor)}
    paths = unpacked(flat)
    lags = torch.as_tensor(lag_s, dtype=torch.float64, device=paths.delay_s.device)
    times = lags.reshape(-1)
    mean = channel_later(model, flat, times)
    var = channel_variance(model, paths, _given_mean_doppler(paths, flat["covariance"]), times)
    growth = (times / model.period_s).square().clamp_min(1.0) if model.period_s else torch.ones_like(times)
    var = var + flat["misfit"].clamp_min(0)[:, None, None] * growth[:, None]
    most = 2 * squared(mean).mean((1, 2, 3))
    var = torch.minimum(var, most[:, None, None])
    live = flat["started"]
    mean = torch.where(live[:, None, None, None], mean, 0)
    var = torch.where(live[:, None, None], var, math.inf)[:, None]
    mean, var = (x.reshape((*batch, *x.shape[1:])) for x in (mean, var))
    return Gaussian(mean, var) if lags.ndim else Gaussian(mean[..., 0, :], var[..., 0, :])


def _given_mean_doppler(paths: Paths, covariance: Tensor) -> Tensor:
    """The covariance once the mean Doppler shift, weighed by power, is known."""
    power = squared(paths.gain) * paths.mask
    weight = power / power.sum(-1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)
    weight = torch.nn.functional.pad(weight, (covariance.shape[-1] - weight.shape[-1], 0))
    seen = (covariance @ weight[..., None])[..., 0]
    total = (seen * weight).sum(-1).clamp_min(torch.finfo(power.dtype).tiny)
    return covariance - seen[:, :, None] * seen[:, None] / total[:, None, None]
