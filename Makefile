# The few commands a person types. `make` alone lists them.
MAKEFLAGS += --no-print-directory
CARGO ?= cargo
BIN := $(or $(CARGO_TARGET_DIR),target)/release
# The audit needs to see the whole kernel. cargo never runs as root.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: help
help: ## List these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-8s %s\n' "$$name" "$$what"; done

.PHONY: audit
audit: ## Look for leaked throttles on this host
	@scripts/setup build
	@$(CARGO) build --release --locked -p chadthrottle-audit
	@$(AS_ROOT) $(BIN)/chadthrottle-audit scan; status=$$?; case $$status in \
		0) exit 0 ;; \
		1) echo "make audit: leaks were found (exit status 1 of the audit). To remove just those:" ;; \
		2) echo "make audit: not everything could be seen (exit status 2 of the audit), so the host may be clean or not" ;; \
		*) echo "make audit: the audit itself failed (exit status $$status of the audit), which says nothing about the host" ;; \
		esac >&2; \
		[ $$status != 1 ] || echo "  $(AS_ROOT) $(BIN)/chadthrottle-audit clean" >&2; exit $$status

.PHONY: demo
demo: ## Plant a leak in a scratch cgroup, find it, remove it
	@scripts/setup build
	@$(CARGO) build --release --locked --workspace
	@scripts/demo

.PHONY: check
check: ## Format, lint the Rust, run what needs no root: in two minutes, while you work
	@scripts/setup check
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@scripts/test check

.PHONY: test
test: ## Run every test, also those that need root
	@scripts/setup test
	@scripts/test

.PHONY: gate
gate: ## Prove on the model, this kernel and others that throttles leave nothing behind
	@scripts/setup test
	@scripts/test gate

.PHONY: fuzz
fuzz: ## Give the parsers whatever a fuzzer makes up, a minute each
	@scripts/fuzz

.PHONY: build
build: ## Build everything, optimised
	@scripts/setup build
	$(CARGO) build --release --locked --workspace

.PHONY: man
man: ## Write man pages and completions below target
	@scripts/setup build
	@$(CARGO) build --release --locked -p chadthrottle-audit -p chadthrottle
	@for program in chadthrottle-audit chadthrottle; do \
		$(BIN)/$$program generate man target/man || exit 1; \
		for shell in bash elvish fish powershell zsh; do \
			mkdir -p target/completions/$$shell && \
			$(BIN)/$$program generate completions $$shell >target/completions/$$shell/$$program || exit 1; \
		done; \
	done

.PHONY: lint
lint: ## Check formatting, clippy, documentation, shell scripts, workflows
	@scripts/setup lint
	@scripts/lint

.PHONY: bench
bench: ## Run the benches, beside the peers, and compare with the baseline
	@scripts/setup test
	@scripts/bench

.PHONY: clean
clean: ## Remove what was built, but not target/tools
	@find target -mindepth 1 -maxdepth 1 ! -name tools -exec rm -rf {} + 2>/dev/null || true
