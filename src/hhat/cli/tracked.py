"""One run of a tracker over the slots of a file: the method it takes, its steps, and what they come to."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hhat.bench.metrics import mean_interval_db, squared_ratio
from hhat.bench.scores import noise_floor, prediction_error
from hhat.cli.journal import Journal
from hhat.cli.task import Task, noise_words
from hhat.extrapolation.model import Sounding
from hhat.io.estimates import estimates_file
from hhat.io.sequence import Sequence
from hhat.methods.auto import Choice
from hhat.methods.base import Method
from hhat.methods.solve import track
from hhat.random import generator
from hhat.types import Estimate, Gaussian, Observation, Slot, State, Status

HOLDOUT = "holdout."
"""The second fold, which sees first receptions alone"""


def chosen_for(task: Task, slots: Sequence, first: Slot) -> Choice:
    """The method that is asked for; else `srs-extrapolation` for pilots that hop, where the file tells the array, the
    tones and the period, and `sparse-tracking` for all else."""
    name, reason = task.method, "asked for"
    if not name and _extrapolates(slots, first):
        name, reason = "srs-extrapolation", "every slot sounds other tones: the whole band from the last slots' paths"
    elif not name:
        reason = "coefficients that appear, fade and vanish from slot to slot"
        name = "sparse-tracking"
    found = replace(task, method=name).choice(first)
    return found._replace(name=name, why=found.why.replace("asked for", reason, 1))


def _extrapolates(slots: Sequence, first: Slot) -> bool:
    if not slots.hops or not isinstance(first.obs, Observation):
        return False
    return Sounding.of(first.about, first.obs.op.in_shape[0]) is not None


@dataclass
class Run:
    """A track under way: the state after `done` slots, and a journal of what these gave."""

    task: Task
    method: Method
    journal: Journal
    states: dict[str, State | None]
    """One fold per entry: "", and HOLDOUT where there is one; None before the first slot"""
    done: int = 0
    noise: str = "not used"

    def step(self, slots: Sequence) -> None:
        """The next slot."""
        slot = slots.slot(self.done)
        est, seconds = self._fold("", slot.obs)
        if self.done == 0:
            self.noise = noise_words(est, slot)
        record = np.zeros((), self.journal.dtype)
        record["seconds"], record["status"] = seconds, est.status.numpy()
        record["ratio"], record["floor"] = np.nan, np.nan
        if slot.truth is not None:
            record["ratio"] = self._ratios(est, slot)
        elif HOLDOUT in self.states:
            pair = slots.pair(self.done)
            assert pair is not None
            alone, _ = self._fold(HOLDOUT, pair[0].obs)
            record["ratio"] = prediction_error(pair[1].obs.y, pair[0].obs, alone).numpy()
            record["floor"] = noise_floor(pair).numpy()
        if "mean" in (record.dtype.names or ()):
            mean = est.belief.mean
            record["mean"], record["var"] = mean.resolve_conj().numpy(), est.belief.var.expand(mean.shape).numpy()
        self.journal.append(record)
        self.done += 1

    def _fold(self, lead: str, obs: Observation) -> tuple[Estimate, float]:
        """One timed step of one fold; its estimate is on the CPU."""
        gen = generator("track", self.task.seed, self.done)
        obs = obs.to(self.task.device)
        began = time.perf_counter()
        self.states[lead], est = next(track(self.method, [obs], self.states[lead], gen))
        if self.task.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        belief = Gaussian(est.belief.mean.cpu(), est.belief.var.cpu())
        return Estimate(belief, est.info, est.status.cpu()), seconds

    def _ratios(self, est: Estimate, slot: Slot) -> np.ndarray:
        try:
            return squared_ratio(est, slot.truth).numpy()
        except ValueError as wrong:
            raise ValueError(f"{self.task.file}: slot {self.done}: {wrong}") from None


def results(run: Run, first: Slot) -> dict[str, Any]:
    """Rows per slot, and what they come to: the score over all slots past the warm-up, its interval over links."""
    metric = "nmse_db" if first.truth is not None else "holdout_nmse_db" if HOLDOUT in run.states else None
    rows, status, seconds, total, count = [], {}, 0.0, 0.0, 0.0
    for index, record in enumerate(run.journal.records()):
        ended = record["status"].reshape(-1).tolist()
        ratio, floor = (torch.tensor(record[name]).reshape(-1) for name in ("ratio", "floor"))
        counts = {s.name: ended.count(int(s)) for s in Status if int(s) in ended}
        status = {name: status.get(name, 0) + counts.get(name, 0) for name in {**status, **counts}}
        seconds += float(record["seconds"])
        warm = torch.tensor(ended) != int(Status.WARMING_UP)
        total, count = total + torch.where(warm, ratio, 0.0), count + warm.double()
        row = {"slot": index, "metric": metric, "value": _db(ratio), "n": len(ended)}
        row |= {"floor_db": _db(floor)} if metric == "holdout_nmse_db" else {}
        rows.append(row | {"seconds": float(record["seconds"]), "status": counts})
    links = torch.as_tensor(total)[torch.as_tensor(count) > 0] / torch.as_tensor(count)[torch.as_tensor(count) > 0]
    score = None if metric is None or not len(links) else {"metric": metric, **mean_interval_db(links)._asdict()}
    return {"rows": rows, "score": score, "seconds_per_slot": seconds / len(rows), "status": status}


def _db(ratios: Any) -> float:
    return float(10 * ratios.mean().log10())


def write_estimates(out: Path, max_bytes: float, run: Run, told: dict[str, str], slots: Sequence, first: Slot) -> None:
    """The estimates of all slots, beside the capture. told: the method and why it."""
    # symbols of one record: the slots are none of y's batch axes
    lead = ("slot", *(f"batch_{i}" for i in range(len(first.obs.batch_shape)))) if slots.whole else None
    with estimates_file(out, run.task.file, max_bytes, lead) as sink:
        sink.describe(told["method"], told["why"])
        for record in run.journal.records():
            mean, var, status = (torch.tensor(record[name])[None] for name in ("mean", "var", "status"))
            sink.append(Estimate(Gaussian(mean, var), {}, status), first.obs.axes)
