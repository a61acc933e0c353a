"""Graphs of predictions: what merges, and that every format gives back what was put in, whatever strangers are called."""

from __future__ import annotations

import csv
from pathlib import Path

import networkx
import pyarrow.parquet as pq
import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st
from rdflib.namespace import RDF, RDFS

from more_r1.extraction.graph import Graph, GraphError, build_graph, clean
from more_r1.extraction.graph_files import RELATION, THING, VOCABULARY, WRITERS, writer_for
from more_r1.extraction.outputs import check_outputs, write_outputs
from more_r1.extraction.predictions import read_predictions, write_predictions
from more_r1.formats import FormatError
from more_r1.reasoning.prediction import Prediction

MEMBER, OTHER, BORN = "/per/org/member_of", "/per/per/partner", "/per/loc/place_of_birth"
SAME, SAME_ORG = "/per/per/alternate_names", "/org/org/alternate_names"


def prediction(
    document: str, object: str, entity: str, label: str | None, at: int = 0, confidence: float | None = None, trace: str = "why"
) -> Prediction:
    """A prediction on a text that consists of the entity's words and others before them."""
    words = tuple(entity.split()) or ("x",)
    tokens = (*("so",) * at, *words)
    return Prediction(
        **{
            "document": document,
            "image": f"{document}.png",
            "tokens": tokens,
            "object": object,
            "box": (0.5, 0.5, 0.25, 0.125),
        },
        **{"entity": f"{at}-{at + len(words)}", "span": (at, at + len(words)), "gold": None, "predicted": label, "hops": None},
        **{"objects": 1, "entities": 1, "completion": trace, "confidence": confidence},
    )


def names(graph: Graph) -> list[tuple[str, str | None]]:
    return [(node.name, node.type) for node in graph.nodes if node.kind == "entity"]


def test_mentions_of_the_same_words_and_type_are_one_entity() -> None:
    asked = [
        prediction("a", "o1", "Wolves", MEMBER),
        prediction("b", "o1", "wolves", MEMBER),
        prediction("c", "o1", "WOLVES", OTHER),  # a person of that name
        prediction("d", "o1", "Maya Lind", SAME),
        prediction("e", "o1", "maya lind", "none"),  # no type said: there is only one of that name
        prediction("f", "o1", "wolves", "none"),  # two of that name: who is it?
        prediction("g", "o1", "Lume", None),
    ]
    graph = build_graph(asked)
    assert names(graph) == [("Wolves", "org"), ("WOLVES", "per"), ("Maya Lind", "per"), ("wolves", None), ("Lume", None)]
    assert len([node for node in graph.nodes if node.kind == "object"]) == 7
    assert [(edge.label, edge.document) for edge in graph.edges] == [(MEMBER, "a"), (MEMBER, "b"), (OTHER, "c"), (SAME, "d")]
    assert len({edge.target for edge in graph.edges[:2]}) == 1
    apart = build_graph(asked, "none")
    assert len(names(apart)) == 7 and len(apart.edges) == 4
    assert len({edge.target for edge in apart.edges}) == 4


def test_a_mention_has_the_type_that_most_of_its_relations_say() -> None:
    asked = [prediction("a", f"o{n}", "Lume", label) for n, label in enumerate([MEMBER, BORN, BORN, "none"])]
    graph = build_graph(asked)
    assert names(graph) == [("Lume", "loc")]
    assert len(graph.edges) == 3
    # Asked twice about one pair, the later answer counts.
    again = build_graph([*asked, prediction("a", "o0", "Lume", "none")])
    assert len(again.edges) == 2


def test_long_names_that_begin_alike_are_not_the_same() -> None:
    graph = build_graph([prediction("a", "o1", "x" * 5000 + end, MEMBER) for end in ("", "y", "é")])
    assert len(names(graph)) == 1  # one pair of one document: the last answer counts
    graph = build_graph([prediction(f"{'é' * 500}{n}", "o1", "x" * 5000 + end, MEMBER) for n, end in enumerate(("", "y", "é"))])
    assert len(names(graph)) == 3 and len({node.id for node in graph.nodes}) == 6
    assert max(len(node.id) for node in graph.nodes) < 400


