# The README's commands. Everything is installed into .venv, pinned by constraints.txt.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-slow check format clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0 --editable '.[dev]'
	touch $@

demo: $(VENV)/installed  ## segment a real histology image, and make images of six prompts, with the models that ship
	$(BIN)/python -m medtextdiff segment $$($(BIN)/python -c 'import skimage, pathlib; print(pathlib.Path(skimage.__file__).parent / "data" / "ihc.png")') \
	  --note "The nuclei density in the upper left is high." --model nuclei-small --overlay --probabilities --page --overwrite -o demo
	$(BIN)/python -m medtextdiff generate "Generate an image with 1 polyp." "Generate an image with no polyps." \
	  "Generate an image from a gastroscopy procedure." "Generate an image containing ulcerative colitis." \
	  "Generate an image containing a green/black box artefact." "Generate an image with 1 instrument." \
	  --model msdm-gi-small -n 4 --overwrite -o demo/endoscopy

test: check  ## format, lint, types, import contract, tests
	$(BIN)/python -m pytest -n 2

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(VENV)/installed  ## what `make test` leaves out
	$(BIN)/python -m pytest -m slow

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo
