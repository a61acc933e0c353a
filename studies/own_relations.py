"""Relations of one's own: what the embedded model learns of labels that its tokenizer does not have, as in docs/relations.md.

    more-r1 data synth data/embedded
    python studies/own_relations.py

Four of MORE's labels get other names, in the data, in the traces and in a schema. Stage 1 is trained on them by
`schema: OUT/schema.yaml` with the settings of recipes/tiny-sft.yaml, and its model is asked about the test split without being
told of any schema. The embedded tokenizer has MORE's labels as one token each; the other names it spells in bytes. Runs are
resumed, and finished ones are left alone. About half an hour of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import held_out

OWN = {
    "/per/per/opponent": "/per/per/rival_of",
    "/per/org/member_of": "/per/org/plays_for",
    "/per/loc/place_of_residence": "/per/loc/lives_in",
    "/per/misc/awarded": "/per/misc/winner_of",
}
MOST = "400"  # tokens of a completion: a label is some fifteen of them, and step 5 lists several


def main() -> None:
    """Make the data, train, evaluate and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--out", type=Path, default=Path("runs/own-relations"))
    parser.add_argument("--limit", type=int, help="only so many documents of test")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="recipe fields")
    options = parser.parse_args()
    data, schema, run = options.out / "data", options.out / "schema.yaml", options.out / "sft"
    rename(options.data, data, schema)
    train = ["sft", held_out.RECIPE, f"data={data}", f"schema={schema}", f"out={run}", f"max_new_tokens={MOST}", *options.set]
    limit = [] if options.limit is None else ["--limit", str(options.limit)]
    where = ["--data", str(data), "--split", "test", "--out", str(run / "test"), "--max-new-tokens", MOST, "--threads", "1"]
    subprocess.run([sys.executable, "-m", "more_r1", *train, "threads=1"], check=True)
    if not (run / "test" / "metrics.json").is_file():
        subprocess.run([sys.executable, "-m", "more_r1", "evaluate", "--model", str(run / "best"), *where, *limit], check=True)
    metrics = json.loads((run / "test" / "metrics.json").read_text(encoding="utf-8"))
    text = held_out.table({"own names": metrics["labels"]}, list(OWN.values()))
    text += f"\n\nAll: accuracy {100 * metrics['accuracy']:.1f}, F1 {100 * metrics['f1']:.1f}\n"
    (options.out / "results.md").write_text(text, encoding="utf-8")
    print(text)


def rename(data: Path, folder: Path, schema: Path) -> None:
    """The same benchmark and its schema with the labels of OWN under their own names; pictures and boxes are linked."""
    for name in ("txt", "oracle"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in [data / "img_org", *data.glob("ent_*_dict.pth")]:
        link = folder / path.name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(path, folder))
    for file in ["rel2id.json", *(f"{kind}/{file.name}" for kind in ("txt", "oracle") for file in (data / kind).iterdir())]:
        held_out.keep(folder / file, renamed((data / file).read_text(encoding="utf-8")).splitlines())
    labels = resources.files("more_r1") / "assets" / "more.yaml"
    held_out.keep(schema, renamed(labels.read_text(encoding="utf-8")).splitlines())


def renamed(text: str) -> str:
    """A text with the labels' own names; no label of MORE's begins with one of OWN."""
    for label, own in OWN.items():
        text = text.replace(label, own)
    return text


if __name__ == "__main__":
    main()
