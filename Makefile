# make serve   install, start the server on 127.0.0.1 with sample studies, print a first answer
#              STUDIES=dir serves another folder, PORT=n another port, PYTHON=python3.12 another Python;
#              MODEL=folder or MODEL=openai:http://HOST:PORT/v1#NAME answers with another model (docs/models.md);
#              CONF="--conf NAME VALUE" sets what monailabel_app/lib/lifecycle/settings.py names
# make test    the tests; `make test-slow` runs the few long ones
# make test-pacs     the tests with a real archive (Orthanc); `make test-pacs-slow` runs its few long ones
# make check   format, lint, docstrings, types, fast tests
# make acceptance    prove what users have: a fresh clone, an empty home, make serve, both clients, README and docs
# make test-extras   pip install . and each of its extras into clean environments, then what the docs promise
# make test-engines  the backend's tests on vLLM (CPU) and `transformers serve`, in an environment of 3.5 GB
# make bench   speeds and memory beside what others take, as a table
# make bench-model   RadVLBench: what the model sees beside controls; DATA=dir is the data kit
# make bench-minutes the time of a training on ten corrections; BESIDE=checkout compares another version in the same run
# make bench-load    50 clients for 5 minutes at a real server: percentiles, failures, lost corrections
# make bench-kill    SIGKILL at 50 random moments: lost writes, broken adapters, strays
# make bench-disk    a disk that is full at 20 random moments: lost writes, starts (Linux)
# make fuzz          thousands of broken files, then schemathesis at a real server, with counts
# make screenshots   draw the pictures of docs/slicer.md, docs/reader-study.md and docs/pacs.md anew

PYTHON ?= python3
STUDIES ?=
PORT ?= 8000
CONF ?=
MODEL ?= radfound-mini
DATA ?= $(or $(RADFOUND_DATA),../shared/data)
BENCH_OUT ?= runs/bench
BESIDE ?=
# what users have, and what tests and their tools have
RUN := .venv/bin/python
DEV := .venv-dev/bin/python
# radfound sets this too, but MONAI Label loads torch before it loads the app
export GOMP_SPINCOUNT ?= 1000

.PHONY: serve can-serve test test-slow test-pacs test-pacs-slow test-engines check lint acceptance test-extras bench bench-model
.PHONY: screenshots bench-minutes bench-load bench-kill bench-disk fuzz
.NOTPARALLEL:

.venv/.ready: requirements.txt setup.py scripts/make_venv.py
	@$(PYTHON) scripts/make_venv.py

.venv-dev/.ready: requirements.txt requirements-dev.txt setup.py scripts/make_venv.py
	@$(PYTHON) scripts/make_venv.py --dev

SERVE := scripts/serve.py --port "$(PORT)" --studies "$(STUDIES)" --model "$(MODEL)" $(CONF)

serve: can-serve .venv/.ready
	@exec $(RUN) $(SERVE)

can-serve:  # what is mistyped is said before anything is installed
	@$(PYTHON) $(SERVE) --check

test: .venv-dev/.ready
	$(DEV) -m pytest -m "not slow and not pacs"

test-slow: .venv-dev/.ready
	$(DEV) -m pytest -m "slow and not pacs"

test-pacs: .venv-dev/.ready
	@$(PYTHON) scripts/pacs_packages.py
	$(DEV) -m pytest -m "pacs and not slow" tests/monailabel_app/pacs

test-pacs-slow: .venv-dev/.ready
	@$(PYTHON) scripts/pacs_packages.py
	$(DEV) -m pytest -s -m "pacs and slow" tests/monailabel_app/pacs

lint: .venv-dev/.ready
	$(DEV) -m ruff format --check .
	$(DEV) -m ruff check .
	$(DEV) -m mypy

check: lint
	$(DEV) -m pytest -m "not slow and not pacs"

acceptance:
	@$(PYTHON) scripts/acceptance.py

test-extras: .venv/.ready
	@$(RUN) scripts/extras.py

.venv-engines/.ready: requirements-engines.txt
	@$(PYTHON) -m venv .venv-engines
	@.venv-engines/bin/python -m pip install -q -r requirements-engines.txt
	@.venv-engines/bin/python -m pip uninstall -q -y torchaudio torchcodec  # built for another torch
	@touch $@

test-engines: .venv-dev/.ready .venv-engines/.ready
	RADFOUND_ENGINES_PYTHON=.venv-engines/bin/python $(DEV) -m pytest tests/radfound/engine/contract \
	  tests/radfound/engine/openai/test_vllm.py tests/monailabel_app/trainers/test_any_model.py \
	  -k "vllm or transformers-serve"

bench: .venv-dev/.ready
	@$(DEV) -W ignore scripts/bench.py

bench-model: .venv-dev/.ready
	@$(DEV) -m radfound.cli bench --model "$(MODEL)" --data "$(DATA)" --out "$(BENCH_OUT)" --train-questions 150

bench-minutes: .venv-dev/.ready
	@$(DEV) -W ignore -m training.experiments.minutes --data "$(DATA)" $(if $(BESIDE),--beside "$(BESIDE)")

bench-load: .venv/.ready
	@$(RUN) scripts/load.py

bench-kill: .venv/.ready
	@$(RUN) -W ignore scripts/kill.py

bench-disk: .venv/.ready
	@$(RUN) -W ignore scripts/disk.py

.venv-fuzz/.ready: requirements-fuzz.txt
	@$(PYTHON) -m venv .venv-fuzz
	@.venv-fuzz/bin/python -m pip install -q --no-deps -r requirements-fuzz.txt
	@touch $@

fuzz: .venv-dev/.ready .venv-fuzz/.ready
	@$(DEV) -W ignore -m tests.hostile.files
	@$(DEV) scripts/fuzz_server.py --schemathesis .venv-fuzz/bin/schemathesis

screenshots: .venv-dev/.ready
	@$(DEV) scripts/screenshots.py
	@$(DEV) scripts/screenshots_reader_study.py
	@$(DEV) scripts/screenshots_browser.py
