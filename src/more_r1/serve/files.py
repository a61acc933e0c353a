"""Answers and corrected documents as files to take away: graphs, JSON lines, the MORE layout."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from more_r1.document import Document
from more_r1.extraction.graph import GraphError, build_graph
from more_r1.extraction.graph_files import writer_for
from more_r1.formats.fault import FormatError
from more_r1.formats.jsonl import write_jsonl
from more_r1.formats.more import write_more
from more_r1.formats.paths import path_fault
from more_r1.reasoning.prediction import Prediction
from more_r1.schema import Schema
from more_r1.serve.errors import RequestError
from more_r1.serve.media import format_of
from more_r1.serve.requests import Answered

SPLIT = "train"
# Zip files know no time before; equal documents give equal bytes.
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def graph_file(answers: Sequence[Answered], suffix: str) -> bytes:
    """The graph of all answers, as .ttl, .jsonld or .graphml. Raises RequestError for what makes none."""
    try:
        graph = build_graph(_predictions(answers))
        with tempfile.TemporaryDirectory(prefix="more-r1-") as folder:
            path = Path(folder, f"graph{suffix}")
            writer = writer_for(path)
            if writer is None:
                raise RequestError(422, f"no graph is written as {suffix}")
            writer(graph, path)
            return path.read_bytes()
    except GraphError as error:
        raise RequestError(501 if "pip install" in str(error) else 422, str(error)) from error


def jsonl_file(documents: Iterable[Document]) -> bytes:
    """One document a line, pictures inside."""
    with tempfile.TemporaryDirectory(prefix="more-r1-") as folder:
        path = Path(folder, "documents.jsonl")
        write_jsonl(documents, path)
        return path.read_bytes()


def more_zip(documents: Sequence[Document], schema: Schema) -> bytes:
    """The MORE layout as a .zip, all in the split `train`. Raises RequestError for what the layout cannot hold.

    The layout names pictures by the ids of documents: an id that is no name of a file, or taken, becomes another.
    """
    with tempfile.TemporaryDirectory(prefix="more-r1-") as name:
        folder = Path(name)
        try:
            write_more({SPLIT: _named(documents)}, folder, schema)
        except FormatError as error:
            raise RequestError(422, str(error)) from error
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _LONG_AGO)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                archive.writestr(info, path.read_bytes())
        return packed.getvalue()


def _named(documents: Sequence[Document]) -> list[Document]:
    """The same, each under a name that can be a file's, and that no other has in any case."""
    taken = Counter(document.id.casefold() for document in documents)
    named = []
    for number, document in enumerate(documents, 1):
        if "/" in document.id or "#" in document.id or path_fault(document.id) or taken[document.id.casefold()] > 1:
            suffix = format_of(bytes(document.image)).lower() if isinstance(document.image, bytes) else "png"
            fresh = f"{number:04}.{suffix}"
            while taken[fresh]:
                fresh = f"_{fresh}"
            taken[fresh] += 1
            document = document.model_copy(update={"id": fresh})
        named.append(document)
    return named


def _predictions(answers: Sequence[Answered]) -> Iterable[Prediction]:
    taken: set[str] = set()
    for answer in answers:
        document = answer.document.document(b"")
        # Two documents of one id are two, not one.
        own = next(id for n in count(1) if (id := document.id if n == 1 else f"{document.id}#{n}") not in taken)
        taken.add(own)
        for each in answer.predictions:
            try:
                box, entity = document.object(each.object).box, document.entity(each.entity)
            except KeyError as error:
                raise RequestError(422, f"a prediction names {error}, which its document does not have") from error
            yield Prediction(
                document=own,
                image=None,
                tokens=document.tokens,
                object=each.object,
                box=(box.cx, box.cy, box.w, box.h),
                entity=each.entity,
                span=(entity.span.start, entity.span.end),
                gold=None,
                predicted=each.label,
                hops=None,
                objects=len(document.objects),
                entities=len(document.entities),
                completion=each.completion,
                confidence=each.confidence,
                agreement=each.agreement,
                abstained=each.abstained,
            )
