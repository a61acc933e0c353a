"""A graph in files: Turtle, JSON-LD, GraphML, CSV for Neo4j, Parquet.

The suffix says which; a name without one is a folder for Neo4j.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from more_r1.extraction.graph import IDENTITY, Edge, Graph, GraphError, Node
from more_r1.formats.paths import replacing

# Our vocabulary, our relations and what is in a graph. Stable: queries that people write rest on them.
VOCABULARY = "urn:more-r1:vocabulary:"
RELATION = "urn:more-r1:relation:"
THING = "urn:more-r1:"


def write_turtle(graph: Graph, path: Path) -> None:
    """RDF as Turtle, see `_rdf`."""
    _serialise(graph, path, "turtle")


def write_jsonld(graph: Graph, path: Path) -> None:
    """RDF as JSON-LD, see `_rdf`."""
    _serialise(graph, path, "json-ld")


def write_graphml(graph: Graph, path: Path) -> None:
    """A directed graph with parallel edges, as networkx, Gephi, yEd and igraph read it; an unknown value is left out."""
    networkx = _needed("networkx")
    made = networkx.MultiDiGraph()
    for node in graph.nodes:
        made.add_node(node.id, **_known(_node_columns(node)))
    for number, edge in enumerate(graph.edges):
        made.add_edge(edge.source, edge.target, key=number, **_known(_edge_columns(edge)))
    with replacing(path) as fresh:
        networkx.write_graphml(made, fresh, encoding="utf-8", infer_numeric_types=False)


def write_neo4j(graph: Graph, path: Path) -> None:
    """A folder with nodes.csv and relations.csv, their headers as `neo4j-admin database import` reads them.

    A text that a spreadsheet would run as a formula (it begins with = + - or @) gets an apostrophe before it; so does one that
    begins with an apostrophe, so that the first one can be taken off again.
    """
    nodes = ({":ID": node.id, ":LABEL": node.kind.capitalize(), **_node_columns(node)} for node in graph.nodes)
    ends = ((edge, {":START_ID": edge.source, ":END_ID": edge.target, ":TYPE": edge.relation}) for edge in graph.edges)
    relations = ({**columns, **_edge_columns(edge)} for edge, columns in ends)
    _write_csv(path / "nodes.csv", [":ID", ":LABEL", *_NODE], nodes)
    _write_csv(path / "relations.csv", [":START_ID", ":END_ID", ":TYPE", *_EDGE], relations)


def write_triples(graph: Graph, path: Path) -> None:
    """Parquet, a row a relation: subject, predicate and object by id and by name, and the evidence."""
    names = {node.id: node for node in graph.nodes}
    rows = [
        {
            "subject": edge.source,
            "subject_type": names[edge.source].type,
            "image": names[edge.source].image,
            "predicate": edge.relation,
            "object": edge.target,
            "object_name": names[edge.target].name,
            "object_type": names[edge.target].type,
            **_edge_columns(edge),
            "box": list(edge.box),
        }
        for edge in graph.edges
    ]
    with replacing(path) as fresh:
        pq.write_table(pa.Table.from_pylist(rows, _TRIPLES), fresh)


Writer = Callable[[Graph, Path], None]
WRITERS: Mapping[str, Writer] = {
    ".ttl": write_turtle,
    ".jsonld": write_jsonld,
    ".graphml": write_graphml,
    ".triples.parquet": write_triples,
    "": write_neo4j,
}
_NEEDS = {".ttl": "rdflib", ".jsonld": "rdflib", ".graphml": "networkx"}


def writer_for(path: Path) -> Writer | None:
    """Who writes a graph to a file of that name; None if its name is no graph's. Raises GraphError for want of a library."""
    if path.name.endswith(".triples.parquet"):
        return write_triples
    if path.suffix in _NEEDS:
        _needed(_NEEDS[path.suffix])
    return WRITERS.get(path.suffix)


