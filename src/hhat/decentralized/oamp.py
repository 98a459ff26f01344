"""`oamp-decentralised`: OAMP whose LMMSE step runs at the units, in rounds of messages."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.decentralized.execute import Executor, Serial
from hhat.decentralized.method import lost_info, lost_status, lost_words
from hhat.decentralized.quantise import Floats, Quantiser, Sent, with_rounding
from hhat.decentralized.split import joined, pieces, split, unit_count, unit_operators
from hhat.decentralized.unheard import with_unheard
from hhat.decentralized.units import Job, Lost, Message, Unit
from hhat.decentralized.uploads import OK_BITS
from hhat.methods.base import Problem, problem
from hhat.methods.oamp import Oamp, extrinsic, surprise
from hhat.methods.working import finite
from hhat.ops.base import LinearOp, cached
from hhat.ops.compose import compose
from hhat.ops.coupling import coupled_axes
from hhat.ops.elementary import Identity
from hhat.ops.linalg import squared
from hhat.ops.posterior import condition
from hhat.ops.structured import Kron
from hhat.types import Estimate, Gaussian, Observation, Shape, State

FLOATS = Floats()
SERIAL = Serial()
NUMBER_BITS = 32
START_NUMBERS = 1
"""Numbers per unit before the first round: the energy of its pilots, which scales prior and noise"""
ENERGIES = ("residual", "promised", "noise_energy", "after")
"""Numbers per unit and round beside the belief: energies of y - A z before, what was promised of it, and after"""


class Views(NamedTuple):
    """How the coefficients meet the units: x -> z = mix(x), antennas in front; y_m = ops[m](z_m) + n."""

    mix: LinearOp
    ops: tuple[LinearOp, ...]


@dataclass(frozen=True)
class LinearWork(Job):
    """One unit's part of the LMMSE step: the exact posterior of its z_m under CN(z_pri, v_pri), v_pri the same for all
    antennas. For a combiner with orthonormal rows it is z + v/(v + s2) A^H (y - A z), without an inverse.

    request: z codes and scale, v (*batch, 1, ..), level (*batch, 1, ..): the noise to work with
    answer:  codes and scale of the step z_po - z_pri, its variance as v's shape, the ENERGIES, and ok: False for items
             that did not come out finite, which are as if this unit were lost for them
    """

    quantiser: Quantiser
    v_shape: Shape

    def answer(self, obs: Observation, request: Message) -> Message:
        z = self.quantiser.receive(Sent(request["codes"], request["scale"])).to(obs.y.dtype)
        op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
        v, noise, num_out = request["v"], request["level"], len(op.out_shape)
        event, out = tuple(range(-len(op.in_shape), 0)), tuple(range(-num_out, 0))
        given, left = condition(op, v, noise, like=obs.y), obs.y - op.apply(z)
        moved = given(left)[0]  # of the posterior from z on: y is met once, not for the step and the energies anew
        shared = tuple(axis for axis in event if self.v_shape[axis] == 1)
        var = given.var.expand(*obs.batch_shape, *op.in_shape).mean(shared, keepdim=True)
        step = self.quantiser.send(moved, len(event))
        batch = obs.batch_shape
        energies = (
            squared(left).sum(out),
            op.squares.apply(v.expand(z.shape)).sum(out),
            noise.expand(*batch, *op.out_shape).sum(out),
            squared(left - op.apply(moved)).sum(out),
        )
        answer = {"codes": step.codes, "scale": step.scale, "var": var}
        answer |= {name: value.expand(batch) for name, value in zip(ENERGIES, energies, strict=True)}
        # what is not finite in the step is not finite in the energy after it either
        ok = finite(var.expand(*batch, *var.shape[len(batch) :]), batch)
        ok = ok & torch.stack([value.expand(batch) for value in energies]).isfinite().all(0)
        if not bool(ok.all()):
            answer = {name: _zeroed(value, ~ok) for name, value in answer.items()}
        return {**answer, "ok": ok}

    def shapes(self, obs: Observation) -> dict[str, Shape]:
        batch, event = obs.batch_shape, tuple(obs.op.in_shape)
        told = dict.fromkeys(ENERGIES, batch)
        ones = (1,) * len(event)
        return {
            "codes": (*batch, *event, 2),
            "scale": (*batch, *ones),
            "var": (*batch, *self.v_shape),
            "ok": batch,
            **told,
        }


@dataclass(frozen=True, eq=False)
class DecentralisedOamp(Oamp):
    """`oamp` with its linear step at the units. For z = B_antennas x, B_antennas unitary, and one prior variance for
    all antennas, the posterior of z falls apart into the units':

      centre -> unit m:  z_m, v, s2        unit m -> centre:  E[z_m | y_m] - z_m,  Var[z_m | y_m]
      centre:  x_po = B_antennas^H (z_1, .., z_M)_po,  v_po = mean;  then extrinsic, denoiser and back, as `oamp`

    With orthonormal combiner rows r = x + (N/Q) B^H A^H (y - A B x), v_r = v (N/Q - 1) + s2 N/Q. Any combiner is taken;
    orthonormal rows only spare the units their factorisation. Without a quantiser the result is that of `oamp` with
    the same `average_axes`, round by round.
    average_axes: must hold the antenna axis; none: it and whatever the operator mixes
    quantiser: of both directions; its noise is added to v and to v_po. None: floats
    num_unit: none: as many as the operator has diagonal blocks over antennas, else one; executor: as `decentralised`
    A lost unit adds nothing in that round: its antennas keep their prior, the variance says so, and the status is
    DEGRADED where one is missing in the last round.
    info: as `oamp`; lost_units, lost_why, fronthaul_rounds (per item), fronthaul_bits_up and _down (per unit and
    round), fronthaul_bits_per_sample (all rounds, both directions, per pilot resource element).
    Raises ValueError where units share antennas, or the basis is not unitary over antennas or mixes them with others.
    """

    variance: ClassVar[str] = "posterior"
    num_unit: int | None = None
    quantiser: Quantiser | None = None
    executor: Executor | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.num_unit is not None and self.num_unit < 1:
            raise ValueError(f"oamp-decentralised: num_unit: expected at least 1, got {self.num_unit}")

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        self._views(obs, task)
        axes = self._axes(task)
        if -task.num_event not in axes:
            raise ValueError(f"oamp-decentralised: average_axes: expected {-task.num_event} (antennas), got {axes}")
        state = super().init(obs, gen)
        lost = torch.zeros(*obs.batch_shape, self._num_unit(obs), dtype=torch.bool, device=obs.y.device)
        v = state["v_pri"]
        each = (*obs.batch_shape, lost.shape[-1], *v.shape[len(obs.batch_shape) :])
        heard: State = {"heard": torch.zeros_like(state["x_pri"]), "heard_var": v.new_zeros(each)}
        heard["silent"] = torch.ones_like(lost)
        return {**state, **heard, "lost": lost, "why": "", "rounds": torch.zeros_like(state["count"])}

    def read(self, state: State, obs: Observation) -> Estimate:
        est = super().read(state, obs)
        part, task = split(obs, self._num_unit(obs))[0], problem(obs, self.prior)
        views, heard = self._views(obs, task), Gaussian(state["heard"], state["heard_var"])
        factor = self.factor(state, obs).var
        known = with_unheard(est.belief, state["silent"], heard, factor, views.mix, task.basis)
        z = views.ops[0].in_shape
        belief = math.prod(state["v_pri"].shape[len(obs.batch_shape) :])
        entries = (self.quantiser or FLOATS).count_bits(math.prod(z))
        up = entries + NUMBER_BITS * (belief + len(ENERGIES)) + OK_BITS
        down = entries + NUMBER_BITS * (belief + 1)
        total = state["rounds"] * (up + down) + START_NUMBERS * NUMBER_BITS
        info: dict[str, Any] = {
            **lost_info(state),
            "fronthaul_rounds": state["rounds"].to(torch.int64),
            "fronthaul_bits_up": up,
            "fronthaul_bits_down": down,
            "fronthaul_bits_per_sample": total / math.prod(part.op.out_shape),
        }
        return Estimate(known, {**est.info, **info}, lost_status(state))

    def _linear(self, state: State, obs: Observation, task: Problem, noise: Tensor) -> tuple[Gaussian, Gaussian, State]:
        """One round of messages, two where v_pri proves too small: that is seen only once the units have answered."""
        views, quantiser, num = self._views(obs, task), self.quantiser or FLOATS, task.num_event
        batch, v_shape = obs.batch_shape, tuple(state["v_pri"].shape[len(obs.batch_shape) :])
        parts = split(obs, len(views.ops))
        units = self._units(obs, views, v_shape)
        z = views.mix.apply(state["x_pri"])
        wanted = pieces(z, len(units), num)
        sent = [quantiser.send(part, num) for part in wanted]
        rounded = [quantiser.receive(item).to(obs.y.dtype) for item in sent]
        errors = [quantiser.error_var(part, item, num) for part, item in zip(wanted, sent, strict=True)]
        extra = torch.stack(errors).mean(0)
        level = noise.expand(*batch, *noise.shape[noise.ndim - len(task.op.out_shape) :])
        levels = pieces(level, len(units), len(task.op.out_shape))
        v = state["v_pri"] + extra

        def ask(v: Tensor) -> list[Message | Lost]:
            requests = [
                {"y": part.y, "codes": item.codes, "scale": item.scale, "v": v, "level": here}
                for part, item, here in zip(parts, sent, levels, strict=True)
            ]
            return (self.executor or SERIAL).ask(units, requests)

        answers = ask(v)
        why, rounds = lost_words(answers), 1
        residual, promised, expected = (_total(answers, name) for name in ENERGIES[:3])
        factor = surprise(residual, promised, expected, state["count"])
        if bool((factor != 1).any()):
            v = v * factor[(..., *(None,) * num)]
            answers = ask(v)
            why, rounds = lost_words(answers), 2
        mean, var = [], []
        for answer, here in zip(answers, rounded, strict=True):
            if isinstance(answer, Lost):  # nothing was learned of these antennas
                mean.append(here)
                var.append(v)
                continue
            step, ok = Sent(answer["codes"], answer["scale"]), answer["ok"][(..., *(None,) * num)]
            found = with_rounding(quantiser.receive(step).to(obs.y.dtype), answer["var"], v, quantiser.noise_var(step))
            mean.append(here + found.mean)
            var.append(torch.where(ok, found.var, v))
        before = Gaussian(views.mix.adjoint(joined(rounded, num)), v)
        all_lost = (
            torch.stack([answer["ok"] for answer in answers if not isinstance(answer, Lost)]).any(0).logical_not()
        )
        whole = joined(mean, num).masked_fill(all_lost[(..., *(None,) * num)], torch.nan)  # `solve` marks these items
        linear = Gaussian(views.mix.adjoint(whole), torch.stack(var).mean(0))
        there = [v.new_zeros(batch) if isinstance(answer, Lost) else answer["ok"] for answer in answers]
        lost = torch.stack([item == 0 for item in there], -1)
        shape = views.ops[0].in_shape
        fresh: State = {"lost": lost, "why": why, "rounds": state["rounds"] + rounds}
        fresh |= {"silent": state["silent"] & lost, "heard": state["heard"], "heard_var": state["heard_var"]}
        if bool(lost.any()):  # in every round, where a unit is silent in all: the others' last words are then all here
            told = [
                extrinsic(Gaussian(after, width), Gaussian(here, v))
                for after, width, here in zip(mean, var, rounded, strict=True)
            ]
            gone = lost[(..., *(None,) * num)]
            widths = torch.stack([item.var for item in told], len(batch))
            fresh["heard_var"] = torch.where(gone, state["heard_var"], widths)
            last = [
                torch.where(gone.select(len(batch), m), old, item.mean)
                for m, (old, item) in enumerate(zip(pieces(state["heard"], len(units), num), told, strict=True))
            ]
            fresh["heard"] = joined(last, num)
        return before, linear, {**fresh, "noise_var": self._noise(answers, v, noise, parts, task, shape)}

    def _noise(
        self,
        answers: list[Message | Lost],
        v: Tensor,
        noise: Tensor,
        parts: tuple[Observation, ...],
        task: Problem,
        shape: Shape,
    ) -> Tensor:
        """EM of the noise as `learned_noise` has it, from what the units that answered report; shape: of a unit's z."""
        there = [(answer, part) for answer, part in zip(answers, parts, strict=True) if not isinstance(answer, Lost)]
        tiny, num_out = torch.finfo(v.dtype).tiny, len(task.op.out_shape)
        known = v.new_zeros(())
        for answer, _ in there:
            share = (1 - answer["var"] / v.clamp_min(tiny)).clamp(0, 1) * answer["ok"][(..., *(None,) * task.num_event)]
            known = known + share.expand(*share.shape[: -task.num_event], *shape).sum(task.event())
        count = torch.stack([answer["ok"] * math.prod(part.op.out_shape) for answer, part in there]).sum(0)
        total = _total(answers, "after") + noise.flatten(-num_out)[..., 0] * known
        return (total / count.clamp_min(1)).reshape(*total.shape, *(1,) * num_out)

    def _num_unit(self, obs: Observation) -> int:
        return unit_count(obs.op) if self.num_unit is None else self.num_unit  # type: ignore[arg-type]

    def _axes(self, task: Problem) -> tuple[int, ...]:
        if self.average_axes is not None:
            return self.average_axes
        return tuple(sorted({-task.num_event, *coupled_axes(task.op)}))

    def _average(self, var: Tensor, task: Problem) -> Tensor:
        return var.mean(self._axes(task), keepdim=True)

    def _units(self, obs: Observation, views: Views, v_shape: Shape) -> tuple[Unit, ...]:
        quantiser = self.quantiser or FLOATS
        key = (self.prior, quantiser, views)
        job = LinearWork(quantiser, v_shape)
        made = cached(
            obs.op,  # type: ignore[arg-type]
            ("linear work", id(self.prior), id(quantiser), id(views), v_shape),
            lambda: (key, tuple(Unit(op, job) for op in views.ops)),
        )
        return made[1]

    def _views(self, obs: Observation, task: Problem) -> Views:
        num_unit = self._num_unit(obs)
        make = lambda: (self.prior, _views(obs, task.basis, num_unit))  # noqa: E731
        return cached(obs.op, ("views", num_unit, id(self.prior), obs.y.dtype), make)[1]  # type: ignore[arg-type]


