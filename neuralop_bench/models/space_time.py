"""An operator on space and time together."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.options import DoesNotFit, require_bundle


class SpaceTime(nn.Module):
    """Predict a bundle of steps at once, with an operator on the space grid extended by a time axis.

        u(x, t_j) = G[a](x, t_j),    a(x, t) = a(x),    j = 1 ... n_steps

    The input doesn't depend on time: it is repeated along the time axis, which comes last. The operator tells the steps
    apart by the coordinate that it appends for that axis, and by padding (time isn't periodic). With
    ``neuralop_bench.models.fno.FNO`` in two dimensions this is FNO-3D (configs/model/fno_3d.yaml).

    The operator is given a grid whose time axis is open and has length 1, with nodes at the centres of the ``n_steps``
    intervals, t_j = (j - 1/2)/n_steps. The published code has t_j = j/n_steps. The two differ by a constant, which the
    bias of a lifting absorbs.

    Args:
        in_channels, out_channels: channels of the input, and of the output: ``n_steps`` times the state's channels.
        grid: the space grid, of one or two axes.
        operator: constructor of the operator, ``operator(in_channels=..., out_channels=..., grid=...)``. In a
            configuration, a nested ``_target_`` with ``_partial_: true``.
        n_steps: points of the time axis; in a configuration ``${surrogate.bundle}``.

    Attributes:
        resolution_free: that of the operator. The number of steps is fixed.

    Shapes: [batch, in_channels, *space] to [batch, n_steps * channel, *space], all channels of the first step first.

    Raises:
        Inapplicable: fewer than two steps; a grid of three axes.
        ValueError: ``out_channels`` isn't a multiple of ``n_steps``; whatever the operator refuses.

    Reference: Li et al. (2021), Fourier Neural Operator, section 5.3 (FNO-3D), arXiv 2010.08895.

    >>> import torch
    >>> from functools import partial
    >>> from neuralop_bench.models.fno import FNO
    >>> grid = Grid.periodic(32)
    >>> model = SpaceTime(in_channels=3, out_channels=8, grid=grid, operator=partial(FNO, n_modes=4), n_steps=8)
    >>> model(torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 8, 32, 32])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        operator: Callable[..., nn.Module],
        n_steps: int,
    ) -> None:
        super().__init__()
        require_bundle(n_steps, out_channels, grid)
        self.n_steps = n_steps
        space_time = Grid(
            shape=(*grid.shape, n_steps),
            lengths=(*grid.lengths, 1.0),
            boundary=(*grid.boundary, "open"),
            nodes=(*grid.nodes, "centres"),
        )
        try:
            self.operator = operator(in_channels=in_channels, out_channels=out_channels // n_steps, grid=space_time)
        except ValueError as error:
            text = (
                f"{error} (The operator of a space-time model acts on a grid of {space_time.shape} points, time last. "
                "Its hyper-parameters are model.operator.<name>.)"
            )
            if isinstance(error, DoesNotFit):
                raise _of_operator(error, text) from error
            raise ValueError(text) from error

    @property
    def resolution_free(self) -> bool:
        return bool(getattr(self.operator, "resolution_free", False))

    @property
    def needs_pairs(self) -> bool:
        """Whether the operator needs the training pairs."""
        return hasattr(self.operator, "prepare") and bool(getattr(self.operator, "needs_pairs", True))

    @property
    def idle(self) -> dict[str, str]:
        """The operator's options that can't act, and why."""
        return {f"operator.{name}": reason for name, reason in getattr(self.operator, "idle", {}).items()}

    def require_pairs(self, n_pairs: int) -> None:
        """Let an operator that has such a check of its own check the number of training pairs.

        Raises:
            ValueError: the operator refuses it.
        """
        if (check := getattr(self.operator, "require_pairs", None)) is None:
            return
        try:
            check(n_pairs)
        except DoesNotFit as error:
            raise _of_operator(error, str(error)) from error

    def prepare(
        self, inputs: Float[Tensor, "n in_channels *space"], targets: Float[Tensor, "n out_channels *space"]
    ) -> None:
        """Pass the training pairs, on space and time, to an operator that has a ``prepare`` of its own."""
        if (prepare := getattr(self.operator, "prepare", None)) is not None:
            prepare(self._over_time(inputs), targets.unflatten(1, (self.n_steps, -1)).movedim(1, -1))

    def _over_time(
        self, x: Float[Tensor, "batch in_channels *space"]
    ) -> Float[Tensor, "batch in_channels *space step"]:
        return x[..., None].expand(*x.shape, self.n_steps)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        return self.operator(self._over_time(x)).movedim(-1, 1).flatten(1, 2)


def _of_operator(error: DoesNotFit, text: str) -> DoesNotFit:
    """The error, with its options where a configuration has them."""
    return DoesNotFit(text, **{f"operator.{name}": value for name, value in error.fitting.items()})
