# `make help` lists what there is.

CARGO ?= cargo
PLUGINS := sqlite redis memory
DIST := dist
SUFFIX := $(if $(filter Darwin,$(shell uname -s)),dylib,so)
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help

## run: build the host and its plugins, and serve on http://127.0.0.1:8080 without any server
.PHONY: run
run: dist
	$(DIST)/codeq serve --config quickstart.yml

## dist: build the host and its plugins into dist/
.PHONY: dist
dist: plugins
	$(CARGO) build --release --locked -p codeq-host
	@install -m 755 $(TARGET_DIR)/release/codeq $(DIST)/codeq

## plugins: build every plugin into dist/plugins
.PHONY: plugins
plugins:
	$(CARGO) build --release --locked $(PLUGINS:%=-p codeq-%)
	@install -d -m 755 $(DIST)/plugins
	@for plugin in $(PLUGINS); do \
		install -m 755 $(TARGET_DIR)/release/libcodeq_$$plugin.$(SUFFIX) $(DIST)/plugins/; \
	done

## test: run all tests; installs the programs that they need where it may (root, Debian)
.PHONY: test
test: test-servers
	$(CARGO) test --workspace --locked

.PHONY: test-servers
test-servers:
	@scripts/install-test-servers

# The black-box suite has an environment of its own, installed anew when its requirements change.
API_TESTS := $(TARGET_DIR)/test-api

## test-api: call the HTTP API of real hosts from outside, and fuzz it; wants python3-venv and redis-server
.PHONY: test-api
test-api: $(API_TESTS)/installed
	@command -v redis-server >/dev/null || \
		{ echo "the tests need redis-server; install it: apt-get install redis-server (or: brew install redis)" >&2; exit 1; }
	@# As the other tests build it, so that whoever runs both builds it once.
	$(CARGO) build --workspace --lib --bins --tests --locked
	CODEQ_BUILD_DIR=$(TARGET_DIR)/debug PYTHONDONTWRITEBYTECODE=1 $(API_TESTS)/bin/pytest tests/api

$(API_TESTS)/installed: tests/api/requirements.txt
	@python3 -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "the tests need Python 3.11 or newer with venv; install it: apt-get install python3-venv (or: brew install python)" >&2; exit 1; }
	python3 -m venv --clear $(API_TESTS)
	$(API_TESTS)/bin/pip install --quiet --disable-pip-version-check -r tests/api/requirements.txt
	@touch $@

## check: formatting, lints and documentation, all warnings denied
.PHONY: check
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

## bench: measure what the boundary costs, what being durable costs, what a Redis server does for a task, and whether stores slow down as they fill
.PHONY: bench
bench:
	$(CARGO) bench --locked -p codeq-system-tests

## clean: remove what was built
.PHONY: clean
clean:
	$(CARGO) clean
	rm -rf $(DIST)

## help: list the targets
.PHONY: help
help:
	@awk -F ': ' '/^## [a-z-]+: / { printf "  make %-8s  %s\n", substr($$1, 4), substr($$0, length($$1) + 3) }' $(MAKEFILE_LIST)
