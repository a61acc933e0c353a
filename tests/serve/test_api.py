"""The API: its answers are those of the library, and its files are read back as what was sent."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from served import body_of, encoded, in_memory, picture_of, uri

from more_r1.document import Document, open_image
from more_r1.extraction.extract import extract
from more_r1.extraction.words import tokenise
from more_r1.formats import load_documents
from more_r1.formats.check import check_more
from more_r1.formats.more import read_more
from more_r1.models.classifier import Classifier, Head
from more_r1.models.load import Backbone
from more_r1.schema import NONE, Schema
from more_r1.serve.app import create_app


@pytest.fixture(scope="module")
def answers(client: TestClient, documents: list[Document]) -> list[dict[str, Any]]:
    return [client.post("/extract", json=body_of(document)).json() for document in documents[:3]]


def test_answers_are_those_of_the_library(answers: list[dict[str, Any]], shipped: Backbone, documents: list[Document]) -> None:
    for answer, document in zip(answers, documents, strict=False):
        expected = list(extract(shipped, [document], confidence=True))
        found = answer["predictions"]
        assert answer["document"] == document.model_dump(mode="json", exclude={"image"})
        assert [(p["object"], p["entity"]) for p in found] == [(pair.object, pair.entity) for pair in document.pairs]
        for one, own in zip(found, expected, strict=True):
            trace = own.trace(Schema.more(), shipped.form)
            assert trace is not None
            assert (one["label"], one["completion"], one["answer"]) == (own.predicted, own.completion, trace.answer)
            assert tuple(one["steps"]) == trace.steps
            assert len(trace.steps) == 6
            assert one["confidence"] == pytest.approx(own.confidence, abs=1e-4)
            assert (one["name"], tuple(one["span"])) == (own.name, own.span)
            assert one["agreement"] is None
            assert not one["abstained"]


def test_options_are_those_of_the_library(client: TestClient, shipped: Backbone, documents: list[Document]) -> None:
    document = documents[0].model_copy(update={"pairs": documents[0].pairs[:2]})
    how = {"joint": True, "types": True, "samples": 1, "min_confidence": 0.97}
    expected = list(extract(shipped, [document], confidence=True, **how))
    found = client.post("/extract", json=body_of(document, **how)).json()["predictions"]
    assert [(p["label"], p["agreement"], p["abstained"]) for p in found] == [
        (own.predicted, own.agreement, own.abstained) for own in expected
    ]
    withheld = client.post("/extract", json=body_of(document, min_confidence=1)).json()["predictions"]
    assert {(p["label"], p["abstained"]) for p in withheld} == {(None, True)}


def test_an_upload_is_answered_like_a_data_uri(
    client: TestClient, answers: list[dict[str, Any]], documents: list[Document]
) -> None:
    rest = body_of(documents[0])
    del rest["image"]
    files = {"image": ("holiday.png", picture_of(documents[0]))}
    answer = client.post("/extract", data={"document": json.dumps(rest)}, files=files)
    assert answer.json() == answers[0]


def test_what_is_not_given_is_proposed(client: TestClient, documents: list[Document]) -> None:
    document = documents[0]
    image, text = uri(picture_of(document)), document.text
    proposed = client.post("/propose", json={"image": image, "text": text}).json()
    assert len(proposed["objects"]) >= len(document.objects)
    assert {tuple(entity["span"].values()) for entity in proposed["entities"]} >= {
        (entity.span.start, entity.span.end) for entity in document.entities
    }
    assert "image" not in proposed
    assert proposed["pairs"] == []

    object = document.objects[0].model_dump(mode="json")
    kept = client.post("/propose", json={"image": image, "text": text, "objects": [object]}).json()
    assert (kept["objects"], kept["entities"]) == ([object], proposed["entities"])

    entity = proposed["entities"][:1]
    upload = client.post(
        "/extract", data={"text": text, "document": json.dumps({"entities": entity})}, files={"image": picture_of(document)}
    ).json()
    assert [(p["object"], p["entity"]) for p in upload["predictions"]] == [
        (object["id"], entity[0]["id"]) for object in proposed["objects"]
    ]


def test_a_text_is_cut_as_everywhere(client: TestClient) -> None:
    text = "Don't stop Ada's U.S. team, 3.5\tmiles <b>away</b>"
    assert client.post("/tokens", json={"text": text}).json() == {"tokens": list(tokenise(text.replace("\t", " ")))}
    assert client.post("/tokens", json={"text": ""}).json() == {"tokens": []}


def test_the_schema_is_said_in_full(client: TestClient, shipped: Backbone) -> None:
    schema = Schema.more()
    said = client.get("/schema").json()
    assert [relation["label"] for relation in said["relations"]] == list(schema.labels)
    assert (said["proposers"], said["model"]) == ({"objects": "embedded", "entities": "gazetteer"}, "tiny")
    assert said["embedded"]
    for relation, one in zip(schema.relations, said["relations"][1:], strict=True):
        assert one["description"] == relation.meaning
        assert (one["object"], one["entity"]) == (relation.object_type, relation.entity_type)
        assert (one["symmetric"], one["inverse"], one["at_most_one"]) == (
            relation.symmetric,
            relation.inverse,
            relation.at_most_one,
        )


def test_no_place_on_disk_is_told(shipped: Backbone, tmp_path: Path) -> None:
    names = tmp_path / "names.tsv"
    names.write_text("Ada Lopez\tper\n")
    app = create_app(shipped, Schema.more(), model=str(tmp_path / "mine"), entities=f"gazetteer:{names}")
    with TestClient(app, base_url="http://localhost") as client:
        said = client.get("/schema").json()
        assert (said["model"], said["proposers"]["entities"], said["embedded"]) == ("mine", "gazetteer", False)
        assert client.get("/health").json() == {"status": "ok", "model": "mine", "waiting": 0, "room": 64}


def test_own_relations_are_asked_for(shipped: Backbone, documents: list[Document]) -> None:
    schema = Schema.parse("relations: {/per/per/rival: each wants what the other has}")
    with TestClient(create_app(shipped, schema), base_url="http://localhost") as client:
        found = client.post("/extract", json=body_of(documents[0])).json()["predictions"]
    assert {one["label"] for one in found} <= {NONE, "/per/per/rival"}


def test_a_classification_head_answers_too(shipped: Backbone, documents: list[Document]) -> None:
    torch.manual_seed(0)
    head = Head(shipped.model.config.text_config.hidden_size, 21).eval()
    model = Classifier(replace(shipped, form=shipped.form.model_copy(update={"reasoning": "none"})), head, Schema.more().labels)
    with TestClient(create_app(model, Schema.more()), base_url="http://localhost") as client:
        found = client.post("/extract", json=body_of(documents[0])).json()["predictions"]
    own = list(extract(model, [documents[0]], confidence=True))
    assert [one["label"] for one in found] == [one.predicted for one in own]
    assert [one["confidence"] for one in found] == pytest.approx([one.confidence for one in own], abs=1e-4)
    assert not any(one["steps"] for one in found)


def test_batches_are_answered_line_by_line(
    client: TestClient, answers: list[dict[str, Any]], documents: list[Document]
) -> None:
    good = [json.dumps(body_of(document)) for document in documents[:3]]
    bad = json.dumps({**body_of(documents[0]), "id": "mine", "joint": "perhaps"})
    answer = client.post("/batch", content="\n".join([good[0], "{", "", good[1], bad, good[2]]))
    assert answer.headers["content-type"].startswith("application/jsonl")
    first, broken, second, wrong, third = map(json.loads, answer.text.splitlines())
    for one, other in zip((first, second, third), answers, strict=True):
        assert one["document"] == other["document"]
        assert [p["completion"] for p in one["predictions"]] == [p["completion"] for p in other["predictions"]]
    assert broken["id"] == "2"
    assert "not JSON" in broken["error"]
    assert wrong["id"] == "mine"
    assert "joint" in wrong["error"]


def test_graphs_hold_the_relations(client: TestClient, answers: list[dict[str, Any]]) -> None:
    import networkx
    from rdflib import RDF, Graph

    corrected = json.loads(json.dumps(answers))
    for answer in corrected:
        answer["document"]["id"] = "same"  # two documents all the same
        for prediction in answer["predictions"]:
            prediction["label"] = "/per/org/member_of"
        answer["predictions"][0]["label"] = NONE
    count = sum(len(answer["predictions"]) - 1 for answer in corrected)
    assert count > 2
    made = {}
    for format in ("ttl", "jsonld", "graphml"):
        made[format] = client.post(f"/graph?format={format}", json={"documents": corrected})
        assert made[format].headers["content-disposition"] == f'attachment; filename="graph.{format}"'
    for format, name in (("ttl", "turtle"), ("jsonld", "json-ld")):
        assert len(list(Graph().parse(data=made[format].text, format=name).subjects(RDF.type, RDF.Statement))) == count
    assert networkx.parse_graphml(made["graphml"].text).number_of_edges() == count


def labelled(documents: list[Document]) -> list[Document]:
    """In memory, each pair with a label, and without hops, which a page does not know."""
    return [
        in_memory(document).model_copy(
            update={
                "pairs": tuple(pair.model_copy(update={"hops": None, "label": pair.label or NONE}) for pair in document.pairs)
            }
        )
        for document in documents
    ]


def test_corrected_documents_come_back_from_jsonl(client: TestClient, benchmark_dir: Path, tmp_path: Path) -> None:
    documents = labelled(load_documents(benchmark_dir, "train")[:3])
    made = client.post("/export?format=jsonl", json={"documents": [body_of(document) for document in documents]})
    (tmp_path / "documents.jsonl").write_bytes(made.content)
    assert load_documents(tmp_path / "documents.jsonl") == documents


def test_corrected_documents_come_back_from_the_more_layout(client: TestClient, benchmark_dir: Path, tmp_path: Path) -> None:
    documents = labelled(load_documents(benchmark_dir, "train")[:3])
    bodies = [body_of(document) for document in documents]
    made = client.post("/export?format=more", json={"documents": bodies})
    assert made.content == client.post("/export?format=more", json={"documents": bodies}).content
    zipfile.ZipFile(io.BytesIO(made.content)).extractall(tmp_path)
    assert check_more(tmp_path, Schema.more()).sound
    read = read_more(tmp_path, "train")
    assert labelled(read) == documents

    # Ids of people become names of files: none leaves the folder, none is there twice.
    for body, id in zip(bodies, ("../up", "photo", "Photo"), strict=True):
        body["id"] = id
    renamed = client.post("/export?format=more", json={"documents": bodies})
    names = {name for name in zipfile.ZipFile(io.BytesIO(renamed.content)).namelist() if name.startswith("img_org/")}
    assert names == {"img_org/train/0001.png", "img_org/train/0002.png", "img_org/train/0003.png"}


def test_more_takes_labels_of_the_schema_only(client: TestClient, documents: list[Document]) -> None:
    refused = client.post("/export?format=more", json={"documents": [body_of(documents[0])]})
    assert refused.status_code == 422
    assert "label" in refused.json()["error"]


def test_three_examples_come_with_the_package(client: TestClient) -> None:
    examples = client.get("/examples").json()
    assert len(examples) == 3
    for example in examples:
        found = client.post("/propose", json=example)
        assert found.status_code == 200, found.text
        assert len(found.json()["tokens"]) > 3
    answer = client.post("/extract", json={**examples[0], "objects": [], "entities": [], "pairs": []}).json()
    assert any(prediction["label"] != NONE for prediction in answer["predictions"])


def test_the_api_describes_itself(client: TestClient) -> None:
    said = client.get("/openapi.json").json()
    posts = {path: each["post"] for path, each in said["paths"].items() if "post" in each}
    assert set(posts) == {"/tokens", "/propose", "/extract", "/batch", "/graph", "/export"}
    assert all(post["description"] and "requestBody" in post for post in posts.values())
    defined = said["components"]["schemas"]

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    assert {name.removeprefix("#/components/schemas/") for name in references(said)} <= set(defined)
    assert set(defined["Asked"]["required"]) == {"image"}
    assert {"joint", "types", "samples", "min_confidence", "objects", "text"} <= set(defined["Asked"]["properties"])


def test_the_page_comes_with_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for answer in (page, client.get("/page/page.css"), client.get("/health"), client.get("/nothing")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
    for outside in ("/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/..%2fapp.py"):
        assert client.get(outside).status_code in (404, 405)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_usual_kinds_of_pictures_are_taken(client: TestClient, documents: list[Document], format: str) -> None:
    image = encoded(open_image(picture_of(documents[0])), format)
    # What the URI calls itself is of no weight: browsers go by the name of the file.
    answer = client.post("/propose", json={"image": uri(image, "image/x-whatever"), "text": documents[0].text})
    assert answer.status_code == 200, answer.text
