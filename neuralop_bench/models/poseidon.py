"""Scalable operator transformer (scOT), the network of Poseidon."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.conv import Conv, edges_of
from neuralop_bench.layers.convnext import ConvNeXtBlock
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import DoesNotFit, require_at_least
from neuralop_bench.layers.padding import crop, pad_to_multiple
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.renaming import renamed
from neuralop_bench.layers.tables import CONV, CONV_TRANSPOSE

_WHO = "Poseidon"
_EPS = 1e-5
_PUBLISHED_NAMES = {
    r"^embeddings\.patch_embeddings\.projection": "embedding",
    r"^embeddings\.norm": "norm",
    r"^(encoder|decoder)\.layers\.(\d+)\.blocks": r"\1.\2",
    r"^encoder\.layers\.(\d+)\.downsample\.reduction": r"down.\1.linear",
    r"^encoder\.layers\.(\d+)\.downsample": r"down.\1",
    r"\.attention\.self": ".attention",
    r"\.attention\.output\.dense": ".attention.merge",
    r"\.logit_scale": ".temperature",
    r"\.continuous_position_bias_mlp": ".beta",
    r"\.layernorm_before": ".norms.0",
    r"\.layernorm_after": ".norms.1",
    r"\.intermediate\.dense": ".network.0",
    r"\.output\.dense": ".network.1",
    r"^residual_blocks\.(\d+\.\d+)\.weight": r"skips.\1.scale",
    r"^residual_blocks": "skips",
    r"\.dwconv": ".depthwise.conv",
    r"\.pwconv1": ".network.0",
    r"\.pwconv2": ".network.1",
    r"^patch_recovery\.projection": "recovery",
    r"^patch_recovery\.mixup": "projection.conv",
}
# The published networks are given the lead time as a share of a trajectory. This is the shortest of their pre-training.
_LEAD_TIME = 0.1


class Windows(nn.Module):
    """Cut the axes into windows of ``window`` tokens, and put the windows together again.

    With ``shifted``, windows begin half a window before the first token. On a periodic axis they reach across its end.
    On other axes, the first and the last window are then shorter; they are filled up with tokens that ``is_token``
    marks as false. An axis of at most ``window`` tokens is one window, which isn't shifted. If the number of tokens
    isn't a multiple of the window, the first and the last window of a periodic axis share tokens.

    Attributes:
        sizes: tokens of a window along each axis.
        is_token: [window, position], whether there is a token; None if there always is.

    Shapes: ``cut`` maps [batch, *tokens, channel] to [batch, window, position, channel], ``join`` the other way.
    """

    is_token: Tensor | None

    def __init__(self, tokens: Sequence[int], nodes: Sequence[Nodes], window: int, *, shifted: bool) -> None:
        super().__init__()
        self.sizes = tuple(min(n, window) for n in tokens)
        self._counts: list[int] = []
        present, full = [], True
        for axis, (n, size, kind) in enumerate(zip(tokens, self.sizes, nodes, strict=True)):
            before = size // 2 if shifted and n > size else 0
            count = -(-(n + (0 if kind == "periodic" else before)) // size)
            position = torch.arange(count * size) - before
            self._counts.append(count)
            full &= kind == "periodic" or count * size == n
            present.append((kind == "periodic") | ((position >= 0) & (position < n)))
            taken = position % n if kind == "periodic" else position.clamp(0, n - 1)
            token = torch.arange(n) + before
            where = torch.where(token < count * size, token, token - n)
            self.register_buffer(f"_taken_{axis}", taken, persistent=False)
            self.register_buffer(f"_where_{axis}", where, persistent=False)
        everywhere = present[0]
        for axis in present[1:]:
            everywhere = everywhere[..., None] & axis
        of_windows = self._cut(everywhere[None, ..., None])[0, ..., 0]
        self.register_buffer("is_token", None if full else of_windows, persistent=False)

    def cut(self, x: Float[Tensor, "batch *token channel"]) -> Float[Tensor, "batch window position channel"]:
        for axis in range(len(self.sizes)):
            x = x.index_select(1 + axis, self.get_buffer(f"_taken_{axis}"))
        return self._cut(x)

    def _cut(self, x: Tensor) -> Tensor:
        n_dims, channels = len(self.sizes), x.shape[-1]
        pairs = [n for pair in zip(self._counts, self.sizes, strict=True) for n in pair]
        x = x.reshape(len(x), *pairs, channels)
        order = [0, *range(1, 2 * n_dims, 2), *range(2, 2 * n_dims + 1, 2), 2 * n_dims + 1]
        return x.permute(order).reshape(len(x), math.prod(self._counts), math.prod(self.sizes), channels)

    def join(self, x: Float[Tensor, "batch window position channel"]) -> Float[Tensor, "batch *token channel"]:
        n_dims, channels = len(self.sizes), x.shape[-1]
        x = x.reshape(len(x), *self._counts, *self.sizes, channels)
        order = [0, *(i for axis in range(n_dims) for i in (1 + axis, 1 + n_dims + axis)), 2 * n_dims + 1]
        shape = [count * size for count, size in zip(self._counts, self.sizes, strict=True)]
        x = x.permute(order).reshape(len(x), *shape, channels)
        for axis in range(n_dims):
            x = x.index_select(1 + axis, self.get_buffer(f"_where_{axis}"))
        return x


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, by the angles between queries and keys. In every head:

        z_i = sum_j softmax_j(tau <q_i, k_j> / (|q_i| |k_j|) + 16 sigmoid(beta(i - j))) v_j

    Queries, keys and values are affine in the token; keys have no bias. tau is learned, at most 100. beta is a network
    with one hidden layer (ReLU) of the distance along each axis, on a logarithmic scale. A last affine map merges the
    heads. Under autocast, everything between the affine maps stays in float32.

    Args:
        channels: of a token, a multiple of ``n_heads``.
        n_heads: heads.
        windows: how the axes are cut.
        bias_width: hidden channels of beta.

    Shapes: [batch, *token, channels] to the same.

    Reference: Liu et al. (2022), Swin Transformer V2, equations 2 to 4, arXiv 2111.09883.
    """

    steps: Tensor
    index: Tensor

    def __init__(self, channels: int, *, n_heads: int, windows: Windows, bias_width: int) -> None:
        super().__init__()
        self.n_heads, self.windows = n_heads, windows
        self.query, self.value, self.merge = (Pointwise(channels, channels) for _ in range(3))
        self.key = nn.Linear(channels, channels, bias=False)
        self.temperature = nn.Parameter(torch.full((n_heads, 1, 1), math.log(10.0)))
        self.beta = nn.Sequential(
            nn.Linear(len(windows.sizes), bias_width), nn.ReLU(), nn.Linear(bias_width, n_heads, bias=False)
        )
        # Every distance in a window, and which of them lies between two tokens.
        steps = torch.cartesian_prod(*(torch.arange(1 - n, n) for n in windows.sizes)).view(-1, len(windows.sizes))
        self.register_buffer("steps", steps, persistent=False)
        places = torch.cartesian_prod(*(torch.arange(n) for n in windows.sizes)).view(-1, len(windows.sizes))
        index = torch.zeros(len(places), len(places), dtype=torch.long)
        for axis, n in enumerate(windows.sizes):
            index = index * (2 * n - 1) + places[:, None, axis] - places[None, :, axis] + n - 1
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Float[Tensor, "batch *token channels"]) -> Float[Tensor, "batch *token channels"]:
        tokens = self.windows.cut(x)
        query, key, value = (
            widened(linear).unflatten(-1, (self.n_heads, -1)).transpose(2, 3)
            for linear in (self.query.channels_last(tokens), self.key(tokens), self.value.channels_last(tokens))
        )
        with unrounded(x):
            query = normalize(query, dim=-1) * self.temperature.clamp(max=math.log(100.0)).exp()
            scaled = self.steps.to(self.temperature.dtype) * 8 / self.steps.amax(0).clamp(min=1)
            distances = scaled.sign() * (1 + scaled.abs()).log2() / 3
            bias = 16 * self.beta(distances).sigmoid().T[:, self.index]
            if self.windows.is_token is not None:  # [window, head, i, j]
                bias = torch.where(self.windows.is_token[:, None, None], bias, -math.inf)
            z = (query @ normalize(key, dim=-1).mT + bias).softmax(dim=-1) @ value
            z = z.transpose(2, 3).flatten(3)
        return self.windows.join(self.merge.channels_last(z))