def test_a_label_that_is_none_is_named() -> None:
    with pytest.raises(GraphError, match="'member_of' is no label"):
        build_graph([prediction("a", "o1", "Lume", "member_of")])


def write(graph: Graph, folder: Path) -> dict[str, Path]:
    paths = {suffix: folder / f"graph{suffix}" for suffix in WRITERS}
    for path in paths.values():
        writer = writer_for(path)
        assert writer is not None
        writer(graph, path)
    return paths


def as_rdf(path: Path) -> list[tuple[object, ...]]:
    read = rdflib.Graph().parse(path)
    more, found = rdflib.Namespace(VOCABULARY), []
    for evidence in read.subjects(RDF.type, RDF.Statement):
        ends = [read.value(evidence, part) for part in (RDF.subject, RDF.predicate, RDF.object)]
        assert tuple(ends) in read  # the triple itself is there, too
        source, _, target = (str(end).removeprefix(THING) for end in ends)
        columns = [
            read.value(evidence, more[name]) for name in ("label", "document", "text", "span", "box", "confidence", "trace")
        ]
        values = [None if value is None else value.toPython() for value in columns]
        found.append((source, target, str(ends[1]).removeprefix(RELATION), *values))
    nodes = [(str(iri).removeprefix(THING), "entity") for iri in read.subjects(RDF.type, more.Entity)]
    nodes += [(str(iri).removeprefix(THING), "object") for iri in read.subjects(RDF.type, more.Object)]
    labelled = {id: str(read.value(rdflib.URIRef(THING + id), RDFS.label)) for id, _ in nodes}
    return [*sorted((id, kind, labelled[id]) for id, kind in nodes), *sorted(found, key=repr)]


def as_graphml(path: Path) -> list[tuple[object, ...]]:
    read = networkx.read_graphml(path, force_multigraph=True)
    edges = [
        (
            *(source, target, columns["label"].rpartition("/")[2]),
            *(columns.get(name) for name in ("label", "document", "text", "span", "box", "confidence", "trace")),
        )
        for source, target, columns in read.edges(data=True)
    ]
    nodes = sorted((id, columns["kind"], columns["name"]) for id, columns in read.nodes(data=True))
    return [*nodes, *sorted(edges, key=repr)]


def as_neo4j(path: Path) -> list[tuple[object, ...]]:
    def rows(name: str) -> list[dict[str, str]]:
        with (path / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, strict=True))

    def texts(row: dict[str, str], *names: str) -> list[str]:
        return [cell[1:] if (cell := row[name]).lstrip().startswith("'") else cell for name in names]

    nodes, relations = rows("nodes.csv"), rows("relations.csv")
    for row in [*nodes, *relations]:
        assert not any(cell.lstrip()[:1] in ("=", "+", "-", "@") and cell.strip() for cell in row.values() if cell), row
    edges = [
        (
            *(row[":START_ID"], row[":END_ID"], row[":TYPE"], *texts(row, "label", "document", "text", "span", "box")),
            float(row["confidence:double"]) if row["confidence:double"] else None,
            *texts(row, "trace"),
        )
        for row in relations
    ]
    return [*sorted((row[":ID"], row[":LABEL"].lower(), *texts(row, "name")) for row in nodes), *sorted(edges, key=repr)]


def expected(graph: Graph) -> list[tuple[object, ...]]:
    edges = [
        (
            *(edge.source, edge.target, edge.relation, edge.label, edge.document, edge.text, "{}-{}".format(*edge.span)),
            *("0.5,0.5,0.25,0.125", edge.confidence, edge.trace),
        )
        for edge in graph.edges
    ]
    return [*sorted((node.id, node.kind, node.name) for node in graph.nodes), *sorted(edges, key=repr)]


