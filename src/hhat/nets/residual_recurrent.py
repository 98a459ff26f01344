"""Residual recurrent unit: a small gated network with memory per receive chain, all chains in one batched product.

    z_p = W_z [s_{p-1}; v_p; 1]      c_p = W_c [s_{p-1}; v_p; 1]
    m_p = Q(c_p) s_{p-1}             u_p = W_u [m_p; v_p; 1]
    s_p = (1 - Q(z_p)) s_{p-1} + Q(z_p) (2 Q(u_p) - 1),     s_0 = 0
    output_p = own entries of v_p + W_o [s_p; 1]

Q: standard normal distribution function, entry by entry. v_p: real parts of chains n-1, n, n+1, then imaginary parts;
a chain at the end of the array has a zero in place of the neighbour it lacks.
Source: Xu & Liu 2026, section III; there the biases stand apart and z, c, u are separate matrices.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NUM_INPUTS = 6
OWN = (1, 4)
"""Places of the chain's own real and imaginary part among the inputs"""
LEFT, RIGHT = (0, 3), (2, 5)
ROOT_HALF = math.sqrt(0.5)
PEAK = 1 / math.sqrt(2 * math.pi)
"""Density of N(0, 1) at 0"""


class RecurrentWeights(NamedTuple):
    """Weights, their variances, scores or steps; last column of each: the bias.

    gates: (net, 2 hidden, hidden + 7), rows z then c; columns: state, inputs, 1
    update: (net, hidden, hidden + 7); columns: filtered memory, inputs, 1
    out: (net, 2, hidden + 1)
    """

    gates: Tensor
    update: Tensor
    out: Tensor

    @property
    def hidden(self) -> int:
        return self.update.shape[-2]

    @property
    def num_net(self) -> int:
        return self.update.shape[0]

    def take(self, index: Tensor | slice) -> "RecurrentWeights":
        """Some of the networks, or one of them many times."""
        return RecurrentWeights(*(part[index] for part in self))

    def to(self, where: torch.dtype | torch.device | str) -> "RecurrentWeights":
        return RecurrentWeights(*(part.to(where) for part in self))

    def flat(self) -> Tensor:
        """(net, 3 hidden (hidden + 7) + 2 (hidden + 1))."""
        return torch.cat([part.flatten(1) for part in self], 1)


class Trace(NamedTuple):
    """What the forward pass leaves for slopes: (net, pilot, batch, ...), symbols before one another.

    before: s_{p-1}; opened: Q(z), Q(c); gates: z, c; kept: 2 Q(u) - 1; update: u; filtered: m; inputs: v; output
    """

    before: Tensor
    opened: Tensor
    gates: Tensor
    kept: Tensor
    update: Tensor
    filtered: Tensor
    inputs: Tensor
    states: Tensor
    output: Tensor


class Slopes(NamedTuple):
    """Derivatives of s_p and m_p entry by entry, each (net, pilot, batch, hidden):

    by_z, by_u, by_state of s_p (the last one direct); filter_by_c, filter_by_state of m_p
    """

    by_z: Tensor
    by_u: Tensor
    by_state: Tensor
    filter_by_c: Tensor
    filter_by_state: Tensor


class Scores(NamedTuple):
    """Derivatives of a sum by z and c (net, pilot, batch, 2 hidden), and by u (net, pilot, batch, hidden)."""

    gates: Tensor
    update: Tensor


def neighbour_inputs(signal: Tensor) -> Tensor:
    """(batch, pilot, rx_ant) complex -> (rx_ant, pilot, batch, 6) real, zeros for neighbours that are not there."""
    own = torch.view_as_real(signal.permute(2, 1, 0).resolve_conj())
    none = torch.zeros_like(own[:1])
    padded = torch.cat([none, own, none])
    return torch.stack([padded[:-2], own, padded[2:]], -1).flatten(-2)


def own_parts(signal: Tensor) -> Tensor:
    """(batch, pilot, rx_ant) complex -> (rx_ant, pilot, batch, 2) real: what `Trace.output` is held against."""
    return torch.view_as_real(signal.permute(2, 1, 0).resolve_conj())


