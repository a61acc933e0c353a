"""What strangers send: each costs them one line, and the server nothing."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from served import body_of, encoded, picture_of, uri

from more_r1.document import Document
from more_r1.serve import batch as batch_module
from more_r1.serve import intake as intake_module
from more_r1.serve.requests import MAX_THINGS

WHITE = encoded(Image.new("RGB", (64, 64), "white"))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(/etc/passwd) run\n%%EOF\n"
BOX = {"cx": 0.5, "cy": 0.5, "w": 0.4, "h": 0.4}
OBJECT = {"id": "o", "box": BOX}
ENTITY = {"id": "e", "span": {"start": 0, "end": 1}}


def claims(width: int, height: int) -> bytes:
    """A PNG of 70 bytes that says it is that large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def refused(client: TestClient, path: str, status: int, **sent: Any) -> str:
    answer = client.post(path, **sent)
    assert answer.status_code == status, answer.text[:300]
    assert set(answer.json()) == {"error"}
    error = str(answer.json()["error"])
    assert "\n" not in error
    assert len(error) <= 300
    assert all(word not in error for word in ("Traceback", "site-packages", "more_r1", "/work", "0x"))
    return error


@pytest.mark.parametrize(
    ("image", "status", "said"),
    [
        (uri(SVG, "image/svg+xml"), 415, "give PNG"),
        (uri(SVG), 415, "no picture that is read here"),
        (uri(EPS), 415, "no picture that is read here"),
        (uri(EPS, "application/postscript"), 415, "no picture"),
        (uri(b""), 415, "give PNG"),
        (uri(encoded(Image.effect_noise((64, 64), 90))[:-900]), 415, "save it anew"),
        (uri(encoded(Image.effect_noise((64, 64), 90), "JPEG")[:700]), 415, "save it anew"),
        (uri(claims(30_000, 30_000)), 413, "pixels"),
        (uri(claims(15_000, 14_000)), 413, "pixels"),
        (uri(claims(0, 5)), 415, ""),
        (uri(claims(500, 500)), 415, "save it anew"),
        ("data:text/html;base64,PGI+", 415, "no picture"),
        ("data:,hello", 415, "no picture"),
        ("data:image/png,%89PNG", 422, "base64"),
        ("data:image/png;base64,????", 422, "base64"),
        ("data:image/png;base64,ü", 422, "base64"),
        ("/etc/passwd", 422, "data URI"),
        ("file:///etc/passwd", 422, "data URI"),
        ("http://169.254.169.254/latest", 422, "data URI"),
        ("data:" + "image/" * 10_000, 422, "data URI"),
    ],
)
def test_what_is_no_picture(client: TestClient, image: str, status: int, said: str) -> None:
    assert said in refused(client, "/extract", status, json={"image": image, "text": "Ada wins"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "text or tokens"),
        ({"text": "Ada wins", "tokens": ["Ada"]}, "text or tokens"),
        ({"text": " \t "}, "no text"),
        ({"text": "x" * 10_001}, "text"),
        ({"tokens": ["x" * 5_001] * 2}, "10000"),
        ({"tokens": []}, "no text"),
        ({"text": "Ada", "objects": [{"id": "o", "box": {**BOX, "w": 0}}]}, "empty box"),
        ({"text": "Ada", "objects": [{"id": "o", "box": {**BOX, "cx": 1.5}}]}, "outside"),
        ({"text": "Ada", "objects": [{"id": "o", "box": {**BOX, "cx": 10**400}}]}, "objects.0.box"),
        ({"text": "Ada", "objects": [OBJECT, OBJECT]}, "same"),
        ({"text": "Ada", "objects": [{**OBJECT, "id": f"o{n}"} for n in range(65)]}, "64"),
        ({"text": "Ada", "entities": [{**ENTITY, "id": f"e{n}"} for n in range(65)]}, "64"),
        ({"text": "Ada", "objects": [{**OBJECT, "id": "o" * 201}]}, "200 characters"),
        ({"text": "Ada", "objects": [{**OBJECT, "type": "t" * 201}]}, "200 characters"),
        ({"text": "Ada", "entities": [{"id": "e", "span": {"start": 0, "end": 2}}]}, "spans tokens"),
        ({"text": "Ada", "entities": [{"id": "e", "span": {"start": -1, "end": 1}}]}, "spans tokens"),
        ({"text": "Ada", "entities": [{"id": "e", "span": {"start": 0, "end": 10**400}}]}, "spans tokens"),
        ({"text": "Ada", "pairs": [{"object": "o", "entity": "e"}]}, "not there"),
        ({"text": "Ada", "objects": [OBJECT], "entities": [ENTITY], "samples": 17}, "samples"),
        ({"text": "Ada", "objects": [OBJECT], "entities": [ENTITY], "min_confidence": 1.1}, "min_confidence"),
        ({"text": "Ada", "threads": 64}, "threads"),
        ({"text": ["Ada"]}, "text"),
        ({"text": "nobody is named here", "objects": [OBJECT]}, "no entity"),
        ({"text": "Ada", "entities": [ENTITY]}, "no object"),
    ],
)
def test_fields_that_are_wrong(client: TestClient, fields: dict[str, Any], said: str) -> None:
    assert said in refused(client, "/extract", 422, json={"image": uri(WHITE), **fields})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'{"text": NaN}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b'{"text": "a"',
        b'{"objects": ' + b"[" * 100_000,
        b'{"objects": ' + b'{"a":' * 100_000,
        b'{"text": ' + b"9" * 5_000 + b"}",
    ],
    ids=["nothing", "null", "list", "nan", "half", "latin", "broken", "deep", "deeper", "long"],
)
def test_what_is_no_json_object(client: TestClient, raw: bytes) -> None:
    for path in ("/tokens", "/propose", "/extract", "/graph?format=ttl", "/export?format=more"):
        assert "send one JSON object" in refused(client, path, 400, content=raw)


