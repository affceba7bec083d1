"""The picture of docs/datasets.md: solutions with shocks beside exact or finer ones.

python -m benchmarks.shocks     about a minute on one core
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.references.riemann import TUBES, exact
from data_gen.generation.random_streams import generator
from data_gen.problems.euler import Euler
from data_gen.problems.shallow_water import ShallowWater

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "shocks.png"


def main() -> None:
    """Draw it."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    tube, dam, cut = figure.subplots(1, 3)

    left, right, place, time = TUBES["sod"]
    x = np.linspace(0, 1, 2001)
    tube.plot(x, exact(left, right, (x - place) / time)[0], "k-", linewidth=0.8, label="exact")
    for n, style in ((100, "."), (400, "-")):
        x = (np.arange(n) + 0.5) / n
        w = np.where(x < place, np.array(left)[:, None], np.array(right)[:, None])
        problem = Euler(resolution=n, solver_resolution=n, interval=time)
        start = problem.conserved(torch.from_numpy(w)[None])[None].numpy()
        rho = problem.solve(start, np.empty((1, 0, n)), 1).trajectory[0, 0, 0]
        tube.plot(x, rho, style, markersize=3, linewidth=0.8, label=f"{n} cells")
    tube.set(title=f"Sod's shock tube, t = {time:g}", xlabel="x", ylabel="density")
    tube.legend(frameon=False)

    times = {"resolution": 64, "interval": 0.5, "n_snapshots": 3}
    shallow = {
        n: ShallowWater(solver_resolution=n, **times).simulate([generator(0, "test", 0)]) for n in (64, 128, 256)
    }
    image = dam.imshow(shallow[256].trajectory[0, -1, 0].T, origin="lower", extent=(0, 5, 0, 5))
    dam.set(title="Broken dam, t = 1", xlabel="x", ylabel="y")
    figure.colorbar(image, ax=dam, label="depth")
    x = (np.arange(64) + 0.5) * 5 / 64
    for (n, samples), style in zip(shallow.items(), (":", "--", "-"), strict=True):
        cut.plot(x, samples.trajectory[0, -1, 0, :, 32], style, linewidth=1, label=f"solved on {n}²")
    cut.set(title="Its depth along the middle", xlabel="x", ylabel="depth")
    cut.legend(frameon=False, fontsize=8, loc="upper center")
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    main()
