"""Pictures as they come in: data URIs and uploads, looked at before anything else is done with them."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import python_multipart  # noqa: F401  the forms' reader imports it late
from PIL import Image
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from more_r1.document import MAX_PIXELS, DocumentError, open_image
from more_r1.serve.errors import RequestError

# Pillow reads many more, some by programs of their own (EPS by Ghostscript): not for strangers' files.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MEND = "give PNG, JPEG, WebP, GIF, BMP or TIFF"
_HEAD = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[\w.+-]*)*(;base64)?,", re.IGNORECASE)
_PIECE = 2**16


@dataclass(frozen=True)
class Form:
    """What a multipart form holds."""

    image: bytes
    text: str | None
    document: str | None


def from_data_uri(uri: str) -> bytes:
    """The bytes of a picture's base64 data URI. Raises RequestError: 422 for what is no such URI, 415 for another kind."""
    head = _HEAD.match(uri, 0, 300)
    if head is None:
        raise RequestError(422, "image: no data URI; write data:image/png;base64,... (paths and addresses are not followed)")
    if not (head[1] or "").lower().startswith("image/"):
        raise RequestError(415, f"image: a data URI of {head[1] or 'text'}, no picture; {_MEND}")
    if head[2] is None:
        raise RequestError(422, "image: the data URI is not base64; write data:image/png;base64,...")
    try:
        return base64.b64decode(uri[head.end() :].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise RequestError(422, "image: the data URI is not sound base64; encode the picture's file anew") from error


def to_data_uri(picture: bytes) -> str:
    """The other way round; the kind of the picture is read from its bytes. Raises RequestError."""
    return f"data:image/{format_of(picture).lower()};base64,{base64.b64encode(picture).decode('ascii')}"


def format_of(picture: bytes) -> str:
    """One of FORMATS, by the picture's own head. Raises RequestError: 415 for none of them, 413 for too many pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return str(image.format)
    except Image.DecompressionBombError as error:  # Pillow has a bound of its own, and looks no further
        raise RequestError(413, "image: too many pixels; scale it down") from error
    except Exception as error:  # Pillow's readers raise many kinds
        raise RequestError(415, f"image: no picture that is read here; {_MEND}") from error


def look(picture: bytes) -> None:
    """See that the whole picture can be read. Takes up to some 100 MB for each 10 megapixels. Raises RequestError."""
    format_of(picture)
    try:
        open_image(picture)
    except DocumentError as error:
        raise RequestError(415, f"{error}; save it anew, or {_MEND}") from error


async def read_form(headers: Headers, raw: bytes) -> Form:
    """The fields of a multipart body: the file `image`, `text`, `document`. Raises RequestError, with 400."""
    try:
        fields = await MultiPartParser(headers, _pieces(raw), max_files=1, max_fields=2, max_part_size=len(raw)).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        what = error.message if isinstance(error, MultiPartException) else "broken off or malformed"
        raise RequestError(400, f"no form that can be read ({what}); send multipart/form-data") from error
    try:
        image, text, document = (fields.get(name) for name in ("image", "text", "document"))
        if unknown := set(fields) - {"image", "text", "document"}:
            raise RequestError(422, f"unknown field {min(unknown)[:60]!r}; a form has image, text and document")
        if not isinstance(image, UploadFile) or isinstance(text, UploadFile) or isinstance(document, UploadFile):
            raise RequestError(422, "send the picture as the file `image`, text and document as plain fields")
        return Form(await image.read(), text, document)
    finally:
        await fields.close()


async def _pieces(raw: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(raw), _PIECE):
        yield raw[start : start + _PIECE]
