"""`Follower`: what trackers of paths through hopping soundings share: a memory of symbols, a start, one step a slot."""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hhat.extrapolation.columns import channel_at
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding, sounded
from hhat.extrapolation.task import Task
from hhat.methods.base import Method
from hhat.methods.solve import solve
from hhat.ops import Hops, Identity, Kron
from hhat.types import Estimate, Gaussian, Observation, State, Status

AXES = ("rx_ant", "symbol", "subcarrier")
PATH = "path."
"""In front of the names of `Paths` in a state"""


class Window(NamedTuple):
    """The symbols a tracker remembers of some items, newest first: y, complex128; index and times_s, 0 for the newest
    and negative before it; noise_var (item), and place, the positions of the symbols in the state's memory."""

    y: Complex[Tensor, "item rx_ant symbol tone"]
    index: Int[Tensor, "symbol tone"]
    times_s: Float[Tensor, " symbol"]
    noise_var: Float[Tensor, " item"]
    place: Int[Tensor, " symbol"]

    def newest(self) -> Complex[Tensor, "item rx_ant tone"]:
        return self.y[:, :, 0]

    def recent(self, size: int) -> "Window":
        """Its newest symbols."""
        return Window(self.y[:, :, :size], self.index[:size], self.times_s[:size], self.noise_var, self.place[:size])

    def chance(self) -> Float[Tensor, " item"]:
        """Standard deviation of the mean noise power over the newest symbol's samples."""
        return self.noise_var / math.sqrt(self.y.shape[1] * self.y.shape[3])