def test_a_million_objects_cost_a_moment(client: TestClient) -> None:
    one = json.dumps(OBJECT).encode()
    raw = b'{"text": "Ada", "image": "", "objects": [' + b",".join([one] * 400_000) + b"]}"
    assert len(raw) < intake_module.MAX_BODY
    assert "64" in refused(client, "/extract", 422, content=raw)


@pytest.mark.parametrize(
    ("status", "said", "form"),
    [
        (400, "Too many files", {"files": {"image": WHITE, "text": b"a file"}}),
        (400, "Too many files", {"files": [("image", WHITE), ("image", WHITE)]}),
        (422, "the file `image`", {"files": {"text": b"a file"}}),
        (422, "unknown field 'joint'", {"data": {"text": "Ada", "joint": "true"}, "files": {"image": WHITE}}),
        (422, "image: Extra", {"data": {"text": "Ada", "document": '{"image": "data:,"}'}, "files": {"image": WHITE}}),
        (400, "not JSON", {"data": {"text": "Ada", "document": "{"}, "files": {"image": WHITE}}),
        (415, "no picture", {"data": {"text": "Ada"}, "files": {"image": ("a.png", SVG, "image/png")}}),
        (400, "Missing boundary", {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}}),
        (
            422,
            "the file `image`",
            {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        ),
    ],
)
def test_forms_that_are_wrong(client: TestClient, status: int, said: str, form: dict[str, Any]) -> None:
    assert said in refused(client, "/extract", status, **form)


def test_what_is_too_large(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "MAX_BODY", 1000)
    assert "MiB" in refused(client, "/tokens", 413, content=b" " * 1001)
    monkeypatch.setattr(intake_module, "MAX_HELD", 500)
    answer = client.post("/tokens", content=b" " * 501)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    # What was held is given back each time, whatever became of it.
    for _ in range(3):
        for raw in (b"{" + b" " * 300, b" " * 501, b" " * 1001):
            assert client.post("/tokens", content=raw).status_code in (400, 413, 429)
        monkeypatch.setattr(batch_module, "MAX_LINE", 150)
        lines = client.post("/batch", content=b"\n".join([b"x" * 140, b"y" * 160, b" " * 140, b"z" * 140])).text.splitlines()
        assert ["MiB" in line for line in lines] == [False, True, False]
        assert ["not JSON" in line for line in lines] == [True, False, True]
    assert client.post("/tokens", json={"text": "Ada " * 100}).json() == {"tokens": ["Ada"] * 100}


def test_proposals_have_a_bound(client: TestClient) -> None:
    proposed = client.post("/propose", json={"image": uri(WHITE), "text": "Kastan " * 1400}).json()
    assert [entity["id"] for entity in proposed["entities"]] == [f"{n}-{n + 1}" for n in range(MAX_THINGS)]


