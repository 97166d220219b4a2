# The two commands of the README are `make run` and `make test`; the others are
# for those who change the project. Everything that a target makes stands in
# bin/ and .cache/, which git does not see.

.DEFAULT_GOAL := help
SHELL   := bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
TOOL     = go tool -modfile=tools.mod
NEEDS    = bin/needs
FUZZTIME ?= 60s
TORTURETIME ?= 1m
SIMTIME ?= 10m
SIMFROM ?= $(shell date +%s)0000
PLATFORMS = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

export CGO_ENABLED ?= 0

.PHONY: help
help: ## show this text
	@echo "make TARGET, where TARGET is one of"
	@sed -nE 's/^([a-z][a-z0-9-]*):.*## (.*)$$/  \1 \2/p' $(MAKEFILE_LIST) | awk '{n = $$1; $$1 = ""; printf "  %-16s%s\n", n, $$0}'

.PHONY: run
run: build ## build the server and run an example pipeline on real files; opens no port
	@scripts/run

.PHONY: build
build: ## build bin/orchestrator, one static binary
	go build -ldflags '$(LDFLAGS)' -o bin/orchestrator ./cmd/orchestrator

.PHONY: test
test: ## run every test: units, both stores, end to end, browser; finds or installs what it needs
	@scripts/test

.PHONY: e2e
e2e: $(NEEDS) ## run only the tests that start the binary or a browser
	@$(NEEDS) -for postgres,browser,axe,python,bwrap -- go test ./cmd/... ./web/... ./examples/...

# Each judge is a package, with what it needs of scripts/needs.
JUDGES = ./executor/model/judge ./executor/tool/mcp/judge
JUDGENEEDS = aimock,conformance

.PHONY: judges
judges: $(NEEDS) ## hold the server against programs of others: mocks, conformance suites
	@$(NEEDS) -for $(JUDGENEEDS) -- go test -count 1 -v $(JUDGES)

.PHONY: race
race: $(NEEDS) ## run the tests of pipeline, store, executor and server under the race detector
	@CGO_ENABLED=1 $(NEEDS) -for postgres,aimock,mcp,bwrap,gcc -- go test -race ./pipeline/... ./store/... ./executor/... ./server/...

.PHONY: cover
cover: $(NEEDS) ## measure which lines the tests reach; writes .cache/cover.html
	@mkdir -p .cache
	@$(NEEDS) -for postgres,browser,axe,aimock,mcp,python -- go test -coverpkg=./... -coverprofile=.cache/cover.txt ./...
	@go tool cover -html=.cache/cover.txt -o .cache/cover.html
	@go tool cover -func=.cache/cover.txt | tail -n 1

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (60s)
	@scripts/fuzz $(FUZZTIME)

.PHONY: sim
sim: ## simulate crashes, stops and outages of the engine for SIMTIME (10m); stops at the first seed that breaks a promise
	go test ./executor -count=1 -timeout 0 -run 'TestSim$$' -sim.time=$(SIMTIME) -sim.from=$(SIMFROM)

.PHONY: bench
bench: build $(NEEDS) ## measure throughput, latency and idle cost against a throw-away PostgreSQL
	@$(NEEDS) -for postgres -own -- go run ./bench

.PHONY: torture
torture: $(NEEDS) ## break three replicas and their PostgreSQL for TORTURETIME (1m), and hold every record against what ran
	@$(NEEDS) -for postgres -- go test ./scripts/torture -count 1 -v -timeout 0 -args -torture.seed 0 -torture.for $(TORTURETIME) $(TORTUREFLAGS)

.PHONY: check
check: check-generated lint vuln ## format, lint, freshness of generated code, module file, links, known vulnerabilities
	$(TOOL) buf lint
	go mod tidy -diff
	go test . ./docs ./deploy

.PHONY: lint
lint: ## run go vet and golangci-lint
	go vet ./...
	$(TOOL) golangci-lint run
	$(TOOL) golangci-lint fmt --diff

.PHONY: fmt
fmt: ## format every file the way make lint wants it
	$(TOOL) golangci-lint fmt

.PHONY: vuln
vuln: ## look for known vulnerabilities in what the binary calls
	@scripts/vuln

.PHONY: generate
generate: ## write the generated code anew
	$(TOOL) buf generate
	$(TOOL) templ generate
	go run ./scripts/openapi
	go run ./scripts/actions

.PHONY: check-generated
check-generated: ## fail if make generate would change a file
	@scripts/check-generated

.PHONY: image
image: ## build the container images: orchestrator (from scratch) and orchestrator:tools (with a shell)
	docker build -f deploy/Dockerfile --build-arg VERSION=$(VERSION) --target server -t orchestrator:$(VERSION) .
	docker build -f deploy/Dockerfile --build-arg VERSION=$(VERSION) --target tools -t orchestrator:$(VERSION)-tools .

.PHONY: sandbox-images
sandbox-images: ## build the images of the sandbox driver docker from Debian packages, as root; needs debootstrap and a Docker engine
	scripts/sandbox-image python
	scripts/sandbox-image nodejs

.PHONY: release
release: ## cross-compile static binaries with checksums into bin/release
	@VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' PLATFORMS='$(PLATFORMS)' scripts/release

.PHONY: clean
clean: ## end the PostgreSQL that the tests share; remove bin/ and .cache/
	@if [ -x $(NEEDS) ]; then $(NEEDS) -stop; fi
	rm -rf bin .cache

.PHONY: $(NEEDS)
$(NEEDS):
	@go build -o $@ ./scripts/needs
