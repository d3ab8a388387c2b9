# Two commands: `make demo` and `make test`. Both set themselves up in .venv (Python >= 3.11).
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
# Threads that wait sleep instead of spinning, so that another busy process costs the training less.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-all lint bench clean

# Installed again only when pyproject.toml changes; the package itself is linked, not copied.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	@echo "installing tokenreel and what it needs (some gigabytes, a few minutes) ..."
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

demo: .venv/installed
	$(BIN)/python tools/train_tokenizer.py --run $(DEMO)/tokenizer --wandb disabled --resume $(TOKENIZER_OPTIONS)
	$(BIN)/python tools/tokenize_dataset.py --tokenizer $(DEMO)/tokenizer --out $(DEMO)/tokens
	$(BIN)/python tools/train_gpt.py --shards $(DEMO)/tokens --run $(DEMO)/gpt --wandb disabled --resume $(GPT_OPTIONS)
	$(BIN)/python tools/evaluate.py --model $(DEMO)/gpt --out $(DEMO)/evaluation $(EVALUATE_OPTIONS)
	$(BIN)/python tools/sample.py --prompt-frames 4 --model $(DEMO)/gpt --out $(DEMO)/samples --num-samples 6 --format gif
	@echo "look at $(DEMO)/samples/grid.gif: prompt frames are bordered green, the model's orange"

test: .venv/installed
	$(BIN)/pytest -m "not slow"

test-all: .venv/installed
	$(BIN)/pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p tokenreel

bench: .venv/installed
	$(BIN)/python benchmarks/sampling.py --out runs/benchmarks/sampling.json
	$(BIN)/python benchmarks/tokenizer_speed.py --out runs/benchmarks/tokenizer_speed.json

clean:
	rm -rf .venv build dist *.egg-info
