# Everything starts here; each target is a script in tools/. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo demo-clean test soak lint bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## the main job on a sample school, in two acts, on a throw-away server
	@tools/demo.sh

demo-clean: ## remove what the demo left
	@tools/demo.sh clean

test: ## every proof; the last line is "N passed, N failed"
	@tools/test.sh

soak: ## what is proven by chance, many times over (MEDIA_ASSETS_SOAK=200 rounds, MAJOR=15)
	@tools/soak.sh

lint: ## formatting and clippy
	@tools/test.sh lint

bench: ## the ratios of bench/README.md (LESSONS=300000 for the large run)
	@tools/bench.sh
	@tools/bench_jobs.sh
	@tools/bench_ingest.sh
	@tools/bench_triggers.sh

clean: ## remove servers, copies of PostgreSQL, and build results
	@tools/server.sh clean
	@cargo clean --quiet
