"""Picture of an angle-delay map: where a sensing receiver sees an echo, and where the target is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hhat.bench.report.channel import MAP_HEIGHT
from hhat.bench.report.figures import Drawing, axis, go, layouts

FLOOR_DB = 15
"""Depth of the colour scale, that of the source's figure"""


def echo_map(
    values: Tensor,
    u: Tensor,
    range_m: Tensor,
    strongest: float | None = None,
    targets: Sequence[tuple[float, float]] = (),
) -> Drawing:
    """Statistic (angle, range) of one snapshot in dB below `strongest`, ranges upwards, targets (u, range) marked.

    values: (I, J) as of `hhat.sensing.angle_delay_map` at u (I) and range_m (J); strongest: the value at 0 dB, of the
    map with known gains say; None: the largest here. Source: Mateos-Ramos et al. 2025, Fig. 2.
    ValueError where the shapes do not fit.
    """
    if values.shape != (len(u), len(range_m)):
        raise ValueError(f"map: expected shape {(len(u), len(range_m))}, got {tuple(values.shape)}")
    top = float(values.max()) if strongest is None else strongest
    below = 10 * torch.log10((values / top).clamp_min(torch.finfo(torch.float32).tiny))
    angle = torch.rad2deg(u.double().asin())
    z = below.mT.clamp(-FLOOR_DB, FLOOR_DB).double().round(decimals=1).numpy()
    heat = go.Heatmap(
        z=z,
        x=angle.tolist(),
        y=range_m.tolist(),
        zmin=-FLOOR_DB,
        zmax=0,
        colorscale="Cividis",
        colorbar={"title": {"text": "dB"}, "thickness": 10, "outlinewidth": 0},
        hovertemplate="%{x:.2f}°, %{y:.2f} m: %{z} dB<extra></extra>",
    )
    places = torch.tensor([list(target) for target in targets], dtype=torch.float64).reshape(-1, 2)
    marks = go.Scatter(
        x=torch.rad2deg(places[:, 0].asin()).tolist(),
        y=places[:, 1].tolist(),
        mode="markers",
        marker={"symbol": "x-thin", "size": 12, "line": {"width": 3, "color": "#D55E00"}},
        hovertemplate="target: %{x:.2f}°, %{y:.2f} m<extra></extra>",
    )
    figure = go.Figure([heat, marks] if len(places) else heat)
    figure.update_layout(xaxis=axis("angle in degrees"), yaxis=axis("range in m"), showlegend=False)
    i, j = divmod(int(values.argmax()), values.shape[1])
    level = f"{float(below.max()):.1f} dB".replace("-", "−")
    says = f"Angle-delay map. Largest value at {float(angle[i]):.2f}°, {float(range_m[j]):.2f} m: {level}."
    return Drawing(figure, says, layouts([], height=MAP_HEIGHT))
