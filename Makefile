# Targets for people; `make help` lists them. Each is a few lines: what is
# complicated is a Go program or a test.

TAGS     := no_cri,no_btrfs,no_zfs,no_devmapper,no_tracing
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATIC   := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
PACKAGES ?= ./...
BINARIES := APPLIANCE_BINARY=$(CURDIR)/bin/appliance NOTEJAM_BINARY=$(CURDIR)/bin/notejam
FUZZTIME ?= 5s
SEEDS    ?= 50
SEED     ?= 1
LONG     ?= 1h
ROOT     := $(if $(filter-out 0,$(shell id -u)),sudo)

# Every go command gets the same tags, or packages would be built twice.
export GOFLAGS := -tags=$(TAGS)

BUILD_DEPS := gcc libc6-dev libseccomp-dev pkg-config
TEST_DEPS  := git docker.io ruby nftables iproute2 keepalived

.PHONY: help deps test-deps build build-skewed test e2e day-test upgrade-test vet fmt lint fuzz sim chaos chaos-long bench demo demo-down clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Only what is missing is installed, so that a prepared machine needs no network.
define install
	@missing=$$(for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	[ -z "$$missing" ] || ! command -v apt-get >/dev/null || { $(ROOT) apt-get update -q && \
	$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; } </dev/null
endef

deps: ## install what the build needs (Debian, unattended)
	$(call install,$(BUILD_DEPS))

test-deps: deps
	$(call install,$(TEST_DEPS))

build: deps ## build bin/appliance (static, with runc inside) and bin/notejam
	@mkdir -p bin
	go run ./node/runtime/containerd/runc/build
	$(STATIC) -tags $(TAGS),embedrunc -o bin/appliance ./cmd/appliance
	$(STATIC) -o bin/notejam ./cmd/notejam

SKEWED := CGO_ENABLED=0 go run ./node/lab/skew -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -tags $(TAGS),embedrunc,skewed -o bin/appliance-skewed ./cmd/appliance

build-skewed: build ## build bin/appliance-skewed, a test binary whose clock chaos can set wrong
	$(SKEWED)

test: test-deps build ## run all tests with the race detector; root runs the lab and the runtimes, too
	$(BINARIES) go test -race -timeout 15m -skip '^(TestEndToEnd|TestMastersAwayForADay|TestRollingUpgrade)$$' $(PACKAGES)
	$(if $(filter ./...,$(PACKAGES)),$(MAKE) --no-print-directory e2e day-test upgrade-test)

e2e: ## the demo's story with bad input and more faults, alone: it measures (root; make build first)
	$(BINARIES) go test -race -timeout 10m -count=1 -run '^TestEndToEnd$$' ./node/lab/story

day-test: ## a day without masters: every certificate runs out, and the cluster comes together again (root; make build first)
	$(SKEWED)
	$(BINARIES) SKEWED_BINARY=$(CURDIR)/bin/appliance-skewed go test -race -timeout 10m -count=1 -run '^TestMastersAwayForADay$$' ./node/lab/story

upgrade-test: ## a rolling upgrade, a downgrade and an upgrade for good, under load, with two binaries (root; make build first)
	$(STATIC) -tags $(TAGS),embedrunc,nextlevel -o bin/appliance-next ./cmd/appliance
	$(BINARIES) NEXT_BINARY=$(CURDIR)/bin/appliance-next go test -race -timeout 15m -count=1 -run '^TestRollingUpgrade$$' ./node/lab/story

vet: ## go vet
	go vet $(PACKAGES)

fmt: ## format all Go files
	gofmt -w $$(git ls-files '*.go')

lint: vet ## house rules: format, vet, shell and Ruby syntax
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || \
	{ echo "not formatted (make fmt): $$unformatted" >&2; exit 1; }
	sh -n vagrant/provision.sh
	sh -n .ci/run
	! command -v ruby >/dev/null || ruby -c vagrant/Vagrantfile

fuzz: ## fuzz every parser for a short while (FUZZTIME=5s each)
	@grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file func; do \
	name=$${func#func }; echo "$${file%/*} $$name"; \
	go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$${file%/*}" </dev/null || exit 1; done

sim: ## simulate whole control planes under faults, one for each seed (SEEDS=50)
	cd node/sim && GOGC=400 SIM_SEEDS=$(SEEDS) go test -count=1 -timeout 2h -run '^TestSeeds$$'

chaos: build ## break a lab on purpose in every way of the short set and check what must hold (root, at most 10 minutes)
	$(ROOT) timeout --foreground --signal=INT --kill-after=60 600 bin/appliance chaos run short --seed $(SEED)

chaos-long: build-skewed ## an hour of all scenarios in random orders from SEED, with a look at growth (root; LONG=1h)
	$(ROOT) bin/appliance-skewed chaos run all --for $(LONG) --seed $(SEED)

bench: build ## print the table of targets, measured in a lab (root), then simulate SEEDS=50 clusters
	@$(ROOT) bin/appliance lab bench; code=$$?; $(MAKE) --no-print-directory sim || code=1; exit $$code

demo: build ## the whole story on this machine (root); the lab stays up
	$(ROOT) bin/appliance lab demo

demo-down: ## remove everything that the demo made, also after a crash
	[ ! -x bin/appliance ] || $(ROOT) bin/appliance lab down

clean: ## remove what was built
	rm -rf bin node/runtime/containerd/runc/runc.zst
