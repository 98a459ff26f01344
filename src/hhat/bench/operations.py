"""Operations of the estimators of a near-field array, by formula: as this library carries them out, and as printed.

Unit: one complex multiply-add; a real one is a quarter. Counted are matrix products, factorisations, triangular
solves, transforms (n/2 log2 n for size n), convolutions, and in networks rectifiers and comparisons of a sort (real).
Work entry by entry (priors, M-steps without networks, divisions) is not: it is linear in the coefficients, and where it
outweighs the rest the measured time beside the count shows it. `hhat.bench.counter` counts what really runs.

Sizes are those of one problem: N antennas, K tones, Q beams; of the whole array for a centralised estimator.
"""

import itertools
import math
from typing import NamedTuple

from hhat.nets.graph import GraphSizes
from hhat.ops.cholesky import LARGEST_SPLIT, LEAF
from hhat.ops.systems import TABLE_ENTRIES, TABLE_ROWS

Number = float | int

REAL = 0.25
"""Of a complex multiply-add"""
KERNEL = 9
CONV_FEATURES = 5
PRINTED_GRAPH = GraphSizes(num_attributes=4, num_layers=5, rounds=3, message=(64, 32))
"""Tang et al. 2025: 5 layers, 3 rounds, messages 19 -> 64 -> 32 -> 8"""


class Sizes(NamedTuple):
    """Of one problem: y is beams x tones, the coefficients antennas x tones."""

    num_ant: int
    num_tones: int
    num_beams: int

    @property
    def unknowns(self) -> int:
        return self.num_ant * self.num_tones

    @property
    def samples(self) -> int:
        return self.num_beams * self.num_tones

    @property
    def product(self) -> int:
        """A times all columns: K Q N."""
        return self.num_tones * self.num_beams * self.num_ant


def fft(size: int, lines: int) -> Number:
    return lines * size / 2 * math.log2(size)


def e_step(s: Sizes) -> Number:
    """K systems of Q x Q: K (Q^2 N + Q^3 / 3) and what the form taken adds, by `ops.systems` and `ops.cholesky`."""
    n, k, q = s
    table = k >= TABLE_ROWS and q * q * n <= TABLE_ENTRIES
    covariance = q * q * n * (0.5 if table else 1.0)
    return k * (covariance + _factor(q) + _solve(q, n) + _solve(q, 1) + q * n) + fft(k, q)


def e_step_printed(s: Sizes) -> Number:
    """Phi^H Phi and the inverse of the information matrix of all coefficients: K^3 N^2 Q + (N K)^3."""
    return s.unknowns**2 * s.samples + s.unknowns**3


def _factor(size: int) -> Number:
    """Cholesky, and L^-1 where it is formed."""
    if size > LARGEST_SPLIT:
        return size**3 / 6
    if size <= LEAF:
        return size**3 / 6 + size**3 / 2
    half = size // 2
    return _factor(half) + _solve(half, half) + (size - half) ** 2 * half + _factor(size - half)


def _solve(size: int, columns: int) -> Number:
    """L^-1 times columns."""
    if size > LARGEST_SPLIT:
        return size**2 * columns / 2
    if size <= LEAF:
        return size**2 * columns
    half = size // 2
    return _solve(half, columns) + _solve(size - half, columns) + half * (size - half) * columns


def sbl(s: Sizes, steps: int, m_step: Number = 0) -> Number:
    """`steps` E- and M-steps, and a last E-step that sees the channel's variances through the basis."""
    view = s.num_tones * s.num_beams * s.num_ant**2
    return (steps + 1) * e_step(s) + steps * m_step + view + fft(s.num_tones, s.num_ant)


def sbl_printed(s: Sizes, steps: int, m_step: Number = 0) -> Number:
    return steps * (e_step_printed(s) + m_step)


def conv_m_step(s: Sizes, width: int = 16) -> Number:
    """A^H y and three 3 x 3 convolutions."""
    weights = KERNEL * (CONV_FEATURES * width + width**2 + width)
    return _matched(s) + REAL * s.unknowns * (weights + 2 * width)


