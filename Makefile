# Everything runs in .venv, made here; nothing else of ours is needed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
EXTRAS := train,dev

.PHONY: install demo test quick clients lint fix docs quality bench wheel clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

demo: $(STAMP)
	$(BIN)/python benchmarks/demo.py build/demo

test: $(STAMP)
	$(BIN)/pytest

# All but the slow tests.
quick: $(STAMP)
	$(BIN)/pytest -m 'not slow and not clients'

# Other people's programs, installed from the registries into build/clients, run our models.
clients: $(STAMP)
	$(BIN)/pytest -m clients tests/clients

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/site; opens from disk, without internet.
docs: $(STAMP)
	$(BIN)/python -m docs.site

# CATEGORIES: further data sets in MVTec layout, besides the solar cells. GROUPED: the same, with
# their groups, as "--grouped CATEGORY GROUPS.csv". MVTEC: a folder of categories. PARTS: a category
# and the groups of its photos, as "CATEGORY GROUPS.csv".
quality: $(STAMP)
	$(BIN)/python -m benchmarks.quality rows $(CATEGORIES) $(GROUPED)
	$(BIN)/python -m benchmarks.quality labels $(CATEGORIES) $(GROUPED)
	$(BIN)/python -m benchmarks.quality sweeps $(CATEGORIES) $(GROUPED)
	$(BIN)/python -m benchmarks.quality choose $(CATEGORIES) $(GROUPED)
	$(if $(MVTEC),$(BIN)/python -m benchmarks.quality mvtec $(MVTEC))
	$(BIN)/python -m benchmarks.tables

bench: demo quality
	$(BIN)/python benchmarks/limits.py
	$(BIN)/python benchmarks/nodes.py
	$(BIN)/python benchmarks/fitting.py build/demo/data
	$(BIN)/python benchmarks/strategies.py build/demo/data
	$(BIN)/python benchmarks/subspaces.py $(CATEGORIES)
	$(BIN)/python benchmarks/drift.py $(CATEGORIES)
	$(if $(PARTS),$(BIN)/python benchmarks/thresholds.py $(PARTS))
	$(BIN)/python benchmarks/rounding.py build/demo/data
	$(BIN)/python -m benchmarks.scaling --photos build/demo/data
	$(BIN)/python benchmarks/footprint.py build/demo/model
	$(BIN)/python benchmarks/image.py
	$(BIN)/python benchmarks/live.py build/demo/data/test/defective/cell0001.png build/demo/model
	$(BIN)/fre-bench build/demo/model --gate build/demo/data \
		--json benchmarks/results/bench-latency.json
	$(BIN)/fre-bench build/demo/model --gate build/demo/data --scenario throughput \
		--json benchmarks/results/bench-throughput.json
	$(BIN)/python -m benchmarks.tables

wheel: $(STAMP)
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf build dist
