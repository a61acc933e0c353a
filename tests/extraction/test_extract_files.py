"""`more-r1 extract` from raw pictures with captions to files: the embedded world's, and photographs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import networkx
import pytest
import rdflib
from command import run
from PIL import Image
from rdflib.namespace import RDF

from more_r1.extraction.graph_files import VOCABULARY
from more_r1.extraction.predictions import read_predictions
from more_r1.formats import load_documents

HEADLINE = "Eileen Collins, first woman to command a Space Shuttle, poses at NASA's Johnson Space Center in Houston"
OTHER = "Grace Hopper of the United States Navy, who wrote the first compiler, at the Pentagon in 1984"


def test_from_a_raw_folder_to_graphs_in_one_command(
    monkeypatch: pytest.MonkeyPatch, benchmark_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    documents = [document for document in load_documents(benchmark_dir, "train") if len(document.objects) <= 4][:8]
    for document in documents:
        assert isinstance(document.image, Path)
        shutil.copy(document.image, raw / document.image.name)
        (raw / document.image.name).with_suffix(".txt").write_text(document.text)
    (raw / "broken.png").write_text("no picture")
    (raw / "broken.txt").write_text("Maya wins")
    outs = [tmp_path / name for name in ("it.ttl", "it.graphml", "it.parquet", "neo4j")]
    given = [word for out in outs for word in ("--out", out)]
    assert run(monkeypatch, "extract", raw, *given) == 0
    shown = capsys.readouterr()
    assert "1 records left out" in shown.err
    asked = list(read_predictions(outs[2]))
    assert f"{len(asked)} pairs asked" in shown.out
    assert {each.document for each in asked} == {document.id for document in documents}
    for document in documents:  # all that is named and drawn is asked about
        found = [each for each in asked if each.document == document.id]
        assert {each.span for each in found} >= {(e.span.start, e.span.end) for e in document.entities}
        assert len({each.object for each in found}) == len(document.objects)
    related = [each for each in asked if each.predicted not in (None, "none")]
    assert related
    rdf, graphml = rdflib.Graph().parse(outs[0]), networkx.read_graphml(outs[1], force_multigraph=True)
    more = rdflib.Namespace(VOCABULARY)
    assert len(list(rdf.subjects(RDF.type, RDF.Statement))) == graphml.number_of_edges() == len(related)
    nodes = [*rdf.subjects(RDF.type, more.Object), *rdf.subjects(RDF.type, more.Entity)]
    assert len(nodes) == graphml.number_of_nodes()
    assert len((outs[3] / "relations.csv").read_text().splitlines()) == 1 + len(related)
    (side,) = [json.loads(line) for line in (tmp_path / "it.ttl.left-out.jsonl").read_text().splitlines()]
    assert side["file"] == "broken.png"
    # The same graph again, later, from the predictions.
    assert run(monkeypatch, "graph", outs[2], "--out", tmp_path / "again.ttl", "--merge", "none") == 0
    again = rdflib.Graph().parse(tmp_path / "again.ttl")
    assert len(list(again.subjects(RDF.type, RDF.Statement))) == len(related)


def test_photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import matplotlib
    from skimage import data

    for name, picture in (("astronaut", data.astronaut()), ("coffee", data.coffee())):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    with Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")) as picture:  # public domain, too
        picture.save(tmp_path / "hopper.png")
    captions = ["image,text", f'astronaut.png,"{HEADLINE}"', "coffee.png,A cup of coffee in Paris", f'hopper.png,"{OTHER}"']
    (tmp_path / "captions.csv").write_text("\n".join(captions) + "\n")
    found = ("--find-objects", "faces", "--find-entities", "spacy")
    assert run(monkeypatch, "extract", tmp_path, *found, "--json") == 0
    shown = capsys.readouterr()
    asked = [json.loads(line) for line in shown.out.splitlines()]
    named = {" ".join(each["tokens"][slice(*each["span"])]) for each in asked}
    assert {each["document"] for each in asked} == {"astronaut.png", "hopper.png"}
    assert {"Eileen Collins", "NASA", "Houston", "Grace Hopper", "Pentagon"} <= named
    assert "coffee.png" in shown.err and "no object" in shown.err
    assert run(monkeypatch, "extract", tmp_path / "astronaut.png", "--text", HEADLINE, "--entity", "NASA", *found[:2]) == 0
    assert "[ NASA ] 's" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{}/no",), "no such file or folder"),
        (("{}", "--out", "{}/it.docx"), "unknown kind of output"),
        (("{}", "--find-objects", "face"), "did you mean faces?"),
        (("{}", "--find-objects", "face", "--out", "{}/it.ttl"), "did you mean faces?"),
        (("{}", "--ray", "local", "--out", "{}/it.ttl"), "more-r1[scale]"),
    ],
)
def test_a_mistake_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("Maya wins")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert run(monkeypatch, "extract", *(argument.format(tmp_path) for argument in arguments)) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
