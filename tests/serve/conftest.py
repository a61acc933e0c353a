"""One app with the shipped model for all tests of the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from page_fixtures import address, browser, examples, page, sailors, saved  # noqa: F401
from served import unlabelled

from more_r1.document import Document
from more_r1.formats import load_documents
from more_r1.models.load import Backbone, load_backbone
from more_r1.schema import Schema
from more_r1.serve.app import create_app

HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def shipped() -> Backbone:
    return load_backbone("tiny")


@pytest.fixture(scope="session")
def documents(benchmark_dir: Path) -> list[Document]:
    """Small ones of the embedded world, at most three pairs each."""
    return [unlabelled(document, 3) for document in load_documents(benchmark_dir, "train")[:6]]


@pytest.fixture(scope="session")
def client(shipped: Backbone) -> Iterator[TestClient]:
    with TestClient(create_app(shipped, Schema.more()), base_url=HERE) as client:
        yield client