def graph_m_step(s: Sizes, sizes: GraphSizes) -> Number:
    """A^H y and one layer of the graph with the sorted mean: pairs of one column alone, K N^2, and a sort."""
    node = _node(sizes)
    pairs = sizes.message[0] * (2 * s.num_tones * s.num_ant**2 + s.unknowns)
    own = s.unknowns * (3 * sizes.state * sizes.message[0])
    sort = sizes.message[0] * s.unknowns * math.log2(s.unknowns)
    return _matched(s) + REAL * (sizes.rounds * (s.unknowns * node.round + own + pairs + sort) + s.unknowns * node.end)


def graph_dense(s: Sizes, sizes: GraphSizes) -> Number:
    """One layer with a message for every pair, (N K)^2 of them."""
    widths = (2 * sizes.state + 2, *sizes.message, sizes.state)
    message = sum(a * b for a, b in itertools.pairwise(widths)) + sum(sizes.message)
    node = _node(sizes)
    rounds = sizes.rounds * (s.unknowns**2 * message + s.unknowns * node.round)
    return REAL * (rounds + s.unknowns * node.end)


def graph_printed(sizes: GraphSizes) -> Number:
    """One layer in Table II: L N_u N_h1 N_h2, without a factor for the number of pairs, (N K)^2."""
    return REAL * sizes.rounds * sizes.state * math.prod(sizes.message)


class _Node(NamedTuple):
    round: int
    end: int


def _node(sizes: GraphSizes) -> _Node:
    """Real multiply-adds of one node: GRU and state in a round, readout in the end."""
    memory = 3 * sizes.memory * (sizes.state + sizes.num_attributes + sizes.memory) + sizes.memory * sizes.state
    widths = (sizes.state, *sizes.readout, 1)
    end = sum(a * b for a, b in itertools.pairwise(widths)) + sum(sizes.readout)
    return _Node(memory, end)


def _matched(s: Sizes) -> Number:
    return s.product + fft(s.num_tones, s.num_beams)


def uamp(s: Sizes, steps: int) -> Number:
    """Two products per step in the singular basis of A, whose decomposition is made once and kept."""
    turn = s.num_tones * s.num_beams**2 + fft(s.num_tones, s.num_beams)
    end = fft(s.num_tones, s.num_ant) + fft(s.num_ant, s.num_tones)
    return turn + (2 * steps + 1) * s.product + end


def uamp_dense(s: Sizes, steps: int) -> Number:
    """The same with Phi as one matrix, and its singular value decomposition for every combiner, 3 n m^2 + 10 m^3 (half
    the 6 n m^2 + 20 m^3 operations of Golub & Van Loan, table 8.6.1). Ours: the paper's count is not known to us."""
    n, m = s.unknowns, min(s.samples, s.unknowns)
    return 3 * n * m**2 + 10 * m**3 + 2 * steps * n * s.samples


def oamp_unit(s: Sizes) -> Number:
    """A unit's part of one round: A z, the step by A^H, A times it; squared moduli in real numbers."""
    transforms = 2 * fft(s.num_tones, s.num_ant) + fft(s.num_tones, s.num_beams)
    return (3 + 2 * REAL) * s.product + s.num_tones * s.num_beams**2 + transforms


def oamp_rounds(s: Sizes, num_unit: int, rounds: int) -> Number:
    """s: of one unit. The centre turns the whole array's messages three times per round."""
    return rounds * (num_unit * oamp_unit(s) + 3 * fft(num_unit * s.num_ant, s.num_tones))


def oamp_dense(s: Sizes, num_unit: int, rounds: int) -> Number:
    """Every product with the unit's Phi and the centre's transform as matrices; Phi Phi^H = I, no inverse."""
    transform = 2 * (num_unit * s.num_ant) ** 2 * s.num_tones
    return rounds * (num_unit * 3 * s.samples * s.unknowns + transform)


def refinement(s: Sizes, steps: int = 30) -> Number:
    """s: of the whole array. A transform to its angles and delays per step; the chain is work entry by entry."""
    return (steps + 2) * (fft(s.num_ant, s.num_tones) + fft(s.num_tones, s.num_ant))


def refinement_printed(s: Sizes, num_unit: int) -> Number:
    """(13)-(14) with matrices: F_L^H X_m and F_A,m of it for every unit."""
    num_ant = s.num_ant // num_unit
    return num_unit * s.num_tones * (num_ant**2 + s.num_ant * num_ant)
