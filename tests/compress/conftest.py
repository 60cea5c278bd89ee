"""Small networks for the tests of `compress`: with batch norms that do something, and one that knows digits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.method import Candidate, Context
from recipes.recipe import AugmentSection, DataSection, TrainSection
from train.data import Dataset, load_dataset
from train.loop import fit
from train.models import ModelConfig, SameConv2d, build_model

RESNET = ModelConfig("resnet", (8, 8, 1), 10, (8, 8, 8, 16, 16), (1, 1, 2), "relu", 0.1)
DSCNN = ModelConfig("dscnn", (10, 7, 3), 5, (8, 12, 16), (2, 1, 2), "relu6", 0.1)


class PoolNet(nn.Module):
    """What the two families do not have: max pool, flatten, a layer without an activation, a bias in a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SameConv2d(2, 4, 3, 1, (6, 6))
        self.norm = nn.BatchNorm2d(4)
        self.activation = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.flatten(self.pool(self.activation(self.norm(self.conv(x))))))


def stir_norms(model: nn.Module, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Gives every batch norm random factors and the statistics of what flows through it, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
            module.momentum = 0.9
    height, width, channels = shape
    with torch.no_grad():
        model.train()(torch.rand(64, channels, height, width, generator=generator))
    return model.eval()


def fresh(config: ModelConfig, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return stir_norms(build_model(config), config.input_shape, seed)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DataSection(), 1)


@pytest.fixture(scope="session")
def few_digits(digits: Dataset) -> Dataset:
    """A part of digits on which an epoch takes a moment."""
    return Dataset("digits", digits.train.take(slice(640)), digits.validation, digits.test.take(slice(120)), digits.class_names)


@pytest.fixture(scope="session")
def training() -> TrainSection:
    return TrainSection(
        epochs=6, batch_size=32, learning_rate=5e-3, warmup_epochs=0.5, threads=1, augment=AugmentSection(), patience=50
    )


@pytest.fixture(scope="session")
def trained(few_digits: Dataset, training: TrainSection) -> Candidate:
    """A small resnet that reads digits; tests must not change it."""
    torch.manual_seed(3)
    model = build_model(RESNET)
    fit(model, few_digits, training, seed=3)
    return Candidate(model.eval(), RESNET)


@pytest.fixture
def context(trained: Candidate, few_digits: Dataset, training: TrainSection) -> Context:
    return Context(few_digits, training, trained.model, seed=5)


@pytest.fixture(params=["resnet", "dscnn"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, ModelConfig]:
    """Either family with fresh weights and stirred batch norms."""
    config = {"resnet": RESNET, "dscnn": DSCNN}[request.param]
    return fresh(config), config


@pytest.fixture
def pool_network() -> nn.Module:
    torch.manual_seed(1)
    return stir_norms(PoolNet(), (6, 6, 2))
