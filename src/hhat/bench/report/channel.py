"""Pictures of one channel: powers over antenna and angle or delay."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hhat.bench.report.figures import Drawing, axis, go, layouts

FLOOR_DB = 40
"""Depth of the colour scale below the strongest coefficient of the first picture"""
MAP_HEIGHT = 230
FEW_ANTENNAS = 8
MOST_CELLS = 128
"""A picture of more rows or columns shows the strongest of each group"""


def channel_map(power_db: Tensor, strongest_db: float, x: Sequence[float], x_title: str, y_title: str) -> Drawing:
    """One channel as powers in whole dB below the strongest coefficient; all maps of a row share one colour scale."""
    below = (power_db - strongest_db).clamp(-FLOOR_DB, FLOOR_DB)
    rows, columns = (math.ceil(size / MOST_CELLS) for size in below.shape)
    if rows > 1 or columns > 1:
        below = torch.nn.functional.max_pool2d(below[None], (rows, columns), ceil_mode=True)[0]
    # as bytes the page stays small: one per coefficient instead of a decimal number
    z = below.round().to(torch.int8).numpy()
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=list(x)[::columns],
            y=list(range(0, power_db.shape[0], rows)),
            zmin=-FLOOR_DB,
            zmax=0,
            colorscale="Cividis",
            colorbar={"title": {"text": "dB"}, "thickness": 10, "outlinewidth": 0},
            hovertemplate="%{x}, %{y}: %{z} dB<extra></extra>",
        )
    )
    up = axis(y_title)
    if power_db.shape[0] <= FEW_ANTENNAS:
        up |= {"dtick": 1}
    if power_db.shape[0] == 1:
        up |= {"showticklabels": False, "ticks": ""}
    figure.update_layout(xaxis=axis(x_title), yaxis=up)
    peak = int(power_db.flatten().argmax())
    row, column = divmod(peak, power_db.shape[1])
    says = f"{y_title} {row}, " if y_title and power_db.shape[0] > 1 else ""
    level = f"{round(float(below.max()))} dB".replace("-", "−")
    says = f"Power over {x_title}. Strongest at {says}{x[column]:.3g}: {level} against the first picture's strongest."
    return Drawing(figure, says, layouts([], height=MAP_HEIGHT))


def spectrum(h: Tensor, axes: Sequence[str], subcarriers: Sequence[int] = ()) -> tuple[Tensor, list[float], str, str]:
    """Power in dB (antenna, angle or delay) of a channel, its abscissa, and the names of both axes.

    The last two axes are drawn, the first of any before. Along `subcarrier` it is the delay in samples,
    sum_k h_k exp(+j 2 pi k d / N) / sqrt(K); along antennas the angle, sum_n h_n exp(-j pi n u) / sqrt(N).
    """
    h = h.to(torch.complex128)
    while h.ndim > 2:
        h = h[0]
    h = h.reshape(-1, h.shape[-1])
    count = h.shape[-1]
    along, across = (axes[-1], axes[-2] if len(axes) > 1 else "") if axes else ("tx_ant", "rx_ant")
    if along == "subcarrier":
        index = torch.tensor(subcarriers if len(subcarriers) == count else range(count), dtype=torch.float64)
        size = int(index.max() - index.min()) + 1
        grid = torch.arange(size, dtype=torch.float64) - size // 4
        phases = 2 * math.pi * index[:, None] * grid / size
        x, title = grid.tolist(), "delay in samples of the occupied band"
    else:
        grid = 2 * torch.arange(count, dtype=torch.float64) / count - 1
        phases = -math.pi * torch.arange(count, dtype=torch.float64)[:, None] * grid
        x, title = grid.tolist(), f"u = sin(angle) at {along.replace('_', ' ')}"
    power = (h @ torch.polar(torch.ones_like(phases), phases)).abs().square() / count
    return 10 * torch.log10(power + torch.finfo(torch.float32).tiny), x, title, across.replace("_", " ")
