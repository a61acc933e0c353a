"""A run of `more-r1 annotate` -> a folder that another trainer reads: its accepted traces for SFT, and for RL the labelled
training pairs that stage 1 left, with their gold labels for the reward.

    trl           sft.parquet, rl.parquet, README.md (so that load_dataset(FOLDER, "sft") finds them)
    llamafactory  sft.jsonl, rl.jsonl, images/, dataset_info.json
    ms-swift      sft.jsonl, rl.jsonl, images/
    verl          sft.parquet, rl.parquet

Each has more_r1.json, too, the form of the prompts, and, where the relations are not MORE's, more_r1_schema.yaml: beside the
weights of the trained model, they have `more-r1 evaluate` ask as it was trained. A file without any row is left out.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, Field, ValidationError

from more_r1.export.files import Lines, Rows, write_parquet
from more_r1.export.forms import COLUMNS, Item, Trainer, row
from more_r1.formats.fault import quoted
from more_r1.formats.traces import Key, read_traces
from more_r1.models.manner import FORM_FILE, write_schema
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import Schema
from more_r1.training.examples import draw
from more_r1.training.recipe import GivenSchema, RecipeError, read_yaml
from more_r1.training.samples import Sample, read_samples


@dataclass(frozen=True)
class Exported:
    """How many rows there are for each of the two."""

    sft: int
    rl: int


class _Drawn(BaseModel):
    """What the recipe of a run says of its pairs; the rest of it is the expert's."""

    data: Path
    relations: GivenSchema = Field(default_factory=Schema.more, alias="schema")
    share: float = Field(gt=0, le=1)
    draw_seed: int


def export_run(
    run: Path,
    trainer: Trainer,
    out: Path,
    form: PromptForm | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write the folder `out`, complete or not at all. A trace of a run that is still going on is exported if it is accepted.

    `form` is how the trained model is to be asked, PromptForm() by default. Pictures are read one after another, never held.
    `progress` is told (rows done, rows in all). Raises RecipeError where the run has no accepted trace, where its traces are
    not of its data and where `out` is there already; FormatError and DocumentError for files that cannot be read.
    """
    form = form or PromptForm()
    if form.reasoning == "none":
        raise RecipeError("the model answers without reasoning, and traces are reasoning; give another --model")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(f"{out}: is there already; give another folder")
    drawn = _drawn(run / "recipe.yaml")
    schema = drawn.relations
    traces, rest = _pairs(run, drawn)
    parts: dict[str, list[tuple[Sample, str | None]]]
    parts = {"sft": [(sample, text) for sample, text in traces], "rl": [(sample, None) for sample in rest]}
    total, done = sum(map(len, parts.values())), 0

    def rows(pairs: Sequence[tuple[Sample, str | None]]) -> Rows:
        nonlocal done
        for index, (sample, completion) in enumerate(pairs):
            item = Item(index, sample, sample.prompt(schema, form), completion)
            yield row(trainer, item), item.prompt.pictures
            done += 1
            if progress is not None:
                progress(done, total)

    with _folder(out) as folder:
        lines = Lines(folder)
        for name, pairs in parts.items():
            if not pairs:
                continue
            if (columns := COLUMNS.get((trainer, name == "sft"))) is not None:
                write_parquet(folder / f"{name}.parquet", columns, rows(pairs))
            else:
                lines.write(name, rows(pairs))
        (folder / FORM_FILE).write_text(form.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_schema(schema, folder)
        _describe(folder, trainer, [name for name, pairs in parts.items() if pairs])
    return Exported(len(traces), len(rest))


def _pairs(run: Path, drawn: _Drawn) -> tuple[list[tuple[Sample, str]], list[Sample]]:
    """The pairs with accepted traces, and those that stage 1 left, both in the order of the data."""
    file = run / "traces.jsonl"
    try:
        accepted = {record.key: record for record in read_traces(file) if record.accepted}
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read ({error.strerror}); give a folder of `more-r1 annotate`") from error
    if not accepted:
        raise RecipeError(f"{file}: no accepted trace; let `more-r1 annotate` go on, or read `more-r1 report {run}`")
    samples = read_samples(drawn.data, "train", drawn.relations)
    gold: dict[Key, str] = {sample.key: sample.label for sample in samples}
    for key, record in accepted.items():
        if gold.get(key) != record.label:
            what = f"the pair {quoted(key)} with the label {quoted(record.label)} is not in {drawn.data}"
            raise RecipeError(f"{file}: {what}; mend `data` in {run / 'recipe.yaml'}")
    taken = set(draw([sample.label for sample in samples], drawn.share, drawn.draw_seed))
    rest = [one for index, one in enumerate(samples) if index not in taken and one.key not in accepted]
    return [(one, accepted[one.key].completion) for one in samples if one.key in accepted], rest


def _drawn(file: Path) -> _Drawn:
    try:
        return _Drawn.model_validate(read_yaml(file.read_text(encoding="utf-8"), str(file)))
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read ({error.strerror}); give a folder of `more-r1 annotate`") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "recipe"
        raise RecipeError(f"{file}: {key}: {first['msg'].lower()}; give a folder of `more-r1 annotate`") from error


def _describe(folder: Path, trainer: Trainer, names: Sequence[str]) -> None:
    """The file by which the trainer finds the others."""
    if trainer == "trl":
        configs = {"configs": [{"config_name": name, "data_files": f"{name}.parquet"} for name in names]}
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(configs, sort_keys=False)}---\n", encoding="utf-8")
    elif trainer == "llamafactory":
        # The roles' names of `messages` are not the default ones.
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
        columns = {"messages": "messages", "images": "images"}
        info = {
            f"more_r1_{name}": {"file_name": f"{name}.jsonl", "formatting": "sharegpt", "columns": columns, "tags": tags}
            for name in names
        }
        (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A fresh folder beside `out`, moved onto it at the end, removed if the writing fails; a kill leaves a hidden one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}-", dir=out.parent))
    try:
        yield fresh
        fresh.chmod(0o755)  # mkdtemp makes private what others may read
        fresh.replace(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
