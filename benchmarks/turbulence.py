"""The picture of docs/datasets.md: energy spectra of ns3d, and the slope that an inertial range would have.

python -m benchmarks.turbulence     about a minute on one core
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from matplotlib.figure import Figure

from data_gen.generation.random_streams import generator
from neuralop_bench import compose
from neuralop_bench.metrics.spectral import Shells, amplitudes, squared_magnitude

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "ns3d_spectrum.png"
TIMES = (0.0, 0.8, 2.0)


def main() -> None:
    """Draw it."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, track in zip(panels, ("lite", "full"), strict=True):
        problem = instantiate(
            compose("dataset=ns3d", f"track={track}", "dataset.problem.n_snapshots=11").dataset.problem
        )
        grid = problem.spec.grid
        shells = Shells(grid)
        velocity = problem.simulate([generator(0, "test", 0)]).trajectory[0]
        chosen = velocity[[round(time / problem.interval) for time in TIMES]]
        energy = shells.sum(squared_magnitude(amplitudes(chosen, grid))).sum(axis=1) / 2
        for time, own in zip(TIMES, energy[:, :-1], strict=True):  # without the corners of the cube of wavenumbers
            panel.loglog(np.arange(1, len(own) + 1), own, label=f"t = {time:g}")
        k = np.array([2.0, 10.0])
        panel.loglog(k, 1.2 * k ** (-5 / 3), "k--", linewidth=1, label="$k^{-5/3}$")
        n = problem.resolution
        panel.set(title=f"{n}³ points, ν = {problem.viscosity:g}", xlabel="wavenumber k", ylim=(1e-8, 2))
    panels[0].set_ylabel("energy E(k)")
    panels[1].legend(frameon=False)
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    main()
