"""Convolution with a kernel given by its low Fourier modes."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from neuralop_bench.layers import truncated_dft
from neuralop_bench.layers.factorised import CP, Tucker, cp_rank, tucker_ranks

Init = Literal["normal", "uniform"]
Factorization = Literal["none", "tucker", "cp"]


class SpectralConv(nn.Module):
    """Multiply the low Fourier modes of a field by one learned complex matrix per mode; drop the others.

        v_hat_o(k) = sum_i W_io(k) u_hat_i(k),    -K <= k_j < K for all axes but the last, 0 <= k_last < K

    The modes with k_last < 0 follow from the output being real. The map doesn't depend on the grid as long as the grid
    holds the modes, on even and odd numbers of points alike. Weights are pairs of real numbers, not complex, because
    gradient clipping, optimisers and collective communication treat those alike everywhere.

    Each axis is transformed on its own and cut to its kept modes at once, so later transforms are smaller.

    With ``factorization`` the weights of all kept modes, one tensor with the axes [*modes, in, out], are learned in
    Tucker or CP form and multiplied out once per call.

    Args:
        in_channels, out_channels: channels of input and output.
        n_modes: K for each space axis.
        init: ``normal`` draws real and imaginary part from N(0, 1/(2 in_channels)), so a white field keeps its variance
            on the kept modes; ``uniform`` from U[0, 1) / (in_channels out_channels), as the code published with the
            FNO paper. A factorised weight is drawn ``normal``, with the same variance once multiplied out.
        factorization: ``none`` for one dense weight, ``tucker`` or ``cp`` for its factors.
        rank: size of the factors together as a fraction of the dense weight's, above 0 and at most 1. The ranks follow
            by ``tucker_ranks`` and ``cp_rank``. Without a factorization it says nothing.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: an unknown ``init`` or ``factorization``, factors with ``uniform``, a ``rank`` outside (0, 1]; in
            ``forward``, a grid that can't hold the modes.

    Reference: Li et al. (2021), Fourier Neural Operator, definition 3 and equation 5. Kossaifi et al. (2023),
    Multi-Grid Tensorized Fourier Neural Operator, arXiv 2310.00120, for the factors.

    >>> SpectralConv(1, 1, n_modes=(3, 3))(torch.ones(2, 1, 8, 9)).shape
    torch.Size([2, 1, 8, 9])
    """

    complex_pairs: ClassVar[frozenset[str]] = frozenset({"weight"})

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_modes: tuple[int, ...],
        init: Init = "normal",
        factorization: Factorization = "none",
        rank: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_modes, self.out_channels = tuple(n_modes), out_channels
        if init not in ("normal", "uniform"):
            raise ValueError(f"SpectralConv knows init 'normal' and 'uniform', got {init!r}.")
        if factorization != "none" and init != "normal":
            raise ValueError(
                f"Factors are initialised 'normal' only, got {init!r} with {factorization!r}. "
                "Set model.spectral_init=normal or model.factorization=none."
            )
        kept = (*(2 * k for k in self.n_modes[:-1]), self.n_modes[-1])
        # [*modes, in, out]: the order in which one batched product per part needs no copy.
        shape = (*kept, in_channels, out_channels)
        variance = 1 / in_channels
        self.factors: Tucker | CP | None = None
        if factorization == "none":
            weight = torch.empty(2, *shape)
            if init == "normal":
                nn.init.normal_(weight, std=math.sqrt(variance / 2))
            else:
                nn.init.uniform_(weight, 0, 1 / (in_channels * out_channels))
            self.weight = nn.Parameter(weight)
            return
        self.register_parameter("weight", None)
        if factorization == "tucker":
            self.factors = Tucker(shape, tucker_ranks(shape, rank), variance)
        elif factorization == "cp":
            self.factors = CP(shape, cp_rank(shape, rank), variance)
        else:
            raise ValueError(f"SpectralConv knows factorization 'none', 'tucker' and 'cp', got {factorization!r}.")

    def dense_weight(self) -> Float[Tensor, "part *modes in_channels out_channels"]:
        """Real and imaginary part of W(k) for every kept mode, multiplied out if it is factorised."""
        return self.weight if self.factors is None else self.factors()

    def forward(self, u: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        v = u.movedim(1, -1).contiguous()
        return self.add(v, v.new_zeros(*v.shape[:-1], self.out_channels)).movedim(-1, 1)

    def add(
        self, v: Float[Tensor, "batch *space in_channels"], to: Float[Tensor, "batch *space out_channels"]
    ) -> Float[Tensor, "batch *space out_channels"]:
        """The convolution of ``v`` added to ``to``, in place, with channels last: then all its work, and that of the
        pointwise maps beside it, is products of large matrices."""
        space = v.shape[1:-1]
        require_modes(space, self.n_modes, "A spectral convolution")
        if is_faster_as_product(space, self.n_modes):
            return truncated_dft.add_from_modes(self._mix(truncated_dft.to_modes(v, self.n_modes)), to)
        u_hat = self._to_modes(v.movedim(-1, 1))
        parts = torch.stack([u_hat.real, u_hat.imag], dim=1).movedim(2, -1)
        v_hat = torch.complex(*self._mix(parts).movedim(-1, 2).unbind(1))
        return to.add_(self._to_grid(v_hat, space).movedim(1, -1))

    def _mix(self, u_hat: Float[Tensor, "batch part *mode in"]) -> Float[Tensor, "batch part *mode out"]:
        # Complex numbers as pairs: (a + ib)(C + iD) is one real product per mode, where torch would multiply complex
        # matrices one by one.
        real, imaginary = self.dense_weight().flatten(1, -3)
        block = torch.cat([torch.cat([real, imaginary], dim=2), torch.cat([-imaginary, real], dim=2)], dim=1)
        n_batch, _, *modes, _ = u_hat.shape
        by_mode = u_hat.flatten(2, -2).permute(2, 0, 1, 3).flatten(2)  # [mode, batch, (part, in)]
        return torch.bmm(by_mode, block).view(-1, n_batch, 2, self.out_channels).permute(1, 2, 0, 3).unflatten(2, modes)

    def _to_modes(self, u: Tensor) -> Complex[Tensor, "batch channel *modes"]:
        u_hat = torch.fft.rfft(u, dim=-1, norm="forward")[..., : self.n_modes[-1]]
        for axis, k in _earlier_axes(self.n_modes):
            u_hat = torch.fft.fft(u_hat, dim=axis, norm="forward")
            n = u_hat.shape[axis]
            u_hat = torch.cat([u_hat.narrow(axis, 0, k), u_hat.narrow(axis, n - k, k)], dim=axis)
        return u_hat

    def _to_grid(self, v_hat: Tensor, space: torch.Size) -> Tensor:
        for axis, k in _earlier_axes(self.n_modes):
            n = space[axis]
            gap = list(v_hat.shape)
            gap[axis] = n - 2 * k
            parts = [v_hat.narrow(axis, 0, k), v_hat.new_zeros(gap), v_hat.narrow(axis, k, k)]
            v_hat = torch.fft.ifft(torch.cat(parts, dim=axis), dim=axis, norm="forward")
        return torch.fft.irfft(v_hat, n=space[-1], dim=-1, norm="forward")


def _earlier_axes(n_modes: tuple[int, ...]) -> list[tuple[int, int]]:
    """(axis, K) of every axis but the last, from the last but one to the first, counted from the end."""
    return [(axis, n_modes[axis]) for axis in range(-2, -len(n_modes) - 1, -1)]


def is_faster_as_product(space: tuple[int, ...], n_modes: tuple[int, ...]) -> bool:
    """Whether matrix products transform faster than fast transforms do."""
    del n_modes
    return max(space) <= 1024


def require_modes(space: tuple[int, ...], n_modes: tuple[int, ...], who: str) -> None:
    """Check that a grid of the given shape holds ``n_modes`` positive wavenumbers per axis.

    Raises:
        ValueError: n_modes exceeds half the points of an axis, or the number of axes differs.
    """
    if len(space) != len(n_modes):
        raise ValueError(f"A spectral convolution over {len(n_modes)} axes got fields over {len(space)} axes.")
    for n, k in zip(space, n_modes, strict=True):
        if k > n // 2:
            raise ValueError(
                f"{who} keeps n_modes={k} per axis, but the grid has {n} points: n_modes must be at most {n // 2}. "
                "Lower model.n_modes or raise the resolution."
            )