def signal_of(parts: Tensor) -> Tensor:
    """The inverse of `own_parts`: (rx_ant, pilot, batch, 2) -> (batch, pilot, rx_ant)."""
    return torch.view_as_complex(parts.contiguous()).permute(2, 1, 0)


def present(num_net: int, left: tuple[int, ...], right: tuple[int, ...], hidden: int) -> RecurrentWeights:
    """1 for weights that exist, 0 for those of a missing neighbour: the networks of `left` have none on the left, those
    of `right` none on the right. Sum of it: the number of weights, 3 H^2 + 6 H |S| + 5 H + 2 per network."""
    rows = torch.ones(num_net, NUM_INPUTS)
    for nets, places in ((left, LEFT), (right, RIGHT)):
        for net in nets:
            rows[net, list(places)] = 0
    ends = torch.ones(num_net, 1)
    columns = torch.cat([torch.ones(num_net, hidden), rows, ends], 1)[:, None, :]
    return RecurrentWeights(
        columns.expand(-1, 2 * hidden, -1).clone(),
        columns.expand(-1, hidden, -1).clone(),
        torch.ones(num_net, 2, hidden + 1),
    )


def start(mask: RecurrentWeights, gen: torch.Generator) -> RecurrentWeights:
    """N(0, 1/(hidden + 6)) for gates and update, N(0, 1/hidden) for the output, biases 0; 0 where `mask` is. The same
    draw for every network, so that one does not depend on which others are trained."""
    hidden = mask.hidden
    first = []
    for part, fan_in in zip(mask, (hidden + NUM_INPUTS, hidden + NUM_INPUTS, hidden), strict=True):
        draw = torch.randn(part.shape[1:], generator=gen) / math.sqrt(fan_in)
        draw[:, -1] = 0
        first.append(draw * part)
    return RecurrentWeights(*first)


def forward(weights: RecurrentWeights, inputs: Tensor) -> Trace:
    """inputs (net, pilot, batch, 6) -> all that `backward`, `input_jacobian` and `tangent` need; `.output` is
    (net, pilot, batch, 2). Products of all symbols with inputs are taken at once; the recurrence has two per symbol."""
    hidden = weights.hidden
    gates_in = _affine(weights.gates[..., hidden:], inputs)
    update_in = _affine(weights.update[..., hidden:], inputs)
    gates_state = weights.gates[..., :hidden].mT.contiguous()
    update_state = weights.update[..., :hidden].mT.contiguous()
    state = inputs.new_zeros(inputs.shape[0], inputs.shape[2], hidden)
    before, opened, gates, kept, update, filtered = [], [], [], [], [], []
    for p in range(inputs.shape[1]):
        before.append(state)
        gates.append(torch.baddbmm(gates_in[:, p], state, gates_state))
        opened.append(cdf(gates[-1]))
        filtered.append(opened[-1][..., hidden:] * state)
        update.append(torch.baddbmm(update_in[:, p], filtered[-1], update_state))
        kept.append(torch.erf(update[-1] * ROOT_HALF))
        state = torch.lerp(state, kept[-1], opened[-1][..., :hidden])
    states = torch.stack([*before[1:], state], 1)
    output = inputs[..., OWN] + _affine(weights.out, states)
    first, second, third, fourth, fifth, sixth = (
        torch.stack(part, 1) for part in (before, opened, gates, kept, update, filtered)
    )
    return Trace(first, second, third, fourth, fifth, sixth, inputs, states, output)


def slopes(trace: Trace) -> Slopes:
    hidden = trace.before.shape[-1]
    z, c = trace.gates[..., :hidden], trace.gates[..., hidden:]
    open_z, open_c = trace.opened[..., :hidden], trace.opened[..., hidden:]
    return Slopes(
        (trace.kept - trace.before) * density(z),
        2 * open_z * density(trace.update),
        1 - open_z,
        trace.before * density(c),
        open_c,
    )


