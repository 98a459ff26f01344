"""One pass of a method over a file: what is asked for, and what adds up on the way."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from hhat.methods.auto import Choice
    from hhat.sensing.calibration import Calibration
    from hhat.types import Estimate, Observation, Slot


@dataclass
class Tally:
    """What a pass over the file adds up."""

    items: int = 0
    seconds: float = 0.0
    status: dict[str, int] = field(default_factory=dict)
    ratios: "list[Tensor]" = field(default_factory=list)
    """||e||^2 / ||h||^2 per snapshot, batch by batch, where the file carries truth"""

    def add(self, estimate: "Estimate", seconds: float) -> None:
        self.items += max(1, estimate.status.numel())
        self.seconds += seconds
        for name, count in estimate.status_counts().items():
            self.status[name] = self.status.get(name, 0) + count


@dataclass(frozen=True)
class Task:
    """What is estimated and how."""

    file: Path
    method: str
    prior: str | None
    settings: dict[str, Any]
    seed: int
    device: Any
    max_bytes: float
    calibration: "Calibration | None" = None
    """Gains and phases of the antennas: y = A diag(kappa) h"""

    def calibrated(self, slot: "Slot") -> "Slot":
        """The slot with the antennas' gains in its operator, so that the channel is the one before them."""
        from dataclasses import replace

        from hhat.types import Observation

        if self.calibration is None or not isinstance(slot.obs, Observation):
            return slot
        obs: Any = slot.obs
        try:
            op = obs.op @ self.calibration.op(tuple(obs.op.in_shape)).like(obs.y)
        except ValueError as wrong:
            raise ValueError(f"--calibration: {wrong}") from None
        return replace(slot, obs=Observation(obs.y, op, obs.noise_var, obs.axes))

    def choice(self, slot: "Slot") -> "Choice":
        from hhat.distortion.record import DistortedPilots
        from hhat.methods.defaults import choice_for
        from hhat.types import Observation

        if isinstance(slot.obs, DistortedPilots):
            words = "holds pilots through receive chains that distort, which trackers of impairments take slot by slot"
            raise ValueError(f"{self.file}: {words}; expected pilots of a linear receiver")
        if not isinstance(slot.obs, Observation):
            raise ValueError(f"{self.file}: holds echoes, expected pilots; `hhat calibrate` takes echoes")
        return choice_for(self.method, slot.obs, slot.about, self.prior, self.settings)

    def solve(self, choice: "Choice", obs: "Observation", tally: Tally, *labels: str | int) -> "Estimate":
        """One timed call; its answer is on the CPU."""
        from dataclasses import replace

        import torch

        from hhat.methods.solve import solve
        from hhat.random import generator
        from hhat.types import Gaussian

        obs = obs.to(self.device)
        started = time.perf_counter()
        found = solve(choice.method, obs, gen=generator("estimate", self.seed, *labels))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        tally.add(found, time.perf_counter() - started)
        belief = Gaussian(found.belief.mean.cpu(), found.belief.var.cpu())
        return replace(found, belief=belief, status=found.status.cpu())