class Layer(nn.Module):
    """Attention within windows, then a network with one hidden layer (GELU) at each token; both normalised at the end.

        x <- x + norm(A x),    x <- x + norm(F x)

    Shapes: [batch, *token, channels] to the same.
    """

    def __init__(self, channels: int, *, n_heads: int, windows: Windows, bias_width: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention = WindowAttention(channels, n_heads=n_heads, windows=windows, bias_width=bias_width)
        self.network = Perceptron(channels, mlp_ratio * channels, channels, gelu)
        self.norms = nn.ModuleList(nn.LayerNorm(channels, eps=_EPS) for _ in range(2))

    def forward(self, x: Float[Tensor, "batch *token channels"]) -> Float[Tensor, "batch *token channels"]:
        x = x + self.norms[0](self.attention(x))
        return x + self.norms[1](self.network.channels_last(x))


class Down(nn.Module):
    """Join 2 tokens per axis to one with twice the channels, by a linear map and a normalisation.

    Shapes: [batch, *token, channels] to [batch, *(token / 2), 2 channels].
    """

    def __init__(self, channels: int, n_dims: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2**n_dims * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(2 * channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        n_dims = x.ndim - 2
        x = x.reshape(len(x), *(m for n in x.shape[1:-1] for m in (n // 2, 2)), x.shape[-1])
        order = [0, *range(1, 2 * n_dims, 2), *range(2, 2 * n_dims + 1, 2), 2 * n_dims + 1]
        return self.norm(self.linear(x.permute(order).flatten(1 + n_dims)))


class Up(nn.Module):
    """Split a token into 2 per axis with half the channels: a linear map, a normalisation, another linear map.

    Shapes: [batch, *token, channels] to [batch, *(2 token), channels / 2].
    """

    def __init__(self, channels: int, n_dims: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 2**n_dims * channels // 2, bias=False)
        self.norm = nn.LayerNorm(channels // 2, eps=_EPS)
        self.mix = nn.Linear(channels // 2, channels // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n_dims, tokens = x.ndim - 2, x.shape[1:-1]
        x = self.linear(x).unflatten(-1, (*(2,) * n_dims, -1))
        order = [0, *(i for axis in range(n_dims) for i in (1 + axis, 1 + n_dims + axis)), 2 * n_dims + 1]
        x = x.permute(order).reshape(len(x), *(2 * n for n in tokens), -1)
        return self.mix(self.norm(x))


class Poseidon(nn.Module):
    """U-shaped transformer on patches: attention acts within windows of tokens, which are shifted in every second
    layer, and every stage has half the tokens per axis of the one before. ConvNeXt blocks act on the shortcuts.

        down:  h_0 = norm(E a),        e_i = A_i h_i,       h_{i+1} = D_i(e_i + h_i),         i = 0 ... n_stages - 1
        up:    y_n = A'_n e_n,         y_i = A'_i(U_i y_{i+1} + C_i e_i),                     i = n_stages - 2 ... 0
        out:   u = K R y_0

    n is the last stage. E maps a patch to a token, R a token back to the points of the patch. A_i and A'_i are chains
    of ``depth`` ``Layer``, D_i is ``Down``, U_i is ``Up``, C_i a chain of ConvNeXt blocks, and K a convolution over 5
    points per axis.

    Axes are padded to a multiple of patch 2^(n_stages-1) points, and the output is cut back. On periodic axes, windows
    and convolutions wrap around. Tokens know their distances within a window only, so on periodic axes that need no
    padding the network commutes with shifts by windows of the coarsest stage. It is bound to the grid it is trained on.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        patch: points per axis of a patch. Published: 4, on 128 x 128 points.
        width: channels of a token on the first stage, a multiple of ``n_heads``. They double with every stage.
            Published: 48, 96 or 192.
        n_stages: numbers of tokens. Published: 4.
        depth: layers of a stage, on the way down and again on the way up. Published: 4 or 8.
        n_heads: heads on the first stage. They double with every stage. Published: 3.
        window: tokens per axis of a window. Published: 16.
        n_blocks: ConvNeXt blocks on a shortcut. Published: 2.
        kernel: points along each axis of their kernels, an odd number. Published: 7.
        mlp_ratio: hidden channels of a layer's network, in multiples of its channels. Published: 4.
        bias_width: hidden channels of the networks for the relative positions. Published: 512.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: a kernel would wrap around a periodic axis of tokens more than once.
        ValueError: a size below 1, fewer than two stages, a width that isn't a multiple of ``n_heads``, an even kernel.

    Cost: a layer has (4 + 2 mlp_ratio) channels^2 parameters, and besides two operations per parameter and token,
    4 channels window^n_dims per token.

    Reference: Herde et al. (2024), Poseidon: Efficient Foundation Models for PDEs, arXiv 2405.19101; structure and
    sizes are those of its code (camlab-ethz/poseidon). Departures: the published normalisations have scales and shifts
    that are affine in the lead time. All steps have one length here, and for a single lead time they are layer
    normalisations with a redundant parameter for each scale and shift. With these, the numbers of parameters are the
    published ones: 20.8, 158 and 629 million. Windows and convolutions wrap around periodic axes, where theirs stop at
    all ends. Any number of points and one to three axes; theirs interpolates to 128 x 128 points. No dropped paths.
    A file of published weights can be given as ``init_from``; their normalisations are those for the lead time 0.1.

    >>> sizes = dict(width=48, n_stages=4, depth=4, window=16, n_blocks=2, bias_width=512)
    >>> model = Poseidon(in_channels=4, out_channels=4, grid=Grid.periodic(128), **sizes)
    >>> sum(p.numel() for p in model.parameters())
    20747948
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        patch: int = 4,
        width: int = 24,
        n_stages: int = 3,
        depth: int = 2,
        n_heads: int = 3,
        window: int = 8,
        n_blocks: int = 1,
        kernel: int = 7,
        mlp_ratio: int = 4,
        bias_width: int = 64,
    ) -> None:
        super().__init__()
        require_at_least(1, _WHO, patch=patch, width=width, depth=depth, n_heads=n_heads, window=window)
        require_at_least(1, _WHO, n_blocks=n_blocks, kernel=kernel, mlp_ratio=mlp_ratio, bias_width=bias_width)
        require_at_least(2, _WHO, n_stages=n_stages)
        if width % n_heads:
            raise ValueError(
                f"{_WHO} divides its channels among n_heads={n_heads} heads, but width={width} isn't a multiple of "
                "that. Change model.width or model.n_heads."
            )
        n_dims = grid.n_dims
        self._nodes, self._multiple = grid.nodes, patch * 2 ** (n_stages - 1)
        _require_room(grid, patch, n_stages, kernel)
        tokens = _tokens(grid.shape, patch, n_stages)
        channels = [width * 2**stage for stage in range(n_stages)]

        def layers(stage: int, first: int) -> nn.Sequential:
            # The way up begins with shifted windows, as the way down ends.
            return nn.Sequential(
                *(
                    Layer(
                        channels[stage],
                        n_heads=n_heads * 2**stage,
                        windows=Windows(tokens[stage], grid.nodes, window, shifted=(i + first) % 2 == 1),
                        bias_width=bias_width,
                        mlp_ratio=mlp_ratio,
                    )
                    for i in range(depth)
                )
            )

        edges = edges_of(grid)
        self.embedding = CONV[n_dims](in_channels, width, patch, stride=patch)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.encoder = nn.ModuleList(layers(stage, 0) for stage in range(n_stages))
        self.down = nn.ModuleList(Down(n, n_dims) for n in channels[:-1])
        self.skips = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(n, edges=edges, kernel=kernel, eps=_EPS) for _ in range(n_blocks)))
            for n in channels[:-1]
        )
        self.decoder = nn.ModuleList(layers(stage, depth - 1) for stage in range(n_stages))
        self.up = nn.ModuleList(Up(n, n_dims) for n in channels[1:])
        self.recovery = CONV_TRANSPOSE[n_dims](width, out_channels, patch, stride=patch)
        self.projection = Conv(out_channels, out_channels, edges=edges, kernel=5, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, *CONV.values(), *CONV_TRANSPOSE.values())):
                nn.init.normal_(cast(Tensor, module.weight), std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(cast(Tensor, module.bias))

    @staticmethod
    def from_published(states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the published code by our names."""
        ours: dict[str, Tensor] = {}
        for name, value in states.items():
            if found := re.fullmatch(r"(.*norm.*\.(?:weight|bias))\.weight", name):
                ours[found[1]] = _LEAD_TIME * value[:, 0] + states[f"{found[1]}.bias"]
            elif name.endswith(".downsample.reduction.weight"):
                # The second axis varies slowest among the four tokens that are joined there, and fastest here.
                ours[name] = value.unflatten(1, (2, 2, -1)).transpose(1, 2).flatten(1)
            elif not re.search(r"norm.*\.(?:weight|bias)\.bias$", name):
                ours[name] = value
        coarsest = max(
            (int(found[1]) for name in states if (found := re.match(r"decoder\.layers\.(\d+)", name))), default=0
        )
        reversed_stages = {
            r"^decoder\.layers\.(\d+)": lambda found: f"decoder.layers.{coarsest - int(found[1])}",
            r"^decoder\.layers\.(\d+)\.upsample": lambda found: f"up.{int(found[1]) - 1}",
            r"^(up\.\d+)\.upsample": r"\1.linear",
            r"^(up\.\d+)\.mixup": r"\1.mix",
        }
        return renamed(ours, reversed_stages | _PUBLISHED_NAMES)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        h = self.norm(self.embedding(pad_to_multiple(x, self._multiple, self._nodes)).movedim(1, -1))
        shortcuts = []
        for encoder, down, skip in zip(self.encoder, self.down, self.skips, strict=False):
            e = encoder(h)
            shortcuts.append(skip(e.movedim(-1, 1)).movedim(1, -1))
            h = down(e + h)
        y = self.decoder[-1](self.encoder[-1](h))
        for decoder, up in zip(reversed(self.decoder[:-1]), reversed(self.up), strict=True):
            y = decoder(up(y) + shortcuts.pop())
        return self.projection(crop(self.recovery(y.movedim(-1, 1)), x.shape[2:]))


def _tokens(shape: Sequence[int], patch: int, n_stages: int) -> list[list[int]]:
    """Tokens per axis on every stage."""
    multiple = 2 ** (n_stages - 1)
    return [[-(-n // (patch * multiple)) * multiple // 2**stage for n in shape] for stage in range(n_stages)]


def _require_room(grid: Grid, patch: int, n_stages: int, kernel: int) -> None:
    """Raise unless a kernel wraps around no periodic axis more than once on the stages that have a shortcut."""
    periodic = [n for n, nodes in zip(grid.shape, grid.nodes, strict=True) if nodes == "periodic"]

    def fits(patch: int, n_stages: int) -> bool:
        return min(_tokens(periodic, patch, n_stages)[-2]) >= kernel // 2

    if not periodic or fits(patch, n_stages):
        return
    message = (
        f"{_WHO} with n_stages={n_stages} has {min(_tokens(periodic, patch, n_stages)[-2])} tokens on a periodic axis, "
        f"which a kernel of {kernel} tokens wraps around more than once"
    )
    knobs = "model.kernel or model.patch, or raise the resolution"
    # Fewer stages if that is enough, else smaller patches, too.
    for smaller in range(patch, 0, -1):
        for n in range(n_stages, 1, -1):
            if fits(smaller, n):
                now, largest = {"n_stages": n_stages, "patch": patch}, {"n_stages": n, "patch": smaller}
                largest = {name: value for name, value in largest.items() if value < now[name]}
                lowered = " and ".join(f"model.{name} to at most {value}" for name, value in largest.items())
                raise DoesNotFit(f"{message}. Lower {lowered}, {knobs}.", **largest)
    raise ValueError(f"{message}. Lower {knobs}.")