PRINTED = st.text(st.characters(codec="utf-8"), max_size=12)
HOSTILE = st.sampled_from(
    ['"', "'", "<script>", "&amp;", "]]>", "=1+1", "@SUM(A1)", "-1", "a\nb", "a\r\nb", "\x00\x1b", "\ud800", "\ufffe", "%41",
     "A", "\u202e", "\\", "{}", "x" * 5000, "é", "e\u0301", "İ", "ß", ",", ";", "urn:x", "a b"]
)  # fmt: skip
NAME = PRINTED | HOSTILE


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(NAME, NAME, NAME, st.sampled_from([MEMBER, SAME, SAME_ORG, BORN, "none"]), st.integers(0, 2), NAME),
        max_size=4,
    ),
    st.sampled_from(["name", "none"]),
)
def test_all_formats_give_back_what_was_put_in(
    tmp_path_factory: pytest.TempPathFactory, given: list[tuple[str, str, str, str, int, str]], merge: str
) -> None:
    asked = [
        prediction(document, object, entity, label, at, None if at else 0.75, trace)
        for document, object, entity, label, at, trace in given
    ]
    graph = build_graph(asked, merge)
    assert len({node.id for node in graph.nodes}) == len(graph.nodes)
    assert {edge.source for edge in graph.edges} | {edge.target for edge in graph.edges} <= {node.id for node in graph.nodes}
    paths = write(graph, tmp_path_factory.mktemp("graph"))
    wanted = expected(graph)
    assert as_rdf(paths[".ttl"]) == wanted
    assert as_rdf(paths[".jsonld"]) == wanted
    assert as_graphml(paths[".graphml"]) == wanted
    assert as_neo4j(paths[""]) == wanted
    rows = pq.read_table(paths[".triples.parquet"]).to_pylist()
    assert [(row["subject"], row["predicate"], row["object"], row["confidence"], row["trace"]) for row in rows] == [
        (edge.source, edge.relation, edge.target, edge.confidence, edge.trace) for edge in graph.edges
    ]


def test_the_seen_is_identified_with_the_named(tmp_path: Path) -> None:
    asked = [prediction("a", "o1", "Maya", SAME), prediction("a", "o1", "Wolves", MEMBER, at=1)]
    write_outputs(lambda: asked, [tmp_path / "it.ttl"], "name")
    read = rdflib.Graph().parse(tmp_path / "it.ttl")
    query = (
        f"PREFIX more: <{VOCABULARY}> PREFIX rel: <{RELATION}> PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#>"
        "SELECT ?who ?club {?seen more:identifiedAs/rdfs:label ?who ; rel:member_of/rdfs:label ?club}"
    )
    assert [tuple(map(str, row)) for row in read.query(query)] == [("Maya", "Wolves")]


@given(st.text(st.characters(), max_size=30))
def test_clean_text_is_xml_utf8_and_one_line(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    assert len(cleaned.splitlines()) <= 1 + cleaned.count("\u2028") + cleaned.count("\u2029")
    cleaned.encode()
    assert clean(cleaned) == cleaned


def test_predictions_come_back_from_both_kinds_of_file(tmp_path: Path) -> None:
    asked = [prediction("a", "o1", "Maya", SAME, confidence=0.5), prediction("b", "o2", "Lume", None, at=2)]
    for name in ("it.jsonl", "it.parquet"):
        write_predictions(iter(asked), tmp_path / name)
        assert list(read_predictions(tmp_path / name)) == asked
    (tmp_path / "bad.jsonl").write_text(asked[0].model_dump_json() + '\n{"document": 1}\n')
    with pytest.raises(FormatError, match=r"bad.jsonl:2.*document"):
        list(read_predictions(tmp_path / "bad.jsonl"))


@pytest.mark.parametrize(
    ("name", "words"),
    [("it.xlsx", "unknown kind of output"), ("read.jsonl", "is what is read"), ("folder.ttl", "already"), ("file", "already")],
)
def test_an_output_that_cannot_be_is_named_before_anything_is_asked(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.ttl").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphError, match=words):
        check_outputs([tmp_path / "good.ttl", tmp_path / name], tmp_path / "read.jsonl")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rdflib", None)
    with pytest.raises(GraphError, match="more-r1\\[graph\\]"):
        check_outputs([Path("it.ttl")], Path("read.jsonl"))
