"""Which profile holds: share of channels for which each criterion of `experts-vb` finds it, and what its q is worth.

    python -m benchmarks.expert_selection [-n 40] [--evidence 500] [--points 0.6:10 ..] [--seed 77] [--out FILE.jsonl]

n channels of each of CDL-A to D, fixed arrays, as in benchmarks/experts_table. Criteria:

  evidence     of y, closed form, under the exact covariances or under the mean powers of the networks (`--evidence`
               channels of each profile; these cost little)
  L, C, L + C  of `Judgement`, weights as printed and by bins, with the package's networks, of an estimate:
                 blend     the paper's first: all networks together, equal shares, its sampler
                 evidence  that of the network which the evidence takes, same sampler
                 truth     the channel itself: what the criterion is worth where nothing is left to estimate

Per line: share right with its 95 % interval (Wilson), all profiles and each; mean q of the expert taken; over the
channels whose greatest q is below 0.999, how many there are, their mean q and their share right.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

import hhat
from benchmarks.experts_table import drawn
from hhat.experiments import experts, experts_gauss, experts_nets
from hhat.methods.expert_choice import Judgement
from hhat.priors.experts import Experts
from hhat.priors.gauss import Gauss
from hhat.priors.schedule import Schedule

SURE = 0.999
Z = 1.96


def wilson(share: float, n: int) -> list[float]:
    middle, half = share + Z * Z / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return [round((middle + sign * half) / (1 + Z * Z / n), 3) for sign in (-1, 1)]


def line(q: torch.Tensor, **about: Any) -> dict[str, Any]:
    """q: (channels, K), as many of each profile, in their order."""
    n = len(q) // len(experts.PROFILES)
    right = q.argmax(-1).reshape(-1, n) == torch.arange(len(experts.PROFILES))[:, None]
    sure = q.amax(-1).double()
    open_ = sure < SURE
    share, doubts = float(right.double().mean()), int(open_.sum())
    return {
        **about,
        "n": n,
        "right": round(share, 3),
        "interval": wilson(share, len(q)),
        "by_profile": [round(x, 3) for x in right.double().mean(1).tolist()],
        "mean_q": round(float(sure.mean()), 4),
        "open": doubts,
        "open_q": round(float(sure[open_].mean()), 3) if doubts else None,
        "open_right": round(float(right.flatten()[open_].double().mean()), 3) if doubts else None,
    }


def moments_of(prior: Experts) -> Experts:
    """Each expert by its mean and variance alone."""
    now = [expert.moments() for expert in prior.experts]
    pairs = zip(now, prior.experts, strict=True)
    return Experts([Gauss(m.var, m.mean, e.basis, ndim=e.ndim) for m, e in pairs], names=prior.names, ndim=prior.ndim)


def by_evidence(alpha: float, snr_db: float, n: int, seed: int) -> list[dict[str, Any]]:
    scene, slot = drawn("fixed", alpha, snr_db, n, seed)
    found = []
    for name, prior in (
        ("covariances", experts_gauss.covariances(16, 64, "horizontal", "fixed")),
        ("mean powers of the networks", moments_of(experts_nets.networks(scene))),
    ):
        est = hhat.solve(hhat.method("covariance-mixture", prior=prior), slot.obs)
        found.append(line(est.info["probability"], criterion="evidence", of=name, alpha=alpha, snr_db=snr_db))
    return found


def by_judgement(alpha: float, snr_db: float, n: int, seed: int) -> list[dict[str, Any]]:
    scene, slot = drawn("fixed", alpha, snr_db, n, seed)
    nets, schedule = experts_nets.networks(scene), Schedule()
    one = {"prior": nets, "likelihood": "dmps", "max_steps": 1}
    estimates = {
        "blend": hhat.solve(hhat.method("experts-vb", start="uniform", **one), slot.obs).belief.mean,
        "evidence": hhat.solve(hhat.method("experts-vb", **one), slot.obs).belief.mean,
        "truth": slot.truth.h,
    }
    whole, noise = nets.expand((), tuple(slot.obs.op.in_shape), slot.obs.y), slot.obs.noise_var
    found = []
    for name, h in estimates.items():
        fit = Judgement().fit(h, whole, slot.obs, noise, schedule)
        scores = {"C": fit}
        for weights in ("printed", "bins"):
            bound = Judgement(weights=weights).bound(h, whole, schedule)
            scores |= {f"L ({weights})": bound, f"L + C ({weights})": bound + fit}
        for criterion, score in scores.items():
            found.append(line(score.softmax(-1), criterion=criterion, of=name, alpha=alpha, snr_db=snr_db))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=40)
    parser.add_argument("--evidence", type=int, default=500)
    parser.add_argument("--points", nargs="+", default=["0.6:-10", "0.6:0", "0.6:10", "0.6:30", "0.3:-10", "0.3:10"])
    parser.add_argument("--judged", nargs="+", default=["0.6:0", "0.6:10", "0.6:30", "0.3:10"])
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for points, of, n in ((asked.points, by_evidence, asked.evidence), (asked.judged, by_judgement, asked.n)):
        for point in points:
            for found in of(*map(float, point.split(":")), n, asked.seed):
                print(json.dumps(found), flush=True)
                if asked.out is not None:
                    with asked.out.open("a") as file:
                        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