@dataclass(frozen=True, eq=False)
class Follower(Method):
    """A channel of paths followed from symbol to symbol. A slot is one symbol: Kron(Identity((rx_ant,)), Select).

      the first `num_symbols` slots   WARMING_UP, infinite variance; then stage 1 on all of them, `begin`
      every later slot                `follow`

    The state's paths are those of the channel as received at the newest symbol: its common phase is in the gains and
    its timing in the delays, so that h = sum of them with phase and timing 0. An item that misses a slot goes on at its
    next one; while it warms up it starts again, since stage 1 needs consecutive symbols.
    model:       the law of the channel
    stage1:      a method for the joint observation of num_symbols symbols with info "paths" and "offsets"; None:
                 `joint-ml`
    num_symbols: of stage 1; None: twice the number of hops, ceil(subcarriers / tones of a symbol)
    num_paths:   room for paths
    Raises ValueError without a model, and for slots whose operator or number of tones is another one.
    """

    tracks: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    model: Sounding | None = None
    stage1: Method | None = None
    num_symbols: int | None = None
    num_paths: int = 36

    def __post_init__(self):
        if self.num_symbols is not None and self.num_symbols < 2:
            raise ValueError(f"{self._name}: num_symbols: expected at least 2, got {self.num_symbols}")
        if self.num_paths < 1:
            raise ValueError(f"{self._name}: num_paths: expected at least 1, got {self.num_paths}")

    @abc.abstractmethod
    def begin(self, window: Window, paths: Paths, offsets: Offsets) -> State:
        """The tracker's part of the state, of some items in one batch axis, from what stage 1 found: paths as received
        at the newest symbol, offsets of the symbols of the window against it. Holds `packed` paths and "h_var"."""

    @abc.abstractmethod
    def follow(self, state: State, window: Window, elapsed_s: float) -> State:
        """The tracker's part of the next state of some items; elapsed_s since their last symbol."""

    def memory(self, num_tones: int) -> int:
        """Symbols that the state remembers."""
        return self._first(num_tones)

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        model, batch = self._model(), obs.batch_shape
        now = sounded(model, obs)
        rx, tones = now.y.shape[-3], now.y.shape[-1]
        size = self.memory(tones)
        one = torch.ones(batch, dtype=torch.float64, device=obs.y.device)
        stamp = torch.full((*batch, size), -size, dtype=torch.int64, device=obs.y.device)
        return {
            "y": obs.y.new_zeros(*batch, size, rx, tones),
            "index": now.index.expand(*batch, size, tones).clone(),
            "stamp": stamp,
            "started": torch.zeros(batch, dtype=torch.bool, device=obs.y.device),
            "noise_var": one,
            "change": one,
            "slot": 0,
        }

    def step(self, state: State, obs: Observation) -> State:
        batch, lead = obs.batch_shape, len(obs.batch_shape)
        now = sounded(self._model(), obs)
        flat = {k: v.flatten(0, lead - 1) if lead else v[None] for k, v in state.items() if isinstance(v, Tensor)}
        flat = self._stepped(flat, state["slot"], now, batch)
        return {**{k: v.reshape((*batch, *v.shape[1:])) for k, v in flat.items()}, "slot": state["slot"] + 1}

    def read(self, state: State, obs: Observation) -> Estimate:
        model, batch = self._model(), obs.batch_shape
        shape = (*batch, model.num_rx_ant, model.num_subcarriers)
        live = state["started"]
        if PATH + "gain" in state:
            paths = unpacked(state)
            lead = len(batch)
            flat = {k: v.flatten(0, lead - 1) if lead else v[None] for k, v in state.items() if isinstance(v, Tensor)}
            mean = channel_later(model, flat, live.new_zeros(1, dtype=torch.float64))[:, :, 0]
            mean, var = mean.reshape(shape), state["h_var"]
        else:
            paths, mean = None, torch.zeros(shape, dtype=torch.complex128, device=obs.y.device)
            var = mean.real[..., :1, :]
        status = torch.where(live, int(Status.OK), int(Status.WARMING_UP)).to(torch.int8)
        mean = torch.where(live[..., None, None], mean, 0)
        var = torch.where(live[..., None, None], var, torch.inf)
        belief = Gaussian(mean.to(obs.y.dtype), var.to(obs.y.real.dtype))
        given = obs.noise_var is not None
        noise = {"noise_var": obs.noise_var, "noise_var_source": "given"}
        if not given:
            noise = {"noise_var": state["noise_var"], "noise_var_source": "estimated"}
        return Estimate(belief, {"paths": paths, **noise}, status)

    def _stepped(self, flat: State, slot: int, now, batch) -> State:
        size, tones = flat["stamp"].shape[1], now.y.shape[-1]
        if tones != flat["y"].shape[-1]:
            raise ValueError(f"{self._name}: expected {flat['y'].shape[-1]} tones in every slot, got {tones}")
        here = slot % size
        rx = now.y.shape[-3]
        before = flat["stamp"].amax(-1)
        flat = {k: v.clone() if k in ("y", "index", "stamp", "started", "noise_var") else v for k, v in flat.items()}
        flat["y"][:, here] = now.y.reshape(-1, rx, tones)
        flat["index"][:, here] = now.index[0]
        flat["stamp"][:, here] = slot
        if now.noise_var is not None:
            flat["noise_var"] = now.noise_var.double().expand(*batch, 1, 1, 1).reshape(-1)
        first = self._first(tones)
        place = torch.tensor([(slot - i) % size for i in range(size)], device=now.y.device)
        kept = flat["stamp"][:, place] == slot - torch.arange(size, device=now.y.device)
        ready = ~flat["started"] & kept[:, :first].all(1)
        going = flat["started"]
        fresh: list[tuple[Tensor, State]] = []
        if bool(going.any()):
            # items that remember other symbols are apart: as a rule they are all alike
            missed = torch.cat([(slot - before)[:, None], kept.long()], 1)
            patterns, which = missed[going].unique(dim=0, return_inverse=True)
            rows = going.nonzero()[:, 0]
            for i, pattern in enumerate(patterns):
                some = rows[which == i]
                window = self._window(flat, some, place[pattern[1:] > 0], slot)
                elapsed_s = float(self._model().period_s) * int(pattern[0])
                fresh.append((some, self.follow({k: v[some] for k, v in flat.items()}, window, elapsed_s)))
        if bool(ready.any()):
            some = ready.nonzero()[:, 0]
            fresh.append((some, self._begun(flat, some, place[:first], slot, now.noise_var is not None)))
        new = dict(flat)
        for some, part in fresh:
            for key, value in part.items():
                whole = new.get(key)
                if whole is None:
                    whole = value.new_zeros(len(going), *value.shape[1:])
                new[key] = whole.index_copy(0, some, value)
        new["started"] = flat["started"] | ready
        return new

    def _window(self, flat: State, some: Tensor, place: Tensor, slot: int) -> Window:
        one = some[0]
        y = flat["y"][some][:, place].permute(0, 2, 1, 3).to(torch.complex128)
        times = self._model().period_s * (flat["stamp"][one, place] - slot).double()
        return Window(y, flat["index"][one, place], times, flat["noise_var"][some], place)

    def _begun(self, flat: State, some: Tensor, place: Tensor, slot: int, known: bool) -> State:
        return self._acquired(self._window(flat, some, place, slot), known)

    def _acquired(self, window: Window, known: bool = True) -> State:
        """Stage 1 on a window's symbols, oldest first, and the tracker's start from it. known: noise was given."""
        model, items = self._model(), len(window.y)
        op = Kron(Identity((model.num_rx_ant,)), Hops(window.index.flip(0), model.num_subcarriers))
        noise = window.noise_var[:, None, None, None] if known else None
        est = solve(self._stage1(), Observation(window.y.flip(2), op, noise, AXES))
        if not known:
            found = torch.as_tensor(est.info["noise_var"], dtype=torch.float64)
            window = window._replace(noise_var=found.reshape(items, -1).mean(-1))
        paths, offsets = received(est.info["paths"], est.info["offsets"], -window.times_s[-1])
        new = self.begin(window, fitted_to(paths, self.num_paths), offsets)
        return {"noise_var": window.noise_var, **new}

    def _stage1(self) -> Method:
        if self.stage1 is not None:
            return self.stage1
        from hhat.extrapolation.joint_ml import JointMl

        return JointMl(self._model())

    def _first(self, num_tones: int) -> int:
        return self.num_symbols or 2 * self.hops(num_tones)

    def hops(self, num_tones: int) -> int:
        return max(1, math.ceil(self._model().num_subcarriers / num_tones))

    def _model(self) -> Sounding:
        if self.model is None:
            raise ValueError(
                f"{self._name}: model: expected a Sounding, got None; Sounding.of(about, num_rx_ant) gives it"
            )
        return self.model

    @property
    def _name(self) -> str:
        return type(self).__name__


