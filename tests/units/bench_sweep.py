"""A sweep of 200 cells as a program of its own, to be killed: python -m tests.units.bench_sweep RUNS LANES."""

import sys
import time

from hhat.bench.execute import Lanes, Processes, Serial
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.bench.run import complete
from hhat.bench.store import Store
from tests.units.bench_fakes import Scaled, White

CELLS = 200
CELL_S = 0.02


class Slow(Scaled):
    """A cell that takes long enough to be killed in."""

    def step(self, state, obs):
        time.sleep(CELL_S)
        return super().step(state, obs)


EXPERIMENT = Experiment(
    name="test/sweep",
    title="A sweep to be killed",
    scenario=lambda point: White(float(point["snr_db"])),
    methods={"one": lambda scene: Slow(gain=1.0), "two": lambda scene: Slow()},
    profiles={"quick": Profile(grid({"snr_db": tuple(range(0, 50, 5))}), blocks=10, block_size=4)},
    metrics=("nmse_db",),
)


def lanes_of(name: str) -> Lanes:
    if name == "ray":
        from hhat.bench.ray_lanes import RayLanes

        return RayLanes("local", 2)
    return Processes(2) if name == "processes" else Serial()


def main(runs: str, name: str) -> None:
    put = Store.put

    def told(store, cell):
        put(store, cell)
        print(cell.key, flush=True)

    Store.put = told
    complete(EXPERIMENT, "quick", runs, progress=False, lanes=lanes_of(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
