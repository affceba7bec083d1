"""Symmetries: the maps equal their formulas, and map solutions to solutions."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from data_gen.conservation_laws import ConservationLaw
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.problems.burgers1d import Burgers1D
from data_gen.problems.darcy2d import Darcy2D
from data_gen.problems.euler import Euler, ShearLayers
from data_gen.problems.ns2d import NavierStokes2D, SinusoidalForcing
from data_gen.problems.shallow_water import ShallowWater, SmoothSurface
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.batch import Batch
from neuralop_bench.config.compose import compose
from neuralop_bench.training import augmentation
from neuralop_bench.training.augmentation import Augmentation, Boosts, Noise, Symmetries

N = 16
SPEC = NavierStokes2D(viscosity=1e-3, resolution=N).spec
NAMES = ("translation_along_antidiagonal", "rotation_by_pi", "reflection_with_sign")


def function(x: Tensor, y: Tensor) -> Tensor:
    """A field on the unit torus without a symmetry of its own."""
    return sum(
        (
            torch.cos(2 * math.pi * (k1 * x + k2 * y) + phase)
            for k1, k2, phase in [(1, 2, 0.3), (-3, 1, 1.1), (0, 2, 2.0)]
        ),
        start=torch.zeros_like(x),
    )


def sampled(field: Callable[[Tensor, Tensor], Tensor], n: int = N) -> Tensor:
    nodes = torch.arange(n, dtype=torch.float64) / n
    return field(*torch.meshgrid(nodes, nodes, indexing="ij"))


def group() -> list[Tensor]:
    """All images of ``function`` under the group, from the formulas alone."""
    images = []
    for shift in range(N):
        a = shift / N

        def translated(x: Tensor, y: Tensor, a: float = a) -> Tensor:
            return function(x + a, y - a)

        for rotated in (translated, lambda x, y, w=translated: w(0.25 - x, -y)):
            images.append(sampled(rotated))
            images.append(sampled(lambda x, y, w=rotated: -w(y + 0.5, x)))
    return images


def batch_of(frames: Tensor, n_history: int) -> Batch:
    return Batch(frames[:, :n_history], frames.new_empty(len(frames), 0, *frames.shape[3:]), frames[:, n_history:])


def only(name: str) -> Symmetries:
    return Symmetries(replace(SPEC, symmetries=(name,)))


def distances(images: list[Tensor], field: Tensor) -> Tensor:
    return torch.stack([(image - field).abs().max() for image in images])


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("rotation_by_pi", lambda x, y: function(0.25 - x, -y)),
        ("reflection_with_sign", lambda x, y: -function(y + 0.5, x)),
    ],
)
def test_a_map_that_may_happen_is_its_formula(name: str, formula: Callable[[Tensor, Tensor], Tensor]) -> None:
    frames = sampled(function).expand(64, 1, 1, N, N)
    torch.manual_seed(0)
    moved = only(name)(batch_of(frames, 0)).target
    images = [sampled(function), sampled(formula)]
    nearest = torch.stack([distances(images, sample[0, 0]) for sample in moved])
    assert nearest.min(dim=1).values.max() < 1e-12
    # Each sample draws for itself; both outcomes are about equally likely.
    assert 20 <= int((nearest.argmin(dim=1) == 0).sum()) <= 44


def test_translations_move_along_the_antidiagonal_by_every_number_of_cells() -> None:
    torch.manual_seed(0)
    moved = only(NAMES[0])(batch_of(sampled(function).expand(200, 1, 1, N, N), 0)).target
    images = [sampled(lambda x, y, a=a / N: function(x + a, y - a)) for a in range(N)]
    nearest = torch.stack([distances(images, sample[0, 0]) for sample in moved])
    assert nearest.min(dim=1).values.max() < 1e-12
    assert set(nearest.argmin(dim=1).tolist()) == set(range(N))


def test_all_together_reach_the_whole_group_and_nothing_else() -> None:
    images = group()
    torch.manual_seed(0)
    moved = Symmetries(SPEC)(batch_of(sampled(function).expand(600, 1, 1, N, N), 0)).target
    nearest = torch.stack([distances(images, sample[0, 0]) for sample in moved])
    assert nearest.min(dim=1).values.max() < 1e-12
    assert set(nearest.argmin(dim=1).tolist()) == set(range(len(images)))
    assert len(images) == 4 * N


PROBLEMS: dict[str, NavierStokes2D | Burgers1D | Darcy2D | ConservationLaw] = {
    "forced": NavierStokes2D(viscosity=1e-3, resolution=N, oversampling=1.0, interval=0.5, n_snapshots=5),
    "free": NavierStokes2D(
        viscosity=1e-3,
        resolution=N,
        oversampling=1.0,
        interval=0.5,
        n_snapshots=5,
        forcing=SinusoidalForcing((1, 1), 0, 0),
    ),
    "kolmogorov": NavierStokes2D(
        viscosity=1e-3,
        resolution=N,
        oversampling=1.0,
        interval=0.5,
        n_snapshots=5,
        forcing=SinusoidalForcing((0, 2), 0, 0.1),
    ),
    "burgers": Burgers1D(resolution=256, interval=0.25, n_snapshots=4),
    "darcy": Darcy2D(resolution=13, solver_resolution=13),
    "euler1d": Euler(resolution=32, solver_resolution=32, n_snapshots=3),
    "euler2d": Euler(n_dims=2, resolution=N, solver_resolution=N, n_snapshots=3),
    "kelvin_helmholtz": Euler(
        n_dims=2,
        walls="periodic",
        initial=ShearLayers(),
        resolution=N,
        solver_resolution=N,
        interval=0.1,
        n_snapshots=3,
    ),
    "water": ShallowWater(initial=SmoothSurface(), resolution=N, solver_resolution=N, n_snapshots=3),
}


@pytest.mark.parametrize(
    ("flow", "name"), [(flow, name) for flow, problem in PROBLEMS.items() for name in problem.spec.symmetries]
)
def test_a_moved_solution_is_a_solution(flow: str, name: str) -> None:
    # Solving from the moved input gives the moved trajectory: the solver, the force and the coefficients share the
    # symmetry.
    problem = PROBLEMS[flow]
    samples = problem.simulate([np.random.default_rng(seed) for seed in range(6)])
    n_history = 0 if problem.spec.is_steady else 1
    frames = torch.from_numpy(samples.trajectory)
    batch = Batch(frames[:, :n_history], torch.from_numpy(samples.static), frames[:, n_history:])
    torch.manual_seed(0)
    moved = Symmetries(replace(problem.spec, symmetries=(name,)))(batch)
    assert not torch.allclose(moved.target, batch.target, atol=1e-2 * float(frames.abs().max()))
    n_steps = batch.target.shape[1]
    solved = problem.solve(moved.history.numpy(), moved.static.numpy(), n_steps).trajectory
    np.testing.assert_allclose(solved, moved.target.numpy(), atol=1e-6 * float(frames.abs().max()))


def test_all_eight_maps_of_the_square_are_drawn_and_move_coefficient_and_solution_alike() -> None:
    field = sampled(function, 7)
    spec = Darcy2D(resolution=13, solver_resolution=25).spec
    batch = Batch(torch.empty(200, 0, 1, 7, 7), 2 * field.expand(200, 1, 7, 7), field.expand(200, 1, 1, 7, 7))
    torch.manual_seed(0)
    moved = Symmetries(spec)(batch)
    images = [torch.rot90(image, turns) for image in (field, field.T) for turns in range(4)]
    nearest = torch.stack([distances(images, sample[0, 0]) for sample in moved.target])
    assert nearest.min(dim=1).values.max() == 0
    assert set(nearest.argmin(dim=1).tolist()) == set(range(8))
    assert torch.equal(moved.static[:, 0], 2 * moved.target[:, 0, 0])


def test_history_and_target_of_a_sample_move_together_and_keep_their_shapes() -> None:
    images = group()
    # Every frame is the same field times a number, so the map of each frame can be read off.
    numbers = torch.arange(1.0, 6.0, dtype=torch.float64).view(1, 5, 1, 1, 1)
    frames = numbers * sampled(function).expand(30, 5, 1, N, N)
    torch.manual_seed(0)
    moved = Symmetries(SPEC)(batch_of(frames, 3))
    assert moved.history.shape == (30, 3, 1, N, N)
    assert moved.target.shape == (30, 2, 1, N, N)
    assert moved.static.shape == (30, 0, N, N)
    together = torch.cat([moved.history, moved.target], dim=1) / numbers
    torch.testing.assert_close(together, together[:, :1].expand_as(together), rtol=0, atol=1e-12)
    chosen = {int(distances(images, sample[0, 0]).argmin()) for sample in together}
    assert len(chosen) > 10  # samples move independently


def test_every_channel_of_every_precision_is_moved_and_the_batch_given_stays() -> None:
    frames = sampled(function).float().expand(8, 2, 1, N, N).clone()
    before = frames.clone()
    torch.manual_seed(1)
    moved = Symmetries(SPEC)(batch_of(frames, 1))
    assert moved.target.dtype == torch.float32
    assert torch.equal(frames, before)
    assert not torch.equal(moved.target, frames[:, 1:])


def test_the_draw_is_a_function_of_torchs_global_stream() -> None:
    batch = batch_of(sampled(function).expand(8, 2, 1, N, N), 1)
    augment = Symmetries(SPEC)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(augment(batch).target)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(augment(batch).target, results[2])  # the stream goes on


@pytest.mark.parametrize(("n_dims", "n_maps"), [(1, 2), (2, 8), (3, 48)])
def test_all_maps_of_the_cube_are_drawn(n_dims: int, n_maps: int) -> None:
    grid = Grid.periodic(5, n_dims)
    augment = Symmetries(replace(SPEC, grid=grid, symmetries=("reflections_and_turns",)))
    frames = torch.rand(1, 1, 1, *grid.shape).expand(500, *(-1,) * (n_dims + 2))
    torch.manual_seed(0)
    moved = augment(batch_of(frames, 0)).target
    assert len({field.numpy().tobytes() for field in moved}) == n_maps
    assert all(torch.equal(field.flatten().sort().values, frames[0].flatten().sort().values) for field in moved)


def test_specs_that_it_cant_move_are_refused() -> None:
    with pytest.raises(ValueError, match="augmentation=none"):
        Symmetries(replace(SPEC, symmetries=()))
    with pytest.raises(ValueError, match="augmentation=symmetries supports none of them"):
        Symmetries(replace(SPEC, symmetries=("time_reversal",)))
    with pytest.raises(ValueError, match=r"multiple of 4 points .* rotation_by_pi, got \(18, 18\)"):
        Symmetries(replace(SPEC, grid=Grid.periodic(18)))
    rectangle = Grid((16, 12), (1.0, 1.0), ("periodic",) * 2, ("periodic",) * 2)
    with pytest.raises(ValueError, match="needs a square grid"):
        Symmetries(replace(SPEC, grid=rectangle))
    with pytest.raises(ValueError, match="needs a periodic grid with equal axes"):
        Symmetries(replace(SPEC, grid=rectangle, symmetries=("reflections_and_turns",)))
    with pytest.raises(ValueError, match=r"needs 2 components of a vector .* has 1 state fields"):
        Symmetries(replace(SPEC, symmetries=("reflections_and_turns_of_a_vector",)))
    between_walls = replace(SPEC, symmetries=("reflections_and_turns_of_scalars_and_a_vector",))
    with pytest.raises(ValueError, match=r"needs a scalar and 2 components of a vector .* has 1 state fields"):
        Symmetries(between_walls)
    with pytest.raises(ValueError, match=r"as many points along every axis .* got \(16, 12\)"):
        Symmetries(replace(between_walls, grid=rectangle))
    with pytest.raises(ValueError, match="can't map the static fields"):
        Symmetries(replace(SPEC, static=(FieldSpec("forcing", "a force"),)))


def test_an_unknown_symmetry_beside_known_ones_is_left_out() -> None:
    # Fewer symmetries are still symmetries.
    spec: DatasetSpec = replace(SPEC, symmetries=("time_reversal", "rotation_by_pi"))
    frames = sampled(function).expand(16, 1, 1, N, N)
    torch.manual_seed(0)
    moved = Symmetries(spec)(batch_of(frames, 0)).target
    images = [sampled(function), sampled(lambda x, y: function(0.25 - x, -y))]
    assert max(float(distances(images, sample[0, 0]).min()) for sample in moved) < 1e-12


def test_noise_has_its_size_in_given_frames_alone() -> None:
    frames = 3.0 * torch.randn(6, 4, 2, N, N)
    frames[:, :, 1] *= 10
    whole = batch_of(frames, 3)
    augment = Noise(SPEC, size=0.1)
    torch.manual_seed(1)
    noisy = augment(whole)
    assert noisy.target is whole.target
    error = (noisy.history - whole.history).square().mean(dim=(1, 3, 4)).sqrt()
    torch.testing.assert_close(error, torch.tensor([0.3, 3.0]).expand(6, 2), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("augment", "shape"),
    [(Noise(SPEC, size=0.1), (2, N, N)), (Boosts(Burgers1D(resolution=N).spec), (1, N))],
    ids=("noise", "boosts"),
)
def test_the_numbers_of_a_sample_do_not_depend_on_the_process(augment: Augmentation, shape: tuple[int, ...]) -> None:
    whole = batch_of(torch.randn(6, 4, *shape), 3)
    torch.manual_seed(1)
    together, then = augment(whole), torch.randn(())
    torch.manual_seed(1)
    part = augment(Batch(*(fields[2:5] for fields in whole)), before=2, after=1)
    assert torch.equal(part.history, together.history[2:5])
    assert torch.equal(part.target, together.target[2:5])
    assert torch.randn(()) == then


def test_noise_on_images_under_symmetries_is_noise_on_an_image() -> None:
    whole = batch_of(sampled(function).expand(1, 2, 1, N, N), 1)
    moved = Noise(SPEC, size=1e-6, symmetries=True)(whole)
    assert distances(group(), moved.target[0, 0, 0].double()).min() < 1e-6
    assert distances(group(), moved.history[0, 0, 0].double()).min() < 1e-4


@pytest.mark.parametrize(
    ("spec", "size", "expected"),
    [(SPEC, 0.0, "augmentation.size must be positive"), (Darcy2D(resolution=N).spec, 0.1, "it is steady")],
)
def test_noise_that_cant_be_added_is_refused(spec: DatasetSpec, size: float, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Noise(spec, size=size)


@pytest.mark.parametrize(("dataset", "transport"), [("burgers1d", 1.0), ("kdv1d", 6.0), ("ks1d", 1.0)])
def test_a_boosted_solution_is_a_solution(dataset: str, transport: float) -> None:
    problem = instantiate(compose(f"dataset={dataset}", "track=smoke").dataset.problem)
    torch.manual_seed(0)
    solved = problem.simulate([generator(0, "test", i) for i in range(2)])
    frames = torch.from_numpy(solved.trajectory)[:, :3]
    frames = torch.cat([torch.from_numpy(solved.history), frames], dim=1) if problem.spec.stores_initial else frames
    boosted = Boosts(problem.spec, transport=transport)(batch_of(frames, 1))
    assert (boosted.history - frames[:, :1]).abs().amin() > 0.01
    n_steps = boosted.target.shape[1]
    again = problem.solve(boosted.history.numpy(), np.empty((2, 0, frames.shape[-1])), n_steps).trajectory
    np.testing.assert_allclose(again, boosted.target.numpy(), atol=1e-4 * float(frames.abs().amax()))


@pytest.mark.parametrize(
    ("spec", "options", "expected"),
    [
        (SPEC, {}, "periodic interval"),
        (replace(Burgers1D(resolution=16).spec, times=()), {}, "even times"),
        (Burgers1D(resolution=16).spec, {"size": 0}, r"augmentation\.size"),
        (Burgers1D(resolution=16).spec, {"transport": 0}, r"augmentation\.transport"),
    ],
)
def test_boosts_that_cant_be_had_are_refused(spec: DatasetSpec, options: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Boosts(spec, **options)


def test_none_leaves_batches_alone() -> None:
    batch = batch_of(sampled(function).expand(2, 2, 1, N, N), 1)
    assert augmentation.none(SPEC)(batch) is batch
