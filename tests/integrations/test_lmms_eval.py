"""lmms-eval itself, with its own client of `transformers serve`, comes to the figures of `more-r1 evaluate`.

`make test-lmms-eval` installs them in a venv of their own and runs this.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers_serve import SERVE, model_folder, served

from more_r1.evaluation.evaluate import evaluate
from more_r1.formats import load_documents
from more_r1.formats.parquet import write_parquet
from more_r1.models.load import load_backbone
from more_r1.schema import Schema
from more_r1.synthetic.benchmark import write_benchmark

pytestmark = pytest.mark.skipif(not SERVE or find_spec("lmms_eval") is None, reason="make test-lmms-eval")
TASKS = Path(__file__).parents[2] / "integrations" / "lmms_eval"
FIGURES = ("f1", "accuracy", "precision", "recall", "broken")


def test_lmms_eval_prints_what_evaluate_measures(tmp_path: Path) -> None:
    for _ in write_benchmark(tmp_path / "benchmark", 120, 5):
        pass
    documents = load_documents(tmp_path / "benchmark", "valid")
    write_parquet(documents, tmp_path / "data" / "more" / "valid.parquet")
    schema = Schema.more()
    expected = evaluate(load_backbone("tiny"), documents, schema, tmp_path / "ours", max_new_tokens=512)
    completions = [
        json.loads(line)["completion"] for line in (tmp_path / "ours" / "predictions.jsonl").read_text().splitlines()
    ]

    folder = model_folder(tmp_path / "model")
    leave_reasoning_in(folder)
    with served(folder, tmp_path) as url:
        printed = run_lmms_eval(folder, url, tmp_path)

    (results,) = (tmp_path / "out").rglob("*_results.json")
    found = json.loads(results.read_text())["results"]["more_valid"]
    (samples,) = (tmp_path / "out").rglob("*_samples_more_valid.jsonl")
    answered = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
    print(printed[-2000:], expected.model_dump(include={*FIGURES, "pairs"}))
    same = sum(theirs == ours.strip() for theirs, ours in zip(answered, completions, strict=True))
    print(f"{same} of {len(completions)} completions are the same")
    assert 60 <= len(answered) == expected.pairs
    for figure in FIGURES:
        assert found[f"{figure},none"] == pytest.approx(getattr(expected, figure), abs=1e-12)
        assert float(re.search(rf"\|{figure}\s*\|[^|]*\|\s*([\d.]+)\|", printed)[1]) == pytest.approx(
            getattr(expected, figure), abs=5e-4
        )
    assert expected.f1 > 0.5 and same == len(completions)


def leave_reasoning_in(folder: Path) -> None:
    """Else this server sets what is between <think> and </think> apart, and lmms-eval does not see it; docs/lmms-eval.md."""
    file = folder / "tokenizer_config.json"
    content = {"content": {"close": "<|im_end|>", "content": "text"}}
    template = {"start_anchor": "<|im_start|>assistant\n", "defaults": {"role": "assistant"}, "fields": content}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"response_template": template}))


def run_lmms_eval(folder: Path, url: str, scratch: Path) -> str:
    """What it prints; its files are in `scratch`/out."""
    environment = os.environ | {
        "MORE_R1_FORM": str(folder),
        "OPENAI_API_KEY": "none",
        "HF_HOME": str(scratch / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    arguments = ["--model", "openai", "--model_args", f"model={folder},base_url={url},num_concurrent=1,timeout=300"]
    arguments += ["--include_path", str(TASKS), "--tasks", "more_valid", "--batch_size", "1"]
    arguments += ["--output_path", str(scratch / "out"), "--log_samples"]
    command = [sys.executable, "-m", "lmms_eval", *arguments]
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0 and "Error during evaluation" not in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
