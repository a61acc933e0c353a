"""The benchmark's `ent_SPLIT_dict.pth`: {img_id: {object name: (cx, cy, w, h)}}, saved by torch. A pickle from strangers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from more_r1.document import Box
from more_r1.formats.fault import Place
from more_r1.formats.paths import replacing

# MORE's files are of a few megabytes. Unpacked size, so that a zip bomb is refused as well.
MAX_BYTES = 256 * 2**20


def read_boxes(path: Path) -> dict[str, dict[Any, Any]]:
    """The dictionary as it stands: what an image's entry holds is checked where it is used.

    Raises FormatError if the file is missing, too large, or anything but a plain dictionary of dictionaries. No code in
    the pickle is run (`weights_only=True`, sound since torch 2.6, which is therefore demanded).
    """
    import torch

    place = Place(str(path))
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        place.refuse(f"torch {torch.__version__} cannot open it safely", "install torch 2.6 or later")
    if not path.is_file():
        place.refuse("no such file; boxes are taken from the lines", "unpack the benchmark with its .pth files")
    size = path.stat().st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(member.file_size for member in archive.infolist()))
        data = torch.load(path, map_location="cpu", weights_only=True) if size <= MAX_BYTES else None
    except Exception as error:  # torch, zipfile and pickle raise many kinds; a stranger's file must cost one clear line
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        place.refuse(f"not plain data, nothing of it was run ({reason})", _MEND)
    if size > MAX_BYTES:
        place.refuse(f"{size} bytes are too many for a dictionary of boxes", _MEND)
    if not isinstance(data, dict) or not all(type(k) is str and isinstance(v, dict) for k, v in data.items()):
        place.refuse("not a dictionary of images to dictionaries of objects", _MEND)
    return data


def write_boxes(boxes: Mapping[str, Mapping[str, Box]], path: Path) -> None:
    """Write the dictionary; equal boxes give equal bytes. `torch.load` reads it with its default `weights_only=True`."""
    import torch

    plain = {image: {name: (b.cx, b.cy, b.w, b.h) for name, b in objects.items()} for image, objects in boxes.items()}
    # Through memory: torch puts the name of the file that it writes into the archive, and ours is a random one.
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    with replacing(path) as fresh:
        fresh.write_bytes(buffer.getvalue())


_MEND = "save {img_id: {object name: (cx, cy, w, h)}} of str and float by torch.save"
