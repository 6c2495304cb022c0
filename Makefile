# What the README, CI and you use. `make` prints this help.
.DEFAULT_GOAL := help
SHELL := /bin/bash
UV_VERSION := 0.13.9
PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.uv/bin:$(PATH)
export PATH

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: ## Install what is missing: uv, the locked environment, Prometheus and Alertmanager
	@UV_VERSION=$(UV_VERSION) ./scripts/install

.PHONY: fmt
fmt: install ## Format the code
	ruff check --fix -q .
	ruff format -q .

.PHONY: lint
lint: install ## Check format, style, types, imports, rules and the lock
	uv lock --check -q
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	promtool check rules monitoring/rules/*.yml
	python -m scripts.rulelint
	python docs/render_alerts.py --check

.PHONY: test
test: install ## Run all tests but those on Kubernetes (about 20 minutes on 2 cores)
	pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: test-fast
test-fast: install ## Run the tests that start no platform
	pytest -n 2 --dist loadfile -m "not loop"

.PHONY: demo
demo: install ## Watch the loop close on real flights; leaves the platform up
	perennial demo

.PHONY: up down status
up: install ## Start the platform on this machine
	perennial up
down: ## End the platform; its state stays in .perennial/
	@if command -v perennial >/dev/null; then perennial down; else echo "nothing is installed: nothing can be running"; fi
status: ## What runs, where, since when
	@if command -v perennial >/dev/null; then perennial status; else echo "nothing is installed yet: make demo, or make up"; fi

.PHONY: bench
bench: install ## Run the benchmarks; results in bench/results.md
	python bench/loop.py
	python -m bench.serving
	python -m bench.monitoring
	python -m bench.rollback
	python -m bench.alerts
	python -m bench.drift
	python -m bench.quality

.PHONY: bench-serving
bench-serving: install ## Measure the model server beside its peers (needs wrk and gcc)
	python -m bench.serving

.PHONY: screenshots
screenshots: install ## Make the README's pictures from a running demo (needs Chromium)
	uv sync -q --locked --all-packages --all-groups
	python docs/screenshots.py

.PHONY: render
render: install ## Write what is made from code: pages, dashboards, and the messages of gRPC
	python docs/render.py
	python docs/render_settings.py
	python docs/render_wire.py
	PYTHONPATH=monitoring/dashboards/src python -m perennial_dashboards.render
	python docs/render_alerts.py

.PHONY: clean
clean: down ## End the platform, and remove the environment and caches; its state stays
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis
