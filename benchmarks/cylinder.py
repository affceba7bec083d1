"""The picture of docs/datasets.md: flow past a cylinder in the benchmark 2D-1 of Schäfer & Turek (1996), and how its
drag converges to the published one.

python -m benchmarks.cylinder     about two minutes on one core
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data_gen.solvers.steady_flow import SteadyFlow, solve

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "cylinder.png"
LENGTH, HEIGHT, CENTRE, DIAMETER, VISCOSITY, MEAN_INFLOW = 2.2, 0.41, 0.2, 0.1, 1e-3, 0.2
# Nabh (1998), On high order methods for the stationary incompressible Navier-Stokes equations.
DRAG = 5.57953523384


def flow(cells_per_diameter: int) -> tuple[SteadyFlow, NDArray[np.float64]]:
    """The flow, and the signed distance at the corners of its cells."""
    h = DIAMETER / cells_per_diameter
    edges = np.arange(round(HEIGHT / h) + 1) * h
    x, y = np.meshgrid(np.arange(round(LENGTH / h) + 1) * h, edges, indexing="ij")
    # Means over the faces of the inlet of a parabola whose mean is MEAN_INFLOW.
    inflow = np.diff(6 * MEAN_INFLOW * (edges**2 / 2 * HEIGHT - edges**3 / 3) / HEIGHT**2) / h
    distance = np.hypot(x - CENTRE, y - CENTRE) - DIAMETER / 2
    return solve(distance, (LENGTH, HEIGHT), inflow, VISCOSITY), distance


def drag(found: SteadyFlow) -> float:
    """Drag coefficient, by the balance of momentum between two cross-sections."""
    u, p, h = found.u, found.pressure, HEIGHT / found.u.shape[1]
    first, last = (round(x / h) for x in (0.05, 0.6))

    def through(i: int) -> float:
        density = (p[i] + p[i - 1]) / 2 + u[i] ** 2 - VISCOSITY * (u[i + 1] - u[i - 1]) / (2 * h)
        return float(density.sum() * h)

    between = u[first : last + 1]
    slopes = (9 * (between[:, 0] + between[:, -1]) - between[:, 1] - between[:, -2]) / (3 * h)
    friction = VISCOSITY * float(np.trapezoid(slopes, dx=h))
    return (through(first) - through(last) - friction) * 2 / (DIAMETER * MEAN_INFLOW**2)


def wake(found: SteadyFlow) -> float:
    """Length of the zone behind the cylinder in which fluid flows back, in units of the domain."""
    h = HEIGHT / found.u.shape[1]
    middles, x = (np.arange(found.u.shape[1]) + 0.5) * h, np.arange(len(found.u)) * h
    on_axis = np.array([np.interp(CENTRE, middles, row) for row in found.u])
    i = np.flatnonzero((x > CENTRE + DIAMETER / 2 + h) & (on_axis > 0))[0]
    return float(np.interp(0, on_axis[i - 1 : i + 1], x[i - 1 : i + 1])) - CENTRE - DIAMETER / 2


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
            h = DIAMETER / n
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


if __name__ == "__main__":
    main()
