"""`GraphStack`: per layer of an unfolded method, messages on a fully connected graph over a grid of K columns.

Nodes (B, K, N, .); pairs in different columns have the edge attribute 0, pairs in the same column one of (B, N, N).
What a node hears is the mean over all others of

  c_nk = P( [u_n; u_k; edge_nk; level] ),   P: linear layers with ReLU between them

summed by one of three functions that agree to round-off: `dense_mean` forms every pair (the reference), `factored_mean`
splits the first layer by its arguments and moves the last one behind the sum, `sorted_mean` needs O(n log n) operations
where P has one hidden layer.
Source: A. Tang et al. 2025, eqs. (33)-(38); mean in place of the sum of (35), whose 511 terms explode at the start.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MeanMessage = Callable[[nn.ModuleList, Tensor, Tensor, Tensor], Tensor]
"""(message layers, u (B, K, N, S), edge (B, N, N), level (B,)) -> (B, K, N, S): the mean over the other nodes"""


@dataclass(frozen=True)
class GraphSizes:
    """num_layers, and in each of them: rounds of messages; widths of the node's state u, of its memory (GRU), of the
    hidden layers of a message and of the readout; num_attributes: of a node."""

    num_attributes: int
    num_layers: int = 4
    rounds: int = 1
    state: int = 8
    memory: int = 64
    message: tuple[int, ...] = (16,)
    readout: tuple[int, ...] = (64, 32)


class GraphLayer(nn.Module):
    """One layer of the unfolded method: message P, GRU, state and readout."""

    def __init__(self, sizes: GraphSizes):
        super().__init__()
        heard = (*sizes.message, sizes.state)
        self.message = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip((2 * sizes.state + 2, *heard), heard, strict=False)
        )
        self.memory = nn.GRUCell(sizes.state + sizes.num_attributes, sizes.memory)
        self.state = nn.Linear(sizes.memory, sizes.state)
        answer = (*sizes.readout, 1)
        self.readout = nn.ModuleList(nn.Linear(a, b) for a, b in zip((sizes.state, *answer), answer, strict=False))


class GraphStack(nn.Module):
    """forward(attributes (B, K, N, A), edge (B, N, N), level (B,), memory, layer) -> (answer (B, K, N), memory).

    memory: (B, K, N, state + memory width), the node's state u beside the GRU's; zeros before layer 0. u starts from
    the attributes in layer 0 alone (its algorithm 1, line 8).
    """

    def __init__(self, sizes: GraphSizes):
        super().__init__()
        self.sizes = sizes
        self.start = nn.Linear(sizes.num_attributes, sizes.state)
        self.layers = nn.ModuleList(GraphLayer(sizes) for _ in range(sizes.num_layers))

    def forward(
        self,
        attributes: Tensor,
        edge: Tensor,
        level: Tensor,
        memory: Tensor,
        layer: int,
        mean: MeanMessage | None = None,
    ) -> tuple[Tensor, Tensor]:
        part: GraphLayer = self.layers[layer]  # type: ignore[assignment]
        mean = mean or (sorted_mean if len(self.sizes.message) == 1 else factored_mean)
        u, g = memory.split((self.sizes.state, self.sizes.memory), -1)
        if layer == 0:
            u = self.start(attributes)
        for _ in range(self.sizes.rounds):
            heard = torch.cat([mean(part.message, u, edge, level), attributes], -1)
            g = part.memory(heard.flatten(0, -2), g.reshape(-1, g.shape[-1])).reshape(*heard.shape[:-1], -1)
            u = part.state(g)
        answer = u
        for number, linear in enumerate(part.readout):
            answer = linear(answer if number == 0 else torch.relu(answer))
        return answer[..., 0], torch.cat([u, g], -1)


def dense_mean(message: nn.ModuleList, u: Tensor, edge: Tensor, level: Tensor) -> Tensor:
    """Every pair by itself, as printed: (K N)^2 pairs."""
    num_batch, num_columns, num_members, width = u.shape
    count = num_columns * num_members
    nodes = u.flatten(1, 2)
    eye = torch.eye(num_columns, dtype=u.dtype, device=u.device)
    whole = torch.einsum("kl,bnm->bknlm", eye, edge).reshape(num_batch, count, count)
    pairs = torch.cat(
        [
            nodes[:, :, None].expand(-1, -1, count, -1),
            nodes[:, None].expand(-1, count, -1, -1),
            whole[..., None],
            level[:, None, None, None].expand(-1, count, count, 1),
        ],
        -1,
    )
    for number, linear in enumerate(message):
        pairs = linear(pairs if number == 0 else torch.relu(pairs))
    others = 1 - torch.eye(count, dtype=u.dtype, device=u.device)
    heard = (pairs * others[..., None]).sum(2) / max(count - 1, 1)
    return heard.reshape(num_batch, num_columns, num_members, width)


def factored_mean(message: nn.ModuleList, u: Tensor, edge: Tensor, level: Tensor) -> Tensor:
    """The first layer is W_n u_n + W_k u_k + w edge + b; the last, linear one moves behind the sum."""
    _, num_columns, num_members, _ = u.shape
    count = num_columns * num_members
    own, other, weight = split(message, u, level)
    eye = torch.eye(num_columns, dtype=u.dtype, device=u.device)
    whole = torch.einsum("kl,bnm->bknlm", eye, edge)[..., None] * weight
    x = torch.relu(own[:, :, :, None, None] + other[:, None, None] + whole).flatten(3, 4).flatten(1, 2)
    for linear in list(message)[1:-1]:
        x = torch.relu(linear(x))
    others = 1 - torch.eye(count, dtype=u.dtype, device=u.device)
    heard = torch.einsum("bnkh,nk->bnh", x, others)
    return _last(message, heard, count).unflatten(1, (num_columns, num_members))


def sorted_mean(message: nn.ModuleList, u: Tensor, edge: Tensor, level: Tensor) -> Tensor:
    """One hidden layer: sum_k relu(a_n + b_k) is piecewise linear in a_n, so a sort of b and its suffix sums S give it,

      sum_k relu(a + b_k) = (count - i) a + S_i,   i = number of b_k <= -a,

    as if no edge had an attribute; pairs of the same column, K N^2 of them, are then put right.
    """
    _, num_columns, num_members, _ = u.shape
    count = num_columns * num_members
    own, other, weight = split(message, u, level)
    a = own.flatten(1, 2).movedim(-1, 1).contiguous()
    b = other.flatten(1, 2).movedim(-1, 1).sort(-1).values
    suffix = functional.pad(b.flip(-1).cumsum(-1).flip(-1), (0, 1))
    first = torch.searchsorted(b.detach().contiguous(), -a.detach(), right=True)
    free = ((count - first) * a + suffix.gather(-1, first)).movedim(1, -1).reshape(own.shape)
    plain = own[..., :, None, :] + other[..., None, :, :]
    tied = torch.relu(plain + (edge[..., None] * weight)[:, None]) - torch.relu(plain)
    myself = torch.relu(own + other + (edge.diagonal(dim1=-2, dim2=-1)[..., None] * weight)[:, None])
    heard = free + tied.sum(-2) - myself
    return _last(message, heard, count)


def split(message: nn.ModuleList, u: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first layer by its arguments: what node n brings (bias and level with it), what node k brings, and the
    weight of the edge."""
    width = u.shape[-1]
    first: nn.Linear = message[0]  # type: ignore[assignment]
    to_n, to_k, to_edge, to_level = first.weight.split((width, width, 1, 1), 1)
    own = functional.linear(u, to_n, first.bias) + (level[:, None] * to_level[:, 0])[:, None, None]
    return own, functional.linear(u, to_k), to_edge[:, 0]


def _last(message: nn.ModuleList, heard: Tensor, count: int) -> Tensor:
    last: nn.Linear = message[-1]  # type: ignore[assignment]
    num_others = count - 1
    return functional.linear(heard / max(num_others, 1), last.weight, last.bias if num_others else None)
