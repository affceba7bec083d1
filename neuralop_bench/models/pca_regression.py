"""Regression between principal components. There is no network, and fitting takes seconds."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.options import require_at_least, require_known
from neuralop_bench.layers.resample import resample

# Cross-validation on the training pairs chooses the penalty and the kernel's length scale among these.
_ALPHAS = np.logspace(-8, 4, 25)
_KERNEL_ALPHAS = np.logspace(-8, 0, 9)
_LENGTH_SCALES = np.logspace(-0.5, 1.5, 9)
_N_FOLDS = 5
_MOST_PAIRS = 1000  # of cross-validation, whose time grows with the cube of their number
_FEWEST_PAIRS = 2


class PCARegression(nn.Module):
    """Regularised regression from principal components of the inputs to principal components of the outputs.

        c = Phi^T (a - mean(a)) / s,    d = R(c),    u = mean(u) + Psi d

    Phi and Psi are the leading principal components of the training inputs and targets, all channels together. R is
    affine (``kernel: linear``, ridge regression) or a sum of Gaussians around the training inputs (``kernel: rbf``,
    kernel ridge regression):

        R(c) = B c + b    or    R(c) = sum_n w_n exp(-|c - c_n|^2 / (2 l^2))

    Cross-validation chooses the penalty, and the length l, in five folds of 1000 training pairs, or as many as there
    are. The pairs are spread evenly over all, and a fold is a block. Windows of a trajectory and images of a sample
    follow each other in the training pairs, so at most four samples are divided between two folds. The regression is
    then fitted to all pairs. scikit-learn does it, torch evaluates it.

    There are no trainable parameters: calling ``prepare`` is the whole training.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid. Fields on another number of points are interpolated to it and back.
        n_components: components kept on either side; fewer if there are too few training pairs: n pairs have n - 1.
        kernel: ``linear`` or ``rbf``.

    Attributes:
        idle: options that can't act, and why. After ``require_pairs``.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: an unknown kernel, or ``n_components`` below 1; in ``prepare``, fewer than 2 training pairs.

    References: Bhattacharya et al. (2021), Model reduction and neural networks for parametric PDEs (PCA-Net), arXiv
    2005.03180; Batlle et al. (2024), Kernel methods are competitive for operator learning, arXiv 2304.13202.
    """

    resolution_free: ClassVar[bool] = True
    input_mean: Tensor
    input_basis: Tensor
    output_mean: Tensor
    output_basis: Tensor
    centres: Tensor
    weight: Tensor
    bias: Tensor
    inverse_length: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        n_components: int = 128,
        kernel: Literal["linear", "rbf"] = "linear",
    ) -> None:
        super().__init__()
        require_at_least(1, "PCARegression", n_components=n_components)
        require_known("PCARegression", "kernel", kernel, ("linear", "rbf"))
        self._grid, self._n_components, self._kernel = grid, n_components, kernel
        self._channels = (in_channels, out_channels)
        # The sizes follow from the number of training pairs. Until then there is one component, and it has no effect.
        sizes = {
            "input_mean": (in_channels * grid.n_points,),
            "input_basis": (1, in_channels * grid.n_points),
            "output_mean": (out_channels * grid.n_points,),
            "output_basis": (1, out_channels * grid.n_points),
            "centres": (0, 1),
            "weight": (1, 1),
            "bias": (1,),
            "inverse_length": (),
        }
        for name, shape in sizes.items():
            self.register_buffer(name, torch.zeros(shape))
        self._fitted = tuple(sizes)
        self.idle: dict[str, str] = {}

    def require_pairs(self, n_pairs: int) -> None:
        """Check that a number of training pairs is enough for cross-validation.

        Raises:
            ValueError: there are fewer than two.
        """
        if n_pairs < _FEWEST_PAIRS:
            raise ValueError(
                f"PCARegression chooses its penalty by cross-validation and needs at least {_FEWEST_PAIRS} training "
                f"pairs, got {n_pairs}. Raise splits.train."
            )
        if self._n_components >= n_pairs:
            self.idle["n_components"] = f"{n_pairs} training pairs have {n_pairs - 1} components, and all are kept"

    def prepare(
        self,
        inputs: Float[Tensor, "pair in_channels *space"],
        targets: Float[Tensor, "pair out_channels *space"],
    ) -> None:
        """Find the components and fit the regression to the encoded training pairs."""
        from sklearn.decomposition import PCA  # takes a second to import, and only this needs it

        self.require_pairs(len(inputs))
        n_components = min(self._n_components, len(inputs) - 1)
        sides: list[tuple[Any, NDArray[np.float64]]] = []
        for fields in (inputs, targets):
            pca = PCA(n_components, random_state=0)  # of many pairs, the components are found by random projections
            sides.append((pca, pca.fit_transform(fields.flatten(1).double().cpu().numpy())))
        (of_inputs, c), (of_targets, d) = sides
        # One scale for all input components keeps their relative weights: small components are mostly noise.
        scale = float(np.sqrt((c**2).mean())) or 1.0
        fit = _ridge if self._kernel == "linear" else _kernel_ridge
        found = {
            "input_mean": of_inputs.mean_,
            "input_basis": of_inputs.components_ / scale,
            "output_mean": of_targets.mean_,
            "output_basis": of_targets.components_,
            **fit(c / scale, d),
        }
        for name, values in found.items():
            # Contiguous, as tensors loaded from a file are: products with other layouts differ in the last digit.
            setattr(self, name, torch.as_tensor(values, dtype=self.weight.dtype, device=inputs.device).contiguous())

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        given = resample(x, self._grid.nodes, self._grid.shape).flatten(1)
        c = (given - self.input_mean) @ self.input_basis.T
        if self._kernel == "rbf" and len(self.centres):
            c = torch.exp(-0.5 * (torch.cdist(c, self.centres) * self.inverse_length).square())
        d = c @ self.weight + self.bias
        u = (self.output_mean + d @ self.output_basis).view(len(x), self._channels[1], *self._grid.shape)
        return resample(u, self._grid.nodes, x.shape[2:])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self._fitted:  # the sizes are those of the stored values
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _ridge(c: NDArray[np.float64], d: NDArray[np.float64]) -> dict[str, Any]:
    from sklearn.linear_model import Ridge

    ridge = _best(Ridge(), {"alpha": _ALPHAS}, c, d)
    return {
        # For a single component scikit-learn drops the axis of the targets.
        "weight": ridge.coef_.reshape(d.shape[1], -1).T,
        "bias": np.reshape(ridge.intercept_, -1),
        "centres": np.zeros((0, c.shape[1])),
        "inverse_length": 0.0,
    }


def _kernel_ridge(c: NDArray[np.float64], d: NDArray[np.float64]) -> dict[str, Any]:
    from sklearn.kernel_ridge import KernelRidge

    # Lengths are tried around the root mean square distance between two inputs.
    length = float(np.sqrt(2 * c.var(axis=0).sum())) or 1.0
    gammas = 0.5 / (length * _LENGTH_SCALES) ** 2
    mean = d.mean(axis=0)
    best = _best(KernelRidge(kernel="rbf"), {"alpha": _KERNEL_ALPHAS, "gamma": gammas}, c, d - mean)
    return {
        "weight": best.dual_coef_,
        "bias": mean,
        "centres": c,
        "inverse_length": float(np.sqrt(2 * best.gamma)),
    }


def _best(regression: Any, grid: dict[str, Any], c: NDArray[np.float64], d: NDArray[np.float64]) -> Any:
    """The regression with the best arguments of a grid, fitted to all pairs."""
    from sklearn.model_selection import GridSearchCV, KFold

    spread = np.linspace(0, len(c) - 1, min(len(c), _MOST_PAIRS)).astype(int)
    folds = KFold(min(_N_FOLDS, len(c)))
    search = GridSearchCV(regression, grid, scoring="neg_mean_squared_error", cv=folds, refit=False)
    search.fit(c[spread], d[spread])
    return regression.set_params(**search.best_params_).fit(c, d)
