"""How the weights of a surrogate move: Adam, diagonal message passing, and message passing with matrix-normal weights.

Each is a rule with a state of plain tensors: start(weights) -> state; update(weights, state, batch) -> both anew. All
networks go at once and none sees another. What is minimised is the mean of |R(wanted) - output|^2 over a batch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights

Parts = dict[str, Tensor]
NAMES = RecurrentWeights._fields
TINY = 1e-12


class Sequences(NamedTuple):
    """inputs (net, pilot, batch, 6) and what the output should be, (net, pilot, batch, 2)."""

    inputs: Tensor
    wanted: Tensor


class Moved(NamedTuple):
    """weights and state after a batch; error: mean |residual|^2 before it, (net,)."""

    weights: RecurrentWeights
    state: Parts
    error: Tensor


@runtime_checkable
class Rule(Protocol):
    name: ClassVar[str]

    def start(self, weights: RecurrentWeights) -> Parts: ...

    def update(self, weights: RecurrentWeights, state: Parts, batch: Sequences, count: int) -> Moved: ...


@dataclass(frozen=True)
class Adam:
    """Adam at a constant rate: on this network 2.4 dB better after five epochs than with a falling one. Source: Kingma
    & Ba, ICLR 2015, algorithm 1."""

    name: ClassVar[str] = "adam"
    rate: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)

    def start(self, weights: RecurrentWeights) -> Parts:
        return {f"{kind}/{n}": torch.zeros_like(w) for kind in ("first", "second") for n, w in _named(weights).items()}

    def update(self, weights: RecurrentWeights, state: Parts, batch: Sequences, count: int) -> Moved:
        trace = unit.forward(weights, batch.inputs)
        residual = batch.wanted - trace.output
        scores, into = _scored(weights, trace, residual)
        # of the mean squared error per real number
        scale = -2 / residual[0].numel()
        slope = unit.weight_scores(scores, residual, into)
        keep, keep_square = self.betas
        after, moved = {}, []
        for n, w, s in zip(NAMES, weights, slope, strict=True):
            g = scale * s
            first = torch.lerp(g, state[f"first/{n}"], keep)
            second = torch.lerp(g.square(), state[f"second/{n}"], keep_square)
            size = (second / (1 - keep_square ** (count + 1))).sqrt() + 1e-8
            moved.append(w - self.rate / (1 - keep ** (count + 1)) * first / size)
            after |= {f"first/{n}": first, f"second/{n}": second}
        return Moved(RecurrentWeights(*moved), after, _error(residual))


@dataclass(frozen=True)
class Diagonal:
    """Message passing with independent Gaussian weights, M <- M + damping V del, 1/V <- forget/V + lam.

    del, lam: scores and precisions that reach a weight through the linearised network at zero variance of states and
    weights, over the variance of the fit (a running mean of the squared residual). Every weight corrects the whole
    residual on its own: undamped it diverges.
    Source: the form that follows from AMP with nonlinear steps (Xu & Liu 2026, eqs. (22)-(27)), damped.
    """

    name: ClassVar[str] = "diagonal"
    damping: float = 0.1
    forget: float = 0.99

    def start(self, weights: RecurrentWeights) -> Parts:
        hidden = weights.hidden
        var = [torch.full_like(w, 1 / (hidden + unit.NUM_INPUTS)) for w in weights]
        var[2].fill_(1 / hidden)
        for part in var:
            part[..., -1] = 0.1
        found = {f"precision/{n}": 1 / v for n, v in zip(NAMES, var, strict=True)}
        return {**found, "fit_var": weights.out.new_full((weights.num_net,), 0.1)}

    def update(self, weights: RecurrentWeights, state: Parts, batch: Sequences, count: int) -> Moved:
        trace = unit.forward(weights, batch.inputs)
        residual = batch.wanted - trace.output
        mean_square = residual.square().mean((1, 2, 3))
        fit_var = 0.9 * state["fit_var"] + 0.1 * mean_square
        lam = 1 / fit_var[:, None, None, None].expand_as(residual)
        scores, into = _scored(weights, trace, residual * lam)
        slope = unit.weight_scores(scores, residual * lam, into)
        squares = _squared_scores(weights, trace, lam)
        seen = unit.weight_scores(squares, lam, RecurrentWeights(*(i.square() for i in into)))
        after, moved = {"fit_var": fit_var}, []
        for n, w, s, p in zip(NAMES, weights, slope, seen, strict=True):
            precision = self.forget * state[f"precision/{n}"] + p
            moved.append(w + self.damping * s / precision)
            after[f"precision/{n}"] = precision
        return Moved(RecurrentWeights(*moved), after, _error(residual))


@dataclass(frozen=True)
class MatrixNormal:
    """Message passing whose weight messages are matrix-normal, with a step length in closed form (K-DAMP).

        direction of block W: (G + a_G I)^-1 (mean del_o i^T) (A + a_A I)^-1,  A = E[i i^T],  G = E[del_o del_o^T]

    i: what the block multiplies; del_o: the residual, propagated back to what it gives; running means that keep
    `keep` of the past. a_G = sqrt(ridge) tr(G)/rows, a_A alike. The step is `damping` times the least squares fit of
    the residual by two columns: the change of the outputs along the direction, and along the last move.

    ridge: None: 0.05 up to 32 hidden states, 0.2 from 64 on (it has to grow with the network), between them as a power
    Source: diagonal message passing of Xu & Liu 2026, section IV, with blocks as in Martens & Grosse, ICML 2015.
    """

    name: ClassVar[str] = "message-passing"
    ridge: float | None = None
    damping: float = 0.8
    keep: float = 0.9
    refresh: int = 5

    def ridge_for(self, hidden: int) -> float:
        if self.ridge is not None:
            return self.ridge
        share = min(max(math.log2(hidden / 32), 0.0), 1.0)
        return 0.05 * 4**share

    def start(self, weights: RecurrentWeights) -> Parts:
        found: Parts = {}
        for block, (rows, columns) in _blocks(weights).items():
            eye = [torch.eye(n).to(weights.out).expand(weights.num_net, n, n).clone() for n in (rows, columns)]
            for kind, matrix in zip(("rows", "columns"), eye, strict=True):
                found[f"{kind}/{block}"] = torch.zeros_like(matrix)
                found[f"{kind} inverse/{block}"] = matrix
        return {**found, **{f"move/{n}": torch.zeros_like(w) for n, w in _named(weights).items()}}

    def update(self, weights: RecurrentWeights, state: Parts, batch: Sequences, count: int) -> Moved:
        trace = unit.forward(weights, batch.inputs)
        slope = unit.slopes(trace)
        residual = batch.wanted - trace.output
        scores = unit.backward(weights, slope, residual)
        into = unit.block_inputs(trace)
        after = self._averages(weights, state, _split(scores, residual), into, count)
        score = unit.weight_scores(scores, residual, into)
        move = RecurrentWeights(*(state[f"move/{n}"] for n in NAMES))
        columns = [_unit(self._direction(weights, after, score)), _unit(move)]
        change = unit.tangent(weights, trace, slope, columns).movedim(0, 1).flatten(2)
        length = self.damping * _least_squares(change, residual.flatten(1))
        step = [length[:, 0, None, None] * a + length[:, 1, None, None] * b for a, b in zip(*columns, strict=True)]
        after |= {f"move/{n}": s for n, s in zip(NAMES, step, strict=True)}
        return Moved(RecurrentWeights(*(w + s for w, s in zip(weights, step, strict=True))), after, _error(residual))

    def _averages(
        self, weights: RecurrentWeights, state: Parts, scores: Mapping[str, Tensor], into: RecurrentWeights, count: int
    ) -> Parts:
        """A and G of all blocks, and every `refresh` batches their inverses. Early means count all batches alike."""
        keep = min(self.keep, count / (count + 1))
        root = math.sqrt(self.ridge_for(weights.hidden))
        after = dict(state)
        shared: dict[str, Tensor] = {}
        for block, score in scores.items():
            # z and c have one and the same input
            source = _SOURCE[block]
            if source not in shared:
                shared[source] = _gram(getattr(into, source))
            for kind, gram in (("rows", _gram(score)), ("columns", shared[source])):
                name = f"{kind}/{block}"
                after[name] = torch.lerp(gram, state[name], keep)
                if count % self.refresh == 0:
                    after[f"{kind} inverse/{block}"] = _inverse(after[name], root)
        return after

    def _direction(self, weights: RecurrentWeights, state: Parts, score: RecurrentWeights) -> RecurrentWeights:
        hidden = weights.hidden
        blocks = {"z": score.gates[:, :hidden], "c": score.gates[:, hidden:], "u": score.update, "out": score.out}
        found = {b: state[f"rows inverse/{b}"] @ s @ state[f"columns inverse/{b}"] for b, s in blocks.items()}
        return RecurrentWeights(torch.cat([found["z"], found["c"]], 1), found["u"], found["out"])


RULES: dict[str, Rule] = {rule.name: rule for rule in (Adam(), Diagonal(), MatrixNormal())}
_SOURCE = {"z": "gates", "c": "gates", "u": "update", "out": "out"}


def _named(weights: RecurrentWeights) -> Parts:
    return dict(zip(NAMES, weights, strict=True))


def _scored(weights: RecurrentWeights, trace: unit.Trace, score: Tensor) -> tuple[unit.Scores, RecurrentWeights]:
    return unit.backward(weights, unit.slopes(trace), score), unit.block_inputs(trace)


def _squared_scores(weights: RecurrentWeights, trace: unit.Trace, lam: Tensor) -> unit.Scores:
    """Precisions go back as scores do, with every factor squared."""
    slope = unit.Slopes(*(part.square() for part in unit.slopes(trace)))
    return unit.backward(RecurrentWeights(*(w.square() for w in weights)), slope, lam)


def _error(residual: Tensor) -> Tensor:
    """Mean |residual|^2 per complex number."""
    return residual.square().sum(-1).mean((1, 2))


def _blocks(weights: RecurrentWeights) -> dict[str, tuple[int, int]]:
    hidden, columns = weights.hidden, weights.update.shape[-1]
    return {"z": (hidden, columns), "c": (hidden, columns), "u": (hidden, columns), "out": (2, hidden + 1)}


def _split(scores: unit.Scores, out_score: Tensor) -> Parts:
    hidden = scores.update.shape[-1]
    return {
        "z": scores.gates[..., :hidden],
        "c": scores.gates[..., hidden:],
        "u": scores.update,
        "out": out_score,
    }


def _gram(x: Tensor) -> Tensor:
    """(net, pilot, batch, n) -> mean x x^T, (net, n, n)."""
    flat = x.flatten(1, 2)
    return flat.mT @ flat / flat.shape[1]


def _inverse(matrix: Tensor, root: float) -> Tensor:
    size = matrix.shape[-1]
    level = root * matrix.diagonal(dim1=-2, dim2=-1).mean(-1) + TINY
    eye = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix + level[:, None, None] * eye))


def _unit(move: RecurrentWeights) -> RecurrentWeights:
    norm = sum(part.square().sum((1, 2)) for part in move).sqrt().clamp_min(TINY)  # type: ignore[union-attr]
    return RecurrentWeights(*(part / norm[:, None, None] for part in move))


def _least_squares(columns: Tensor, residual: Tensor) -> Tensor:
    """columns (net, 2, num), residual (net, num) -> (net, 2), ridge 1e-4 of each column's own energy."""
    gram = columns @ columns.mT
    energy = gram.diagonal(dim1=-2, dim2=-1)
    gram = gram + torch.diag_embed(1e-4 * energy + TINY)
    return torch.linalg.solve(gram, (columns @ residual[..., None]))[..., 0]
