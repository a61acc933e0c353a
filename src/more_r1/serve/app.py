"""The web app: its routes, and what they are wired to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from more_r1.document import Document
from more_r1.extraction.captions import raw_document
from more_r1.extraction.proposers import entity_proposer, object_proposer, propose
from more_r1.formats.fault import FormatError, Place
from more_r1.formats.jsonl import read_jsonl
from more_r1.models.engine import Model
from more_r1.models.predict import Reading
from more_r1.schema import Schema
from more_r1.serve import answers, batch, files, media, requests
from more_r1.serve.desk import Desk, Read
from more_r1.serve.errors import RequestError
from more_r1.serve.guard import Guard
from more_r1.serve.intake import GONE, Intake
from more_r1.serve.openapi import describe, takes

HERE = Path(str(resources.files("more_r1"))) / "serve"
PAGE = HERE / "page"
EXAMPLES = HERE / "examples.jsonl"

PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": answers.Problem, "description": "malformed"},
    413: {"model": answers.Problem, "description": "too large"},
    415: {"model": answers.Problem, "description": "no picture"},
    422: {"model": answers.Problem, "description": "fields wrong, or nothing to ask"},
    429: {"model": answers.Problem, "description": "the queue is full; Retry-After says when to try again"},
    503: {"model": answers.Problem, "description": "the server is stopping"},
}
GRAPHS = {"ttl": "text/turtle", "jsonld": "application/ld+json", "graphml": "application/graphml+xml"}


def create_app(
    engine: Model,
    schema: Schema,
    *,
    model: str = "tiny",
    objects: str = "embedded",
    entities: str = "gazetteer",
    room: int = 64,
    local: bool = True,
) -> FastAPI:
    """The app for a model that is loaded. `objects` and `entities` say who proposes them (extraction/proposers), `room` how
    many documents may wait; with `local` it answers to the names of this machine only. `app.state.stop()` lets it take
    nothing more; what waits is still answered.

    Raises ProposerError, and FormatError where the package is damaged.
    """
    prepare = partial(propose, entities=entity_proposer(entities, engine), objects=object_proposer(objects, engine))
    desk = Desk(engine, schema, prepare, room)
    name = Path(model).name  # a folder's place is nobody's business
    intake, stopping = Intake(), asyncio.Event()
    looking = asyncio.Semaphore(1)  # a picture of 200 megapixels takes 2 GB while it is looked at
    places = asyncio.Semaphore(max(1, room // 2))  # batches leave half of the queue to others

    def stop() -> None:
        desk.close()
        stopping.set()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        stop()
        await run_in_threadpool(desk.join)

    app = FastAPI(title="more-r1", lifespan=lifespan, docs_url=None, redoc_url=None, responses=PROBLEMS, description=__doc__)
    app.state.stop = stop
    app.add_middleware(Guard, local=local)
    _answer_errors(app)

    async def opened(described: requests.Described, image: bytes) -> Document:
        document = await run_in_threadpool(described.document, image)
        async with looking:
            await run_in_threadpool(media.look, image)
        return document

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/health")
    async def health() -> answers.Health:
        """Whether the server is there, and how much it has to do."""
        return answers.Health(status="ok", model=name, waiting=desk.waiting, room=desk.room)

    @app.get("/schema")
    async def relations() -> answers.Relations:
        """The labels that can be answered, what they mean, and who proposes objects and entities."""
        return answers.relations(schema, objects.partition(":")[0], entities.partition(":")[0], name)

    @app.get("/examples")
    async def examples() -> list[answers.Example]:
        """Documents to try, from the embedded world."""
        return await run_in_threadpool(_examples)

    @app.post("/tokens", openapi_extra=takes(requests.Words))
    async def tokens(request: Request) -> answers.Tokens:
        """A text as it is cut into tokens everywhere."""
        async with intake.body(request) as raw:
            text = (await _body(raw, requests.Words)).text
            try:
                return answers.Tokens(tokens=raw_document("", b"", text, Place("")).tokens if text.strip() else ())
            except FormatError as error:
                raise RequestError(422, str(error)) from error

    @app.post("/propose", openapi_extra=takes(requests.Pictured))
    async def proposals(request: Request) -> answers.Record:
        """Objects and entities for a picture and its text; those that are given stay."""
        async with intake.body(request) as raw:
            pictured = await _body(raw, requests.Pictured)
            document = await opened(pictured, media.from_data_uri(pictured.image))
            return answers.record((await _waited(desk.submit(document, None), request)).document)

    @app.post("/extract", openapi_extra=takes(requests.Asked, form=requests.Question))
    async def extract(request: Request) -> answers.Answer:
        """How the objects of a picture relate to the entities of its text, and why.

        As JSON, or as a form with the file `image`, the field `text`, and maybe `document`: JSON with all the rest.
        """
        async with intake.body(request) as raw:
            question, image = await _question(request, raw)
            document = await opened(question, image)
            found = await _waited(desk.submit(document, question.reading), request)
        return answers.answer(found, schema, engine.form)

    async def answered(line: bytes, number: int) -> BaseModel:
        given: dict[str, Any] = {"id": str(number)}
        try:
            given |= await run_in_threadpool(requests.parsed, line)
            asked = await run_in_threadpool(requests.checked, given, requests.Asked)
            document = await opened(asked, media.from_data_uri(asked.image))
            async with places:
                found = await asyncio.wrap_future(await _placed(desk, document, asked.reading))
        except RequestError as error:
            return answers.Unanswered(id=str(given["id"])[: requests.MAX_NAME], error=str(error))
        return answers.answer(found, schema, engine.form)

    @app.post("/batch", openapi_extra=takes(requests.Asked, kind="application/jsonl"), response_class=Response)
    async def many(request: Request) -> Response:
        """JSON lines in, one document a line, and JSON lines out in their order: the answer of /extract, or id and error.

        Answers come while the request is still being sent, and no more of it is read while too many are under way: read while
        you send.
        """
        return batch.Answers(request, intake, answered, stopping)

    @app.post("/graph", openapi_extra=takes(requests.Graphed), response_class=Response)
    async def graph(request: Request, format: Literal["ttl", "jsonld", "graphml"]) -> Response:
        """The graph of answers, `none` left out, as Turtle, JSON-LD or GraphML."""
        async with intake.body(request) as raw:
            given = await _body(raw, requests.Graphed)
            made = await run_in_threadpool(files.graph_file, given.documents, f".{format}")
        return _file(made, GRAPHS[format], f"graph.{format}")

    @app.post("/export", openapi_extra=takes(requests.Exported), response_class=Response)
    async def export(request: Request, format: Literal["jsonl", "more"]) -> Response:
        """Documents with the labels of their pairs as JSON lines, or as a .zip in the MORE layout, split `train`."""
        async with intake.body(request) as raw:
            given = await _body(raw, requests.Exported)
            documents = [await opened(each, media.from_data_uri(each.image)) for each in given.documents]
            if format == "jsonl":
                return _file(await run_in_threadpool(files.jsonl_file, documents), "application/jsonl", "documents.jsonl")
            return _file(await run_in_threadpool(files.more_zip, documents, schema), "application/zip", "more.zip")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    describe(app, requests.MODELS)
    return app


async def _body(raw: bytes, model: type[requests.Given]) -> requests.Given:
    return await run_in_threadpool(lambda: requests.checked(requests.parsed(raw), model))


async def _question(request: Request, raw: bytes) -> tuple[requests.Question, bytes]:
    """What is asked, and the picture: from a form, or from JSON."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        asked = await _body(raw, requests.Asked)
        return asked, media.from_data_uri(asked.image)
    form = await media.read_form(request.headers, raw)
    text = {} if form.text is None else {"text": form.text}

    def question() -> requests.Question:
        return requests.checked({**requests.parsed((form.document or "{}").encode()), **text}, requests.Question)

    return await run_in_threadpool(question), form.image