def test_graphs_of_what_does_not_fit(client: TestClient) -> None:
    document = {"text": "Ada wins", "objects": [OBJECT], "entities": [ENTITY]}

    def sent(**prediction: Any) -> dict[str, Any]:
        return {"documents": [{"document": document, "predictions": [{"object": "o", "entity": "e", **prediction}]}]}

    assert client.post("/graph?format=ttl", json=sent(label="/per/per/partner")).status_code == 200
    for wrong in ({"label": "<b>"}, {"label": "none", "object": "x"}, {"label": "none", "entity": "x"}, {"label": 1}):
        refused(client, "/graph?format=ttl", 422, json=sent(**wrong))
    refused(client, "/graph?format=csv", 422, json=sent(label="none"))
    refused(client, "/graph", 422, json=sent(label="none"))
    refused(client, "/graph?format=ttl", 422, json={"documents": []})


def test_hostile_names_stay_text(client: TestClient) -> None:
    """Markup, control codes and marks that turn the text round come back as they were, and break no file."""
    tokens = ["</script>\x00\x1b[2J", "\u202eadA", "<|image_pad|>", "Step 1:", "=1+1"]
    document = {
        "id": "../<b>\u202e",
        "tokens": tokens,
        "objects": [{"id": "<o>\x07", "box": BOX}],
        "entities": [{"id": str(n), "span": {"start": n, "end": n + 1}} for n in range(len(tokens))],
    }
    answer = client.post("/extract", json={"image": uri(WHITE), **document})
    assert answer.status_code == 200
    assert answer.json()["document"]["tokens"] == tokens
    assert [one["name"] for one in answer.json()["predictions"]] == tokens
    for format in ("ttl", "jsonld", "graphml"):
        assert client.post(f"/graph?format={format}", json={"documents": [answer.json()]}).status_code == 200


def test_other_sites_get_nothing(client: TestClient) -> None:
    def status(**headers: str) -> int:
        return client.post(
            "/tokens", json={"text": "a"}, headers={k.replace("_", "-"): v for k, v in headers.items()}
        ).status_code

    same = "http://127.0.0.1:8000"
    assert status(origin=same, sec_fetch_site="same-origin") == 200
    assert status(sec_fetch_site="none") == 200
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:8001",
        "http://localhost:8000",
        f"{same}.evil.example",
        "http://[",
    ):
        assert status(origin=origin) == 403
    for site in ("cross-site", "same-site", "?"):
        assert status(sec_fetch_site=site) == 403
    for host in ("localhost", "localhost:1", "127.0.0.2", "[::1]:8000", "LOCALHOST"):
        assert client.get("/health", headers={"host": host}).status_code == 200
    for host in (
        "evil.example",
        "localhost.evil.example",
        "192.168.0.7",
        "0.0.0.0",
        "",
        "127.0.0.1.nip.io",
        "[",
        "127.0.0.1:x",
    ):
        assert client.get("/health", headers={"host": host}).status_code == 403
    assert client.options("/extract", headers={"origin": "http://evil.example"}).status_code == 403


def test_other_ways_are_errors_of_one_line(client: TestClient) -> None:
    for method, path, status in (
        ("GET", "/extract", 405),
        ("PUT", "/tokens", 405),
        ("POST", "/nothing", 404),
        ("GET", "/docs", 404),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, set(answer.json())) == (status, {"error"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["id", "text", "tokens", "objects", "entities", "pairs", "joint", "types", "samples", "min_confidence", "image"]
)


@settings(max_examples=60)
@given(FIELDS, JSON)
def test_any_value_in_any_field_is_answered_in_words(client: TestClient, field: str, value: Any) -> None:
    # Without an object nothing is asked, which keeps it quick.
    body = {"image": uri(WHITE), "text": "Ada wins", "entities": [ENTITY], field: value}
    answer = client.post("/extract", content=json.dumps(body))
    assert answer.status_code in (400, 415, 422), answer.text
    assert set(answer.json()) == {"error"}


@settings(max_examples=60)
@given(st.binary(max_size=60))
def test_any_bytes_are_answered_in_words(client: TestClient, raw: bytes) -> None:
    for path in ("/tokens", "/extract", "/graph?format=ttl", "/export?format=jsonl"):
        assert client.post(path, content=raw).status_code in (400, 422)
    answered = client.post("/batch", content=raw).text.splitlines()
    assert len(answered) == sum(bool(line.strip()) for line in raw.split(b"\n"))
    assert all(set(json.loads(line)) == {"id", "error"} for line in answered)


def test_the_server_is_as_before(client: TestClient, documents: list[Document]) -> None:
    document = documents[0].model_copy(update={"pairs": documents[0].pairs[:1]})
    assert client.get("/health").json()["waiting"] == 0
    assert client.post("/extract", json=body_of(document)).status_code == 200
    assert picture_of(document)
