"""The picture of docs/datasets.md: flow past a cylinder in the benchmark 2D-1 of Schäfer & Turek (1996), and how its
drag converges to the published one. And the figures for a cylinder without a channel at Re = 40, extrapolated.

python -m benchmarks.cylinder     about four minutes on one core
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data_gen.solvers.steady_flow import SteadyFlow, solve

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "cylinder.png"
# Nabh (1998), On high order methods for the stationary incompressible Navier-Stokes equations.
DRAG = 5.57953523384


@dataclass(frozen=True)
class Channel:
    """A channel with a cylinder. The inflow is a parabola, or uniform between walls that move with it."""

    length: float
    height: float
    x: float
    y: float
    diameter: float
    viscosity: float
    mean_inflow: float
    walls_move: bool = False

    @property
    def wall_speed(self) -> float:
        return self.mean_inflow if self.walls_move else 0.0


BENCHMARK = Channel(2.2, 0.41, 0.2, 0.2, 0.1, 1e-3, 0.2)


def flow(cells_per_diameter: int, channel: Channel = BENCHMARK) -> tuple[SteadyFlow, NDArray[np.float64]]:
    """The flow, and the signed distance at the corners of its cells."""
    h, height = channel.diameter / cells_per_diameter, channel.height
    edges = np.arange(round(height / h) + 1) * h
    x, y = np.meshgrid(np.arange(round(channel.length / h) + 1) * h, edges, indexing="ij")
    # Means over the faces of the inlet.
    share = np.linspace(0, float(edges[-1]) / height, len(edges))
    through = share if channel.walls_move else share * share * (3 - 2 * share)
    inflow = np.diff(through) * (channel.mean_inflow * height / h)
    distance = np.hypot(x - channel.x, y - channel.y) - channel.diameter / 2
    return solve(distance, (channel.length, height), inflow, channel.viscosity, wall_speed=channel.wall_speed), distance


def drag(found: SteadyFlow, channel: Channel = BENCHMARK) -> float:
    """Drag coefficient, by the balance of momentum between two cross-sections."""
    u, p, h, viscosity = found.u, found.pressure, channel.height / found.u.shape[1], channel.viscosity
    first, last = (round((channel.x + places * channel.diameter) / h) for places in (-1.5, 4))

    def through(i: int) -> float:
        density = (p[i] + p[i - 1]) / 2 + u[i] ** 2 - viscosity * (u[i + 1] - u[i - 1]) / (2 * h)
        return float(density.sum() * h)

    between = u[first : last + 1] - channel.wall_speed
    slopes = (9 * (between[:, 0] + between[:, -1]) - between[:, 1] - between[:, -2]) / (3 * h)
    friction = viscosity * float(np.trapezoid(slopes, dx=h))
    return (through(first) - through(last) - friction) * 2 / (channel.diameter * channel.mean_inflow**2)


def wake(found: SteadyFlow, channel: Channel = BENCHMARK) -> float:
    """Length of the zone behind the cylinder in which fluid flows back, in units of the domain."""
    h = channel.height / found.u.shape[1]
    middles, x = (np.arange(found.u.shape[1]) + 0.5) * h, np.arange(len(found.u)) * h
    on_axis = np.array([np.interp(channel.y, middles, row) for row in found.u])
    end = channel.x + channel.diameter / 2
    i = np.flatnonzero((x > end + h) & (on_axis > 0))[0]
    return float(np.interp(0, on_axis[i - 1 : i + 1], x[i - 1 : i + 1])) - end


def unconfined(runs: Sequence[tuple[int, int]], reynolds: float = 40.0) -> NDArray[np.float64]:
    """Drag coefficient and length of the wake in diameters, in the limit of distant walls and small cells.

    Published at Re = 40: 1.522 and 2.345 (Dennis & Chang 1970, J. Fluid Mech. 42), 2.13 (measured: Coutanceau & Bouard
    1977, J. Fluid Mech. 79), 1.498 and 2.24 (Fornberg 1980, J. Fluid Mech. 98), 1.54 and 2.28 (Linnick & Fasel 2005, J.
    Comput. Phys. 204).

    Args:
        runs: width of the channel in diameters (it is twice as long) and cells per diameter, at least five pairs.
    """
    found = []
    for width, cells in runs:
        channel = Channel(2.0 * width, width, 0.75 * width, 0.5 * width, 1.0, 1 / reynolds, 1.0, walls_move=True)
        own, _ = flow(cells, channel)
        found.append((drag(own, channel), wake(own, channel)))
    w, n = np.array(runs, dtype=float).T
    # A body at a distance acts as a source and a dipole do; the scheme is of second order.
    terms = np.stack([np.ones_like(w), 1 / w, 1 / w**2, 1 / n**2, 1 / (n**2 * w)], axis=1)
    return np.linalg.lstsq(terms, np.array(found))[0][0]


def main() -> None:
    """Draw it, and print the numbers."""
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    shown, errors = figure.subplots(1, 2, width_ratios=(2, 1))
    sizes, differences = (5, 10, 20, 40), []
    for n in sizes:
        own, distance = flow(n)
        differences.append(abs(drag(own) / DRAG - 1))
        print(f"{n} cells per diameter: drag {drag(own):.4f}, wake {wake(own):.5f}")
        if n == 20:
            u, v = (own.u[1:] + own.u[:-1]) / 2, (own.v[:, 1:] + own.v[:, :-1]) / 2
            inside = (distance[1:, 1:] + distance[:-1, :-1]) < 0
            h = BENCHMARK.diameter / n
            x, y = ((np.arange(m) + 0.5) * h for m in u.shape)
            near = x < 0.8
            image = shown.pcolormesh(x[near], y, np.where(inside, np.nan, np.hypot(u, v))[near].T)
            shown.streamplot(x[near], y, u[near].T, v[near].T, color="w", linewidth=0.4, density=1.4, arrowsize=0.4)
            shown.set(title="Speed and streamlines at Re = 20", xlabel="x", ylabel="y", aspect="equal", facecolor="0.7")
            figure.colorbar(image, ax=shown)
    errors.loglog(sizes, differences, "o-", markersize=3, linewidth=1, label="drag")
    errors.loglog(
        sizes, [differences[-1] * (sizes[-1] / n) ** 2 for n in sizes], "k:", linewidth=0.8, label="second order"
    )
    errors.set_xticks(sizes, map(str, sizes))
    errors.minorticks_off()
    errors.set(title="Relative error", xlabel="cells per diameter")
    errors.legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=90)
    found = unconfined([(10, 8), (20, 8), (40, 8), (10, 16), (20, 16), (10, 32)])
    print("Re = 40, unconfined: drag {:.3f}, wake {:.2f} diameters".format(*found))


if __name__ == "__main__":
    main()
