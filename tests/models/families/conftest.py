from __future__ import annotations

import pytest
from tiny_families import KINDS, Both, write_tiny
from transformers import AutoModelForImageTextToText

from more_r1.models.load import load_backbone


@pytest.fixture(scope="session", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Each family in turn."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny(request.param, folder)
    stock = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="sdpa").eval()
    return Both(request.param, folder, load_backbone(folder, device="cpu"), stock)