async def _waited(answer: Future[Read], request: Request) -> Read:
    """The answer. When the client goes before it is there, it is cancelled, and RequestError raised."""
    waiting = asyncio.wrap_future(answer)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise RequestError(GONE, "the client went away")
        return waiting.result()
    finally:
        waiting.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _placed(desk: Desk, document: Document, reading: Reading) -> Future[Read]:
    """As `submit`, waiting for a place: a batch has time."""
    while True:
        try:
            return desk.submit(document, reading)
        except RequestError as error:
            if error.status != 429:
                raise
        await asyncio.sleep(0.05)


def _examples() -> list[answers.Example]:
    documents = read_jsonl(EXAMPLES)
    return [
        answers.Example(**dict(answers.record(document)), image=media.to_data_uri(bytes(document.image)))
        for document in documents
        if isinstance(document.image, bytes)
    ]


def _file(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _answer_errors(app: FastAPI) -> None:
    """All that goes wrong is one line of JSON."""

    def problem(status: int, message: str, retry_after: int | None = None) -> JSONResponse:
        return JSONResponse({"error": message}, status, None if retry_after is None else {"Retry-After": str(retry_after)})

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return problem(error.status, str(error), error.retry_after)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return problem(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}; see /openapi.json")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        # The server that runs the app logs it.
        return problem(500, "the request could not be answered; the server's log says why")
