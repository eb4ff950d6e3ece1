"""The network, number by number."""

from __future__ import annotations

import pytest
import torch

from configs.schema import Model
from train.model import blank_model, build_model


@pytest.mark.parametrize(("stem", "parameters"), [("cifar", 23_520_842), ("imagenet", 23_528_522)])
def test_number_of_parameters(stem: str, parameters: int) -> None:
    model = blank_model(Model(stem=stem))

    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == 320


@pytest.mark.parametrize(("stem", "side"), [("cifar", 4), ("imagenet", 1)])
def test_stem_sets_the_size_of_the_last_map(stem: str, side: int) -> None:
    model = blank_model(Model(stem=stem)).eval()
    shapes = []
    model.layer4.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 32))

    assert shapes == [(2, 2048, side, side)]


def test_initialisation_depends_on_the_seed_and_on_nothing_else() -> None:
    first = build_model(Model(), seed=5).state_dict()
    torch.rand(7)
    before = torch.random.get_rng_state()
    second = build_model(Model(), seed=5).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(first["conv1.weight"], build_model(Model(), 6).conv1.weight)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_blank_model_is_the_same_network_with_nothing_that_passes_for_weights(stem: str) -> None:
    config = Model(stem=stem, freeze_stages=1)
    blank, built = blank_model(config), build_model(config, seed=0)
    entries, wanted = blank.state_dict(), built.state_dict()

    assert [name for name, each in blank.named_parameters() if each.requires_grad] == [
        name for name, each in built.named_parameters() if each.requires_grad
    ]
    assert entries.keys() == wanted.keys()
    for name, each in entries.items():
        assert (each.stride(), each.shape, each.dtype) == (
            *(wanted[name].stride(), wanted[name].shape, wanted[name].dtype),
        )
        assert each.isnan().all() if each.is_floating_point() else each == 0
    blank.load_state_dict(wanted)
    assert all(torch.equal(each, wanted[name]) for name, each in blank.state_dict().items())


def test_initialisation_is_mmcls() -> None:
    """He's normal by fan out, a head of deviation 0.01, closing norms at 0 from scratch only."""
    scratch = build_model(Model(stem="cifar"), seed=0)

    assert scratch.conv1.weight.detach().std() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert scratch.fc.weight.detach().std() == pytest.approx(0.01, rel=0.05)
    assert (scratch.fc.bias == 0).all()
    assert (scratch.layer1[0].bn3.weight == 0).all()
    pretrained = build_model(Model(weights="some.pth"), seed=0)
    assert (pretrained.layer1[0].bn3.weight == 1).all()
