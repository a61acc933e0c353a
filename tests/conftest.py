"""What the tests of several rooms share: a small benchmark and a random tiny model, each made once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from more_r1.models.load import Backbone
from more_r1.reasoning.prompt import PromptForm

if TYPE_CHECKING:
    from halves import Halfway

# The same examples every time, here as on any machine, however slow.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

FORM = PromptForm(wording="short", whole_pixels=112 * 112, crop_pixels=56 * 56)


@pytest.fixture(scope="session")
def benchmark_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded benchmark with some twenty documents."""
    from more_r1.synthetic.benchmark import write_benchmark

    folder = tmp_path_factory.mktemp("benchmark") / "data"
    for _ in write_benchmark(folder, 20, 3):
        pass
    return folder


@pytest.fixture(scope="session")
def random_tiny() -> Backbone:
    """A tiny model of the embedded world with random weights."""
    from more_r1.models.tiny import build_tiny
    from more_r1.synthetic.lessons import vocabulary

    return build_tiny(vocabulary(), 0, FORM)


@pytest.fixture(scope="session")
def random_tiny_dir(random_tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a model folder."""
    from more_r1.models.load import save_backbone

    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_backbone(random_tiny, folder)
    return folder


@pytest.fixture(scope="session")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Halfway:
    """A small task and a model that knows half of it."""
    from halves import begin

    return begin(tmp_path_factory.mktemp("halfway"))