def backward(weights: RecurrentWeights, slope: Slopes, out_score: Tensor) -> Scores:
    """Back-propagates d(sum)/d(output), (net, pilot, batch, 2), through the states."""
    hidden = weights.hidden
    gates_state = weights.gates[..., :hidden].contiguous()
    update_state = weights.update[..., :hidden].contiguous()
    seen = _product(weights.out[..., :hidden].mT, out_score)
    later = torch.zeros_like(seen[:, 0])
    gates, update = [], []
    for p in reversed(range(seen.shape[1])):
        score = seen[:, p] + later
        update.append(score * slope.by_u[:, p])
        filtered = torch.bmm(update[-1], update_state)
        gates.append(torch.cat([score * slope.by_z[:, p], filtered * slope.filter_by_c[:, p]], -1))
        direct = torch.addcmul(score * slope.by_state[:, p], filtered, slope.filter_by_state[:, p])
        later = torch.baddbmm(direct, gates[-1], gates_state)
    return Scores(torch.stack(gates[::-1], 1), torch.stack(update[::-1], 1))


def block_inputs(trace: Trace) -> RecurrentWeights:
    """What each block of weights multiplies, with the 1 of the bias: three of (net, pilot, batch, columns)."""
    ones = torch.ones_like(trace.inputs[..., :1])
    return RecurrentWeights(
        torch.cat([trace.before, trace.inputs, ones], -1),
        torch.cat([trace.filtered, trace.inputs, ones], -1),
        torch.cat([trace.states, ones], -1),
    )


def weight_scores(scores: Scores, out_score: Tensor, into: RecurrentWeights) -> RecurrentWeights:
    """d(sum)/d(weights), summed over symbols and batch."""
    outer = zip((*scores, out_score), into, strict=True)
    return RecurrentWeights(*(s.flatten(1, 2).mT @ i.flatten(1, 2) for s, i in outer))


def input_score(weights: RecurrentWeights, scores: Scores, out_score: Tensor) -> Tensor:
    """d(sum)/d(inputs), (net, pilot, batch, 6)."""
    places = slice(weights.hidden, weights.hidden + NUM_INPUTS)
    found = _product(weights.gates[..., places].mT, scores.gates) + _product(
        weights.update[..., places].mT, scores.update
    )
    found[..., OWN] += out_score
    return found


def tangent(weights: RecurrentWeights, trace: Trace, slope: Slopes, moves: list[RecurrentWeights]) -> Tensor:
    """d(output) along each of several moves of the weights: (move, net, pilot, batch, 2)."""
    hidden, into = weights.hidden, block_inputs(trace)
    gates_state = weights.gates[..., :hidden].mT.contiguous()
    update_state = weights.update[..., :hidden].mT.contiguous()
    count, batch = len(moves), trace.inputs.shape[2]

    def beside(place: int) -> Tensor:
        """(net, pilot, move batch, rows): the moves stand beside one another in the batch."""
        return torch.cat([_product(move[place], into[place]) for move in moves], 2)

    gates_move, update_move, out_move = beside(0), beside(1), beside(2)
    wide = Slopes(*(part.repeat(1, 1, count, 1) for part in slope))
    state = gates_move.new_zeros(trace.inputs.shape[0], count * batch, hidden)
    states = []
    for p in range(trace.inputs.shape[1]):
        state = _step(state, gates_move[:, p], update_move[:, p], gates_state, update_state, wide, p)
        states.append(state)
    found = out_move + _product(weights.out[..., :hidden], torch.stack(states, 1))
    return found.unflatten(2, (count, batch)).movedim(2, 0)