def _rdf(graph: Graph) -> Any:
    """Each relation is a triple `object rel:NAME entity` and an rdf:Statement that carries its evidence; an object that is the
    named one is also `more:identifiedAs` the entity. Nodes and documents have types and labels."""
    rdflib = _needed("rdflib")
    rdf, rdfs = rdflib.RDF, rdflib.RDFS
    more, relation = rdflib.Namespace(VOCABULARY), rdflib.Namespace(RELATION)
    made = rdflib.Graph(bind_namespaces="none")
    made.bind("more", more)
    made.bind("rel", relation)
    made.bind("rdf", rdf)
    made.bind("rdfs", rdfs)
    made.bind("xsd", rdflib.XSD)

    def say(subject: Any, predicate: Any, value: str | float | None) -> None:
        if value is not None:
            made.add((subject, predicate, rdflib.Literal(value)))

    for node in graph.nodes:
        iri = rdflib.URIRef(THING + node.id)
        made.add((iri, rdf.type, more.Object if node.kind == "object" else more.Entity))
        say(iri, rdfs.label, node.name)
        say(iri, more.type, node.type)
        say(iri, more.document, node.document)
        say(iri, more.image, node.image)
        say(iri, more.box, _numbers(node.box))
    for edge in graph.edges:
        subject, target = rdflib.URIRef(THING + edge.source), rdflib.URIRef(THING + edge.target)
        predicate = relation[edge.relation]
        made.add((subject, predicate, target))
        if edge.relation == IDENTITY:
            made.add((subject, more.identifiedAs, target))
        evidence = rdflib.URIRef(f"{THING}statement:{edge.source}:{edge.span[0]}-{edge.span[1]}")
        made.add((evidence, rdf.type, rdf.Statement))
        made.add((evidence, rdf.subject, subject))
        made.add((evidence, rdf.predicate, predicate))
        made.add((evidence, rdf.object, target))
        for name, value in _edge_columns(edge).items():
            say(evidence, more[name], value)
    return made


def _serialise(graph: Graph, path: Path, format: str) -> None:
    made = _rdf(graph)
    with replacing(path) as fresh:
        # `auto_compact` is JSON-LD's: names of ours stay short there, too.
        made.serialize(fresh, format=format, encoding="utf-8", auto_compact=True)


def _node_columns(node: Node) -> dict[str, str | float | None]:
    return {
        "kind": node.kind,
        "name": node.name,
        "type": node.type,
        "document": node.document,
        "image": node.image,
        "box": _numbers(node.box),
    }


def _edge_columns(edge: Edge) -> dict[str, str | float | None]:
    return {
        "label": edge.label,
        "document": edge.document,
        "text": edge.text,
        "span": "{}-{}".format(*edge.span),
        "box": _numbers(edge.box),
        "confidence": edge.confidence,
        "agreement": edge.agreement,
        "trace": edge.trace,
    }


_NODE = ("kind", "name", "type", "document", "image", "box")
_EDGE = ("label", "document", "text", "span", "box", "confidence:double", "agreement:double", "trace")
_TEXTS = ("subject", "subject_type", "image", "predicate", "object", "object_name", "object_type", "label", "document", "text")
_TRIPLES = pa.schema(
    [
        *((name, pa.string()) for name in (*_TEXTS, "span", "trace")),
        ("box", pa.list_(pa.float64())),
        ("confidence", pa.float64()),
        ("agreement", pa.float64()),
    ]
)


def _write_csv(path: Path, header: list[str], rows: Iterable[Mapping[str, str | float | None]]) -> None:
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_cell(row[name.removesuffix(":double")]) for name in header])


def _cell(value: str | float | None) -> str | float | None:
    if isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@", "'")):
        return f"'{value}"
    return value


def _numbers(box: tuple[float, ...] | None) -> str | None:
    return None if box is None else ",".join(f"{value:.6g}" for value in box)


def _known(columns: dict[str, str | float | None]) -> dict[str, str | float]:
    return {name: value for name, value in columns.items() if value is not None}


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise GraphError(f"this graph format needs {module}; pip install 'more-r1[graph]'") from error
