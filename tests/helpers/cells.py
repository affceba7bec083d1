"""Which configurations a test over all of them takes."""

from __future__ import annotations

# Overrides without which an option says nothing: model=external is any module, here our own FNO as if it were foreign.
NEEDED = {
    "external": (
        "model.target=neuralop_bench.models.fno.FNO",
        "model.arguments={n_modes: 8, width: 12, n_layers: 3}",
        "model.pass.grid=grid",
        "optimizer.lr=4e-3",
    )
}

# Datasets that are files of the user's: no test over all datasets takes them. tests/end_to_end/test_imported.py does.
GIVEN_AS_FILES = ("file",)

# One dataset of each kind that a model can tell apart: dimensions, number of fields, steps, given fields or parameters,
# walls. All models are tried on these. One model, fno, is tried on all datasets.
KINDS_OF_DATA = (
    "burgers1d",
    "burgers1d_viscosity",
    "burgers2d",
    "darcy2d",
    "euler1d",
    "ks1d",
    "ns2d",
    "ns3d",
    "obstacles2d",
    "shallow_water2d",
    "swift_hohenberg3d",
    "wave2d",
)

# Cells that can't be: what the error must say.
_STEADY = ("darcy2d", "helmholtz2d", "helmholtz2d_frequency", "obstacles2d")
_IN_SPACE = ("ns3d", "ns3d_viscosity", "swift_hohenberg3d")
REFUSED = {
    **{
        (model, dataset): message
        for model in ("fno_3d", "sfno")
        for datasets, message in (
            (("burgers1d", "burgers1d_viscosity", *_STEADY), "needs at least 2"),  # one step is predicted
            (_IN_SPACE, "at most 2 space axes"),
        )
        for dataset in datasets
    },
    **{("persistence", dataset): "history is 0" for dataset in _STEADY},  # no frame is given
}