def input_jacobian(weights: RecurrentWeights, trace: Trace) -> Tensor:
    """d(output)/d(inputs) by forward sensitivities, 6 columns more with every symbol: (net, batch, 2 pilot, 6 pilot),
    rows and columns symbol by symbol, 0 above the causal blocks."""
    hidden, slope = weights.hidden, slopes(trace)
    net, pilot, batch = trace.inputs.shape[:3]
    gates_state = weights.gates[..., :hidden].mT.contiguous()
    update_state = weights.update[..., :hidden].mT.contiguous()
    places = slice(hidden, hidden + NUM_INPUTS)
    own = torch.eye(NUM_INPUTS, dtype=trace.inputs.dtype, device=trace.inputs.device)[list(OWN)]
    found = trace.inputs.new_zeros(net, batch, pilot, 2, pilot, NUM_INPUTS)
    state = trace.inputs.new_zeros(net, 0, hidden)
    for p in range(pilot):
        # columns (symbol, input) before batch: those of a new symbol are appended at the end
        old = state.shape[1]
        state = torch.cat([state, state.new_zeros(net, NUM_INPUTS * batch, hidden)], 1)
        gates_move = torch.zeros_like(state).repeat(1, 1, 2)
        update_move = torch.zeros_like(state)
        gates_move[:, old:] = weights.gates[..., places].mT.repeat_interleave(batch, 1)
        update_move[:, old:] = weights.update[..., places].mT.repeat_interleave(batch, 1)
        wide = Slopes(*(part[:, p : p + 1].repeat(1, 1, NUM_INPUTS * (p + 1), 1) for part in slope))
        state = _step(state, gates_move, update_move, gates_state, update_state, wide, 0)
        out = (state @ weights.out[..., :hidden].mT).unflatten(1, (p + 1, NUM_INPUTS, batch))
        found[:, :, p, :, : p + 1] = out.permute(0, 3, 4, 1, 2)
        found[:, :, p, :, p] += own
    return found.flatten(4, 5).flatten(2, 3)


def weight_jacobian(weights: RecurrentWeights, trace: Trace) -> RecurrentWeights:
    """d(output)/d(weights): parts (net, batch, 2 pilot, rows, columns), rows symbol by symbol. Every network is run
    back once, for 2 pilot one-hot scores beside one another in the batch."""
    net, pilot, batch = trace.inputs.shape[:3]
    num = 2 * pilot
    hot = torch.eye(num, dtype=trace.inputs.dtype, device=trace.inputs.device).unflatten(1, (pilot, 2))
    out_score = hot.movedim(0, 1)[None, :, None].expand(net, pilot, batch, num, 2).flatten(2, 3)
    wide = Slopes(*(part.repeat_interleave(num, 2) for part in slopes(trace)))
    scores = (*backward(weights, wide, out_score), out_score)
    into = (part.repeat_interleave(num, 2) for part in block_inputs(trace))
    parts = (torch.einsum("npbr,npbc->nbrc", s, i) for s, i in zip(scores, into, strict=True))
    return RecurrentWeights(*(part.unflatten(1, (batch, num)) for part in parts))


def cdf(x: Tensor) -> Tensor:
    """Of N(0, 1); erf is several times as fast as torch.special.ndtr."""
    return torch.erf(x * ROOT_HALF).add_(1).mul_(0.5)


def density(x: Tensor) -> Tensor:
    return torch.exp(x.square() * -0.5) * PEAK


def _step(
    state: Tensor, gates: Tensor, update: Tensor, gates_state: Tensor, update_state: Tensor, slope: Slopes, p: int
) -> Tensor:
    """One symbol of the linearised recurrence, from the moves of z, c and u that do not come through the state."""
    hidden = state.shape[-1]
    gates = torch.baddbmm(gates, state, gates_state)
    filtered = slope.filter_by_state[:, p] * state + slope.filter_by_c[:, p] * gates[..., hidden:]
    update = torch.baddbmm(update, filtered, update_state)
    return slope.by_state[:, p] * state + slope.by_z[:, p] * gates[..., :hidden] + slope.by_u[:, p] * update


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (net, rows, columns), x (net, pilot, batch, columns) -> (net, pilot, batch, rows)."""
    return torch.bmm(x.flatten(1, 2), matrix.mT).unflatten(1, x.shape[1:3])


def _affine(block: Tensor, x: Tensor) -> Tensor:
    """The same with the bias in the last column of `block`."""
    found = torch.baddbmm(block[..., -1][:, None], x.flatten(1, 2), block[..., :-1].mT)
    return found.unflatten(1, x.shape[1:3])
