"""`em-turbo`: candidate cells of an off-grid delay-angle dictionary, tracked by message passing, EM of the rest."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from hhat.extrapolation.fit import timing_search
from hhat.extrapolation.follow import PATH, Follower, Window, moved, packed
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding, delay_steering
from hhat.methods.oamp import Oamp
from hhat.ops import KhatriRao
from hhat.ops.linalg import squared
from hhat.tracking.dynamics import Belief, MarkovGauss
from hhat.tracking.sparse import through_slot
from hhat.types import Gaussian, Observation, State

DAMPING = 0.5
"""Of the message back to the linear step"""
ACTIVE = 0.5
"""P(s = 1) from which a cell is active"""
START = (0.99, 0.1)
"""P(s = 1) and variance, as a share of |gain|^2, of the cells that stage 1 names"""
GRID_STEP = (0.05, 0.6)
"""Of a grid line per EM iteration, as a share of the interval, and its factor from one iteration to the next"""
DOPPLER_SHARE = 0.5
"""Of a Newton step of the Doppler shift that is taken"""
BELIEF = ("activity", "mean", "var", "power")
CELL = ("cell", "psi", "doppler_hz", *BELIEF)
PATHS = tuple(PATH + name for name in Paths._fields)
"""What the state holds per cell"""


class Grid(NamedTuple):
    """Lines of the dictionary, evenly spaced: delay (seconds, from 0) and direction cosines (modulo 2)."""

    delay: Tensor
    u: Tensor
    v: Tensor

    def interval(self) -> tuple[float, float, float]:
        return float(self.delay[1] - self.delay[0]), 2.0 / len(self.u), 2.0 / len(self.v)

    def sizes(self) -> tuple[int, int, int]:
        return len(self.delay), len(self.u), len(self.v)


@dataclass(frozen=True, eq=False)
class EmTurbo(Follower):
    """Y = e^{j phi} D(d) sum_c e_c x_c a(tau_c) b(u_c, v_c)^T + W over the cells c of a delay x angle grid:

      x        `MarkovGauss`: s theta, s a Markov chain, theta Gauss-Markov; e_c = e^{j psi_c} its accumulated Doppler
               phase, psi(m) = psi(m - 1) + 2 pi f_c T
      cells    active ones and their 6 neighbours, at most max_cells
      E-step   `inner_steps` steps of `oamp` with a variance per cell on the cells' Khatri-Rao operator
      M-step   grid lines tau, u, v by the sign of the gradient, at steps that shrink; phase and timing; f_c by a
               damped Newton step with its prior, em_steps times, after a search of phase and timing over all delays

    em_step:     False: the E-step alone: no phase, timing, Doppler or grid updates
    delay_lines, largest_delay_s: of the grid; angle lines are twice as many as columns and rows
    dynamics:    None: MarkovGauss(1e-4, 0.02, 0.1, inflation=0.1, apart=False, variance_rate=0, memory=None)
    doppler_std_hz, delay_std_s, cosine_std: random walks per symbol
    Variance: the sum of the cells' variances, equal for all tones: OAMP is mean-field in the cells, whose errors are in
    truth correlated, strongly for neighbours within a band part's resolution, so that outside the sounded part it is
    too small. For the same reason the trace term of the M-step vanishes: |a|, |b| do not depend on the lines.
    Source: Wan & Liu 2024, section IV, as reconstructed. Departures: candidate cells in place of the full grid, where
    columns of a contiguous band part are too collinear for a scalar variance; phase and timing searched globally.
    """

    em_step: bool = True
    em_steps: int = 8
    inner_steps: int = 4
    max_cells: int = 400
    delay_lines: int = 256
    largest_delay_s: float | int = 4e-6
    dynamics: MarkovGauss | None = None
    doppler_std_hz: float | int = 2.0
    delay_std_s: float | int = 3e-10
    cosine_std: float | int = 2e-3

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("em_steps", 1), ("inner_steps", 1), ("max_cells", 1), ("delay_lines", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"EmTurbo: {name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("largest_delay_s", "doppler_std_hz", "delay_std_s", "cosine_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"EmTurbo: {name}: expected a number above 0, got {getattr(self, name)}")

    def grid(self, model: Sounding, like: Tensor) -> Grid:
        line = lambda n: -1 + 2 * torch.arange(n, dtype=torch.float64, device=like.device) / n  # noqa: E731
        delay = torch.arange(self.delay_lines, dtype=torch.float64, device=like.device)
        return Grid(
            delay * float(self.largest_delay_s) / self.delay_lines, line(2 * model.columns), line(2 * model.rows)
        )

    def begin(self, window: Window, paths: Paths, offsets: Offsets) -> State:
        grid = self.grid(self._model(), paths.delay_s)
        sizes = grid.sizes()
        step = grid.interval()
        exact = (paths.delay_s / step[0], (paths.cosine[..., 0] + 1) / step[1], (paths.cosine[..., 1] + 1) / step[2])
        line = [exact[0].round().clamp(0, sizes[0] - 1), exact[1].round(), exact[2].round()]
        rest = [(x - n).clamp(-1, 1) * s for x, n, s in zip(exact, line, step, strict=True)]
        line = [n.long() % size for n, size in zip(line, sizes, strict=True)]
        cell = (line[0] * sizes[1] + line[1]) * sizes[2] + line[2]
        power = squared(paths.gain) * paths.mask
        # of paths that share a line the strongest sets where it lies: weakest first, the last one written stays
        order = power.argsort(-1)
        lines: State = {}
        for name, index, value, size in zip(("off_delay", "off_u", "off_v"), line, rest, sizes, strict=True):
            start = value.new_zeros(len(value), size)
            for k in range(order.shape[1]):
                at = order[:, k : k + 1]
                some = torch.where(paths.mask.gather(1, at), value.gather(1, at), start.gather(1, index.gather(1, at)))
                start = start.scatter(1, index.gather(1, at), some)
            lines[name] = start
        count = math.prod(sizes)
        room = cell.new_zeros(len(cell), count)
        gain = paths.gain.new_zeros(room.shape).scatter_add(1, cell, paths.gain * paths.mask)
        doppler = power.new_zeros(room.shape).scatter_add(1, cell, paths.doppler_hz * power)
        doppler = doppler / power.new_zeros(room.shape).scatter_add(1, cell, power).clamp_min(1e-300)
        named = gain != 0
        energy = squared(gain)
        typical = energy.sum(-1, keepdim=True) / named.sum(-1, keepdim=True).clamp_min(1)
        on, spread = START
        full = {
            "activity": on * named.double(),
            "mean": gain[..., None].expand(*gain.shape, 2),
            "var": torch.where(named, spread * energy, typical)[..., None].expand(*gain.shape, 2),
            "power": torch.where(named, torch.maximum(energy, 0.1 * typical), typical),
            "psi": torch.zeros_like(energy),
            "doppler_hz": doppler,
        }
        chosen = self._candidates(
            named, full["activity"] + energy / energy.amax(-1, keepdim=True).clamp_min(1e-300), sizes
        )
        state = {**lines, "cell": chosen, **{k: _taken(v, chosen) for k, v in full.items()}}
        state["activity"] = state["activity"].masked_fill(chosen < 0, 0.0)
        return {
            **state,
            **self._told(state, grid, Offsets(*(power.new_zeros(len(power), 1),) * 2), state["mean"][..., 1]),
        }

    def follow(self, state: State, window: Window, elapsed_s: float) -> State:
        model = self._model()
        grid = self.grid(model, window.noise_var)
        law = self.dynamics or MarkovGauss(1e-4, 0.02, 0.1, 0.1, False, 0.0, memory=None)
        state = {**state, **self._renewed(state, grid, law)}
        room = state["cell"].shape[1]
        used = int((state["cell"] >= 0).sum(-1).max())  # candidates come first: the rest of the room is not worked on
        state = {**state, **{name: state[name][:, :used] for name in CELL}}
        live = state["cell"] >= 0
        psi_before, doppler_before = state["psi"], state["doppler_hz"]
        predicted = law.predict(Belief(*(state[name] for name in BELIEF)))
        prior = predicted.mixture()
        y, tones = window.newest(), model.tones_hz(window.noise_var)[window.index[0]]
        noise = window.noise_var
        before = {name: state[name] for name in ("off_delay", "off_u", "off_v")}
        common = Offsets(torch.zeros_like(noise)[:, None], torch.zeros_like(noise)[:, None])
        pilots, zero = Sounded(window.y[:, :, :1], window.index[:1], noise[:, None, None, None]), noise.new_zeros(1)
        x = prior.moments().mean * live
        turn = self._turned(psi_before, doppler_before, elapsed_s) if self.em_step else torch.zeros_like(psi_before)
        seen = None
        inner = Oamp(damping=DAMPING, average_axes=())
        for count in range(self.em_steps):
            op = self._columns(state, grid, turn, tones)
            if self.em_step:
                common = timing_search(model, self._paths(state, grid, turn, x), pilots, zero, coherent=True)
            clean = y * _common(common, tones).conj()
            obs = Observation(clean, op, noise[:, None, None])
            est, _ = through_slot(inner, prior, noise[:, None, None], obs, self.inner_steps)
            seen, belief = est.info["pseudo_observation"], est.info["coefficients"]
            x = belief.mean * live
            if not self.em_step:
                break
            rest = clean - op.apply(x)
            state = {**state, **self._moved_lines(state, before, grid, op, x, rest, tones, noise, count)}
            state["doppler_hz"] = self._doppler(state["doppler_hz"], doppler_before, op, x, rest, noise, elapsed_s)
            turn = self._turned(psi_before, state["doppler_hz"], elapsed_s)
        assert seen is not None
        after = law.update(predicted, law.see(predicted, Gaussian(seen.mean, seen.var)))
        new = {name: getattr(after, name) for name in BELIEF}
        new["activity"] = torch.where(live, new["activity"], 0.0)
        state = {**state, **new, "psi": turn}
        told = self._told(state, grid, common, x)
        var = torch.where(live, belief.var, 0.0).sum(-1)
        told["h_var"] = var[:, None, None].expand(-1, 1, model.num_subcarriers)
        state = {**state, **told, "change": _change(told, state)}
        return {**state, **{name: _padded(state[name], room) for name in (*CELL, *PATHS)}}

    def _turned(self, psi: Tensor, doppler_hz: Tensor, elapsed_s: float) -> Tensor:
        return torch.remainder(psi + 2 * math.pi * doppler_hz * elapsed_s, 2 * math.pi)

    def _candidates(self, active: Tensor, rank: Tensor, sizes: tuple[int, int, int]) -> Int[Tensor, "item cell"]:
        """Active cells, then their neighbours along each axis, the strongest first; -1 where there are none."""
        shape = (len(active), *sizes)
        on, level = active.reshape(shape), torch.where(active, rank, 0.0).reshape(shape)
        near, best = torch.zeros_like(on), torch.zeros_like(level)
        for axis in (1, 2, 3):
            for shift in (-1, 1):
                there, strength = on.roll(shift, axis), level.roll(shift, axis)
                if axis == 1:  # delays have ends, angles have none
                    edge = 0 if shift == 1 else sizes[0] - 1
                    there, strength = there.clone(), strength.clone()
                    there[:, edge], strength[:, edge] = False, 0.0
                near, best = near | there, torch.maximum(best, strength)
        wanted = torch.where(on, 10 + level, torch.where(near, best + 1e-9, -1.0)).flatten(1)
        value, cell = wanted.topk(min(self.max_cells, wanted.shape[1]), dim=1)
        return torch.where(value >= 0, cell, -1)

    def _renewed(self, state: State, grid: Grid, law: MarkovGauss) -> State:
        """The candidate set around what is active now; a cell that enters starts stationary, with its strongest
        neighbour's Doppler shift unknown: 0."""
        sizes, cell = grid.sizes(), state["cell"]
        active, items = (state["activity"] > ACTIVE) & (cell >= 0), len(cell)
        room = torch.zeros(items, math.prod(sizes) + 1, dtype=torch.bool, device=cell.device)
        safe = torch.where(cell >= 0, cell, room.shape[1] - 1)
        on = room.scatter(1, safe, active)[:, :-1]
        energy = squared(state["mean"][..., 1])
        rank = energy.new_zeros(room.shape).scatter(1, safe, energy / energy.amax(-1, keepdim=True).clamp_min(1e-300))
        chosen = self._candidates(on, rank[:, :-1], sizes)
        typical = (energy * active).sum(-1, keepdim=True) / active.sum(-1, keepdim=True).clamp_min(1)
        start = float(law.appear / (law.appear + law.vanish))
        fresh = {
            "activity": torch.full_like(typical, start),
            "mean": state["mean"].new_zeros(items, 1, 2),
            "var": typical[..., None].expand(items, 1, 2),
            "power": typical,
            "psi": torch.zeros_like(typical),
            "doppler_hz": torch.zeros_like(typical),
        }
        new: State = {"cell": chosen}
        for name, value in fresh.items():
            old = state[name]
            full = value.expand(items, room.shape[1], *value.shape[2:]).clone()
            full = full.scatter(1, safe.reshape(items, -1, *(1,) * (old.ndim - 2)).expand(old.shape), old)
            full[:, -1] = value[:, 0]
            new[name] = _taken(full, torch.where(chosen >= 0, chosen, room.shape[1] - 1))
        new["activity"] = torch.where(chosen >= 0, new["activity"], 1e-12)
        return new

    def _place(self, state: State, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """delay and cosine of every candidate, and the lines it lies on."""
        sizes = grid.sizes()
        cell = state["cell"].clamp_min(0)
        v, u, delay = cell % sizes[2], cell // sizes[2] % sizes[1], cell // (sizes[1] * sizes[2])
        at = grid.delay[delay] + state["off_delay"].gather(1, delay)
        cosine = torch.stack([grid.u[u] + state["off_u"].gather(1, u), grid.v[v] + state["off_v"].gather(1, v)], -1)
        return at, cosine, delay, u, v

    def _columns(self, state: State, grid: Grid, turn: Tensor, tones: Tensor) -> KhatriRao:
        delay, cosine, *_ = self._place(state, grid)
        right = delay_steering(tones, delay) * torch.polar(torch.ones_like(turn), turn)[:, None]
        live = (state["cell"] >= 0)[:, None]
        return KhatriRao(self._model().array_steering(cosine).mT * live, right)

    def _moved_lines(self, state, before, grid, op, x, rest, tones, noise, count) -> State:
        """Every line that holds an active cell, one step along the sign of the gradient of
        |rest|^2 / noise_var and of its random walk since the last symbol."""
        _, _, *line = self._place(state, grid)
        slopes = cell_slopes(self._model(), op, x, rest, tones)
        active = (state["activity"] > ACTIVE) & (state["cell"] >= 0)
        share = GRID_STEP[0] * GRID_STEP[1] ** count
        spread = (self.delay_std_s, self.cosine_std, self.cosine_std)
        new: State = {}
        for name, slope, index, interval, std in zip(before, slopes, line, grid.interval(), spread, strict=True):
            value = state[name]
            own = torch.zeros_like(value).scatter_add(1, index, slope / noise[:, None])
            gradient = own - (value - before[name]) / std**2
            holds = torch.zeros_like(value).scatter_add(1, index, active.double()) > 0
            step = share * interval * gradient.sign() * holds
            new[name] = (value + step).clamp(-interval, interval)
        return new

    def _doppler(self, value, before, op, x, rest, noise, elapsed_s) -> Tensor:
        rate = 2 * math.pi * elapsed_s
        slope = 2 * rate * (-1j * x.conj() * op.adjoint(rest)).real / noise[:, None]
        weight = op.left.matrix.shape[-2] * op.right.matrix.shape[-2]
        prior = 1 / float(self.doppler_std_hz) ** 2
        bend = 2 * rate**2 * squared(x) * weight / noise[:, None] + prior
        return value + DOPPLER_SHARE * (slope - (value - before) * prior) / bend

    def _paths(self, state: State, grid: Grid, turn: Tensor, x: Tensor) -> Paths:
        delay, cosine, *_ = self._place(state, grid)
        live = state["cell"] >= 0
        return Paths(x * torch.polar(torch.ones_like(turn), turn) * live, delay, cosine, state["doppler_hz"], live)

    def _told(self, state: State, grid: Grid, common: Offsets, x: Tensor) -> State:
        """The cells as paths as received now."""
        paths, live = self._paths(state, grid, state["psi"], x), state["cell"] >= 0
        paths = moved(paths, 0.0, common.phase_rad, common.timing_s)
        var = torch.where(live, state["activity"] * state["var"][..., 1], 0.0).sum(-1)
        var = var[:, None, None].expand(-1, 1, self._model().num_subcarriers)
        return {**packed(paths), "h_var": var}

    @classmethod
    def example(cls, gen: torch.Generator) -> "EmTurbo":
        return cls(Sounding(2, 2, tuple(120e3 * n for n in range(24))))


def cell_slopes(
    model: Sounding, op: KhatriRao, x: Tensor, rest: Tensor, tones: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of -|rest|^2, rest = y - op(x), by the delay, u and v of every cell, (item, cell) each: 2 Re x^* times
    the correlation of rest with the column's derivative."""
    left, right = op.left.matrix.conj(), op.right.matrix.conj()
    along, inside = left * (rest @ right), rest.mT @ left  # (item, rx_ant, cell) and (item, tone, cell)
    late = (2j * math.pi * tones[:, None] * right * inside).sum(1)
    place = -2j * math.pi * model.positions(tones)
    turned = [(place[:, axis, None] * along).sum(1) for axis in (0, 1)]
    delay, u, v = (2 * (x.conj() * slope).real for slope in (late, *turned))
    return delay, u, v


def _common(common: Offsets, tones: Tensor) -> Tensor:
    """e^{j phi} e^{-j 2 pi f d}, (item, 1, tone)."""
    angle = common.phase_rad - 2 * math.pi * torch.remainder(common.timing_s * tones, 1.0)
    return torch.polar(torch.ones_like(angle), angle)[:, None]


def _change(new: State, old: State) -> Tensor:
    """Relative change of the power of all paths, which knows no common phase."""
    after, before = (squared(state["path.gain"]).sum(-1) for state in (new, old))
    return ((after.sqrt() - before.sqrt()).square() / after.clamp_min(torch.finfo(after.dtype).tiny)).detach()


def _padded(value: Tensor, room: int) -> Tensor:
    short = room - value.shape[1]
    fill = value.new_full((len(value), short, *value.shape[2:]), -1 if value.dtype == torch.int64 else 0)
    return torch.cat([value, fill], 1) if short else value


def _taken(full: Tensor, cell: Tensor) -> Tensor:
    index = cell.clamp_min(0)
    return full.gather(1, index.reshape(*index.shape, *(1,) * (full.ndim - 2)).expand(*index.shape, *full.shape[2:]))