def received(paths: Paths, offsets: Offsets, time_s: Tensor) -> tuple[Paths, Offsets]:
    """Paths as received at the last symbol, at time_s, from those at the first; offsets of the symbols against it,
    newest first."""
    phase, timing = offsets.phase_rad[..., -1:], offsets.timing_s[..., -1:]
    new = moved(paths, time_s, phase, timing)
    return new, Offsets((offsets.phase_rad - phase).flip(-1), (offsets.timing_s - timing).flip(-1))


def channel_later(
    model: Sounding, state: State, time_s: Float[Tensor, " time"], offsets: Offsets | None = None
) -> Complex[Tensor, "item rx_ant time subcarrier"]:
    """The channel of a state's paths, and of what is `around` them where it says so, time_s after its symbol; offsets
    of phase and timing against that symbol's, 0 where not given."""
    paths = unpacked(state)
    items = len(paths.gain)
    still = time_s.new_zeros(items, len(time_s))
    y = torch.zeros(items, model.num_rx_ant, len(time_s), 1, dtype=torch.complex128, device=time_s.device)
    index = torch.zeros(len(time_s), 1, dtype=torch.int64, device=time_s.device)
    task = Task.make(model, Sounded(y, index, None), time_s)
    return channel_at(task, task.point(paths, offsets or Offsets(still, still)), state.get("around"))


def moved(paths: Paths, time_s: Tensor | float, phase_rad: Tensor, timing_s: Tensor) -> Paths:
    """Paths time_s later, of a symbol with this phase and timing; all broadcast against (*batch, path)."""
    turn = 2 * math.pi * torch.remainder(paths.doppler_hz * time_s, 1.0) + phase_rad
    gain = paths.gain * torch.polar(torch.ones_like(turn), turn)
    return paths._replace(gain=gain, delay_s=paths.delay_s + timing_s)


def now_channel(model: Sounding, paths: Paths) -> Complex[Tensor, "item rx_ant subcarrier"]:
    """The channel of paths alone as received: at time 0, phase and timing 0."""
    return channel_later(model, packed(paths), paths.delay_s.new_zeros(1))[:, :, 0]


def packed(paths: Paths) -> State:
    return {PATH + name: value for name, value in paths._asdict().items()}


def unpacked(state: State) -> Paths:
    return Paths(*(state[PATH + name] for name in Paths._fields))


def fitted_to(paths: Paths, count: int) -> Paths:
    """Room for exactly `count` paths: the strongest stay, places left over are masked."""
    have = paths.gain.shape[-1]
    if have > count:
        order = paths.gain.abs().masked_fill(~paths.mask, -1).argsort(-1, descending=True)[..., :count]
        pick = lambda x: x.gather(-1, order)  # noqa: E731
        cosine = paths.cosine.gather(-2, order[..., None].expand(*order.shape, 2))
        return Paths(pick(paths.gain), pick(paths.delay_s), cosine, pick(paths.doppler_hz), pick(paths.mask))
    pad = (0, count - have)
    grown = [torch.nn.functional.pad(x, pad) for x in (paths.gain, paths.delay_s, paths.doppler_hz, paths.mask)]
    cosine = torch.nn.functional.pad(paths.cosine, (0, 0, *pad))
    return Paths(grown[0], grown[1], cosine, grown[2], grown[3])