def _zeroed(value: Tensor, where: Tensor) -> Tensor:
    return value.masked_fill(where[(..., *(None,) * (value.ndim - where.ndim))], 0)


def _views(obs: Observation, basis: LinearOp | None, num_unit: int) -> Views:
    """The antennas' half of the basis stays at the centre, the rest goes to the units."""
    op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
    if basis is None:
        return Views(Identity(op.in_shape), unit_operators(op, num_unit))
    left, right = (basis.left, basis.right) if isinstance(basis, Kron) else (basis, None)
    apart = isinstance(op, Kron) and right is not None and len(left.in_shape) == len(op.left.in_shape)
    if left.is_unitary and apart:
        assert isinstance(op, Kron) and right is not None
        behind = compose(op.right, right)
        mix = Kron(left, Identity(right.in_shape))
        return Views(mix, tuple(Kron(part.left, behind) for part in unit_operators(op, num_unit)))  # type: ignore[attr-defined]
    if left.is_unitary and right is None:
        return Views(left, unit_operators(op, num_unit))
    if num_unit == 1:
        return Views(Identity(basis.in_shape), (compose(op, basis),))
    raise ValueError(
        "oamp-decentralised: expected a basis Kron(unitary over antennas, anything over the rest), "
        f"got {type(basis).__name__} with {type(left).__name__} over the antennas"
    )


def _total(answers: list[Message | Lost], name: str) -> Tensor:
    """Sum over the units that answered, (*batch)."""
    return torch.stack([answer[name] for answer in answers if not isinstance(answer, Lost)]).sum(0)
