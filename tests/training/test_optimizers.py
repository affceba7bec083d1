"""SOAP as recipes name it."""

import pytest
import torch

from neuralop_bench.training.optimizers import soap


def _weight(*shape: int) -> torch.nn.Parameter:
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return weight


def test_soap_has_no_fused_form() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.fused=false"):
        soap([_weight(2, 2)], fused=True)


def test_axes_that_are_too_long_get_no_eigenbasis() -> None:
    weight = _weight(3, 7)
    optimizer = soap([weight], max_precondition_dim=5)
    optimizer.step()
    short, long = optimizer.state[weight]["Q"]
    assert short.shape == (3, 3)
    assert len(long) == 0


def test_soap_turns_into_the_eigenbases_of_the_gradients() -> None:
    # A direction that gradients share goes down at the same pace in any basis, one that is given in two axes as well:
    # Adam alone would move both of its coordinates by the full rate.
    steps = []
    for direction in (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])):
        weight = torch.nn.Parameter(torch.zeros(1, 2))
        optimizer = soap([weight], lr=0.1, weight_decay=0.0)
        for _ in range(3):
            weight.grad = direction.clone()
            optimizer.step()
        steps.append(float((weight.detach() * direction).sum()))
        assert torch.allclose(weight.detach(), steps[-1] * direction, atol=1e-5)
    assert steps[0] == pytest.approx(steps[1], rel=1e-4)
    assert steps[0] < -0.05
