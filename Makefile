# Palisade. `make help` lists the targets; `make run` and `make test` need nothing else done first.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

include versions.mk

# Extra words for `palisade up`, for example: make run ARGS="--people-listen 127.0.0.1:9443"
ARGS ?=
# Extra words for `go test`, for example: make test TESTFLAGS="-run TestFlow"
TESTFLAGS ?=
# What `make test-kernels` runs: rows of test/vm/matrix/row.go (all if empty) and a regexp of tests, for example:
# make test-kernels KERNELS="6.1 6.12" TESTS='TestConnect$|TestExit$'
# It is taken as it is written: $(value) keeps make from taking $| and the like for variables.
# FULL=1 asks for the whole of every count, and gives a VM an hour.
KERNELS ?=
# How many containers `make bench-shim` makes each way.
CONTAINERS ?= 100
TESTS ?=
FULL ?=
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

processes := collector console correlator enforcer gate scanner uplink
modules := api cli deploy internal loadtest $(addprefix services/,$(processes)) test
binaries := bin/palisade bin/palisade-runc bin/palisade-runc-alone bin/palisade-runc-hook $(addprefix bin/palisade-,$(processes))
# Tools are pinned in modules of their own, one for those that share dependencies; the workspace does not know them.
build_tool = @mkdir -p bin/tools; cd tools$(1) && GOWORK=off go build -o $(CURDIR)/bin/tools/ $(2)

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: setup build ## Start the node and a console here, show live findings; Ctrl-C stops and cleans up
	@$(SUDO) deploy/dev/run.sh $(ARGS)

.PHONY: test
test: setup test-tools build vet ## Run every test, as root, against the real kernel, containerd and runC
	@for module in $(modules); do (cd $$module && GOWORK=off go build ./...); done
	$(SUDO) env "PATH=$$PATH" go test -race -shuffle=on $(TESTFLAGS) $$(go list work | grep -vE '/test/e2e|/services/collector')
	$(SUDO) env "PATH=$$PATH" go test -race -shuffle=on -p=1 -timeout=20m $(TESTFLAGS) ./services/collector/...
	$(SUDO) env "PATH=$$PATH" PALISADE_BIN=$(CURDIR)/bin go test -race -count=1 -p=1 -timeout=15m $(TESTFLAGS) ./test/e2e/...

.PHONY: test-full
test-full: setup ## Run the collector's tests with the whole of every count: 200 000 opens, 20 kills, 10 000 tries (ten minutes)
	$(SUDO) env "PATH=$$PATH" PALISADE_TEST_FULL=1 go test -count=1 -p=1 -timeout=30m $(TESTFLAGS) ./services/collector/...

.PHONY: test-runtimes
test-runtimes: setup build ## Run the tests of containers and pods against containerd 2, and the runC shim's against runC 1.5 (built here: minutes)
	@mkdir -p bin/runtimes
	cd bin/runtimes && GOWORK=off CGO_ENABLED=0 GOBIN=$(CURDIR)/bin/runtimes go install $(addprefix github.com/containerd/containerd/v2/cmd/,$(addsuffix @$(containerd2),\
		containerd containerd-shim-runc-v2 ctr))
	cd bin/runtimes && GOWORK=off CGO_ENABLED=1 GOBIN=$(CURDIR)/bin/runtimes/runc-1.5 go install github.com/opencontainers/runc@$(runc15)
	$(SUDO) env "PATH=$$PATH" PALISADE_TEST_RUNC=$(CURDIR)/bin/runtimes/runc-1.5/runc go test -race -count=1 -v -run TestMatrix ./services/enforcer/runc-shim
	$(SUDO) env "PATH=$(CURDIR)/bin/runtimes:$$PATH" go test -race -count=1 -v -run 'TestRealC|TestB18' $(TESTFLAGS) \
		./services/correlator/internal/container
	$(SUDO) env "PATH=$(CURDIR)/bin/runtimes:$$PATH" go test -race -count=1 -v -run TestRealCRI $(TESTFLAGS) ./services/gate/internal/proxy
	$(SUDO) env "PATH=$(CURDIR)/bin/runtimes:$$PATH" PALISADE_BIN=$(CURDIR)/bin go test -race -count=1 -v -timeout=10m \
		-run 'TestAttribution|TestCRI|TestFlow|TestNRI' $(TESTFLAGS) ./test/e2e

.PHONY: test-compose
test-compose: setup test-tools image ## Run deploy/compose on a newer Docker, and kill its collector (both built here: ten minutes the first time)
	@mkdir -p bin/docker
	cd bin/docker && GOWORK=off CGO_ENABLED=0 GOBIN=$(CURDIR)/bin/docker go install -ldflags='$(ldflags)' github.com/moby/moby/v2/cmd/dockerd@$(moby)
	cd tools/compose && GOWORK=off CGO_ENABLED=0 go build -ldflags='$(ldflags)' -o $(CURDIR)/bin/docker/docker-compose github.com/docker/compose/v5/cmd
	$(SUDO) env "PATH=$(CURDIR)/bin/docker:$$PATH" PALISADE_BIN=$(CURDIR)/bin go test -race -count=1 -v -timeout=10m \
		-run 'TestCompose|TestDocker' $(TESTFLAGS) ./test/e2e

.PHONY: test-kernels
test-kernels: vm-tools ## Run the collector's kernel tests on Debian's kernels in VMs (KERNELS="6.1 6.12", TESTS=regexp)
	CGO_ENABLED=0 go test -c -o bin/vm/kernel.test ./services/collector/internal/kerneltest
	CGO_ENABLED=0 GOARCH=386 go build -o bin/vm/compat32 ./services/collector/internal/kerneltest/testdata/compat32
	@bin/tools/matrix $(if $(FULL),-full -timeout 1h) -run '$(value TESTS)' $(KERNELS)

.PHONY: test-vm
test-vm: build vm-tools ## Run the demo in a VM with Debian's kernel and cgroup v2 (QEMU, a few minutes)
	test/vm/run.sh

.PHONY: test-vm-specs
test-vm-specs: setup test-tools vm-tools ## Have Docker in a VM write the container configurations of hosts with AppArmor and SELinux (two minutes)
	@deploy/dev/setup.sh semodule:policycoreutils
	test/vm/specs.sh

.PHONY: vm-tools
vm-tools: setup
	@deploy/dev/setup.sh $(vm_commands)
	@mkdir -p bin/tools bin/vm
	go build -o bin/tools/matrix ./test/vm/matrix

.PHONY: build
build: ## Build every binary into bin/, static, without cgo
	@mkdir -p bin
	@for process in $(processes); do echo "build palisade-$$process"; \
		CGO_ENABLED=0 go build -trimpath -ldflags='$(ldflags)' -o bin/palisade-$$process ./services/$$process; done
	@echo "build palisade-runc"; CGO_ENABLED=0 go build -trimpath -ldflags='$(shim_ldflags)' -o bin/palisade-runc ./services/enforcer/runc-shim
	@echo "build palisade-runc-alone"; CGO_ENABLED=0 go build -trimpath -ldflags='$(shim_ldflags)' -o bin/palisade-runc-alone ./services/enforcer/runc-shim/alone
	@echo "build palisade-runc-hook"; CGO_ENABLED=0 go build -trimpath -ldflags='$(shim_ldflags)' -o bin/palisade-runc-hook ./services/enforcer/runc-shim/hook
	@echo "build palisade"; CGO_ENABLED=0 go build -trimpath -ldflags='$(ldflags)' -o bin/palisade ./cli

.PHONY: image
image: build ## Write the container images' root file systems into bin/image, for deploy/Dockerfile
	cd tools/rootfs && GOWORK=off go run . -bin $(CURDIR)/bin -out $(CURDIR)/bin/image

.PHONY: setup
setup: ## Install what the other targets need (Debian packages), if it is not there
	@deploy/dev/setup.sh $(setup_commands)

.PHONY: test-tools
test-tools:
	@deploy/dev/setup.sh $(test_commands)
	@[ -x bin/tools/crictl ] || { echo "build crictl"; mkdir -p bin/tools; \
		cd bin/tools && GOWORK=off CGO_ENABLED=0 GOBIN=$(CURDIR)/bin/tools go install sigs.k8s.io/cri-tools/cmd/crictl@$(crictl); }

.PHONY: vet
vet: ## go vet over all modules
	go vet work

.PHONY: lint
lint: vet ## Formatting, buf, golangci-lint, and generated files are current
	@unformatted=$$(git ls-files '*.go' | xargs gofmt -l); [ -z "$$unformatted" ] || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(call build_tool,,github.com/bufbuild/buf/cmd/buf)
	$(call build_tool,/lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
	bin/tools/buf lint
	bin/tools/buf format --diff --exit-code
	@for module in $(modules); do echo "golangci-lint $$module"; \
		(cd $$module && GOWORK=off $(CURDIR)/bin/tools/golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: generate
generate: ## Make the generated code again: protobuf and eBPF objects (installs clang)
	@deploy/dev/setup.sh clang:clang llvm-strip:llvm /usr/include/bpf/bpf_helpers.h:libbpf-dev
	$(call build_tool,,github.com/bufbuild/buf/cmd/buf google.golang.org/protobuf/cmd/protoc-gen-go \
		google.golang.org/grpc/cmd/protoc-gen-go-grpc github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto \
		github.com/cilium/ebpf/cmd/bpf2go)
	PATH=$(CURDIR)/bin/tools:$$PATH buf generate
	$(call build_tool,,./eventdoc)
	bin/tools/buf build -o - | bin/tools/eventdoc >docs/events.md
	cd services/collector && PATH=$(CURDIR)/bin/tools:$$PATH go generate ./...

.PHONY: check-generate
check-generate: generate ## Fail if generated code is not what its sources say
	git diff --exit-code -- api docs/events.md services/collector

.PHONY: loadtest
loadtest: setup build ## Start a node, load every unix-socket service with ghz, stop it
	$(call build_tool,,github.com/bufbuild/buf/cmd/buf)
	$(call build_tool,/ghz,github.com/bojand/ghz/cmd/ghz)
	bin/tools/buf build -o bin/palisade.protoset
	go build -o bin/tools/loadtest ./loadtest
	@$(SUDO) deploy/dev/loadtest.sh

.PHONY: bench
bench: setup build ## Benchmarks of the hot paths, and what a node costs its host (ratios against the same run without one)
	go test -run='^$$' -bench=. -benchmem $$(go list work | grep -v /test/e2e) | grep -v 'no test files'
	go build -o bin/tools/overhead ./loadtest/overhead
	@$(SUDO) deploy/dev/bench.sh

.PHONY: bench-replay
bench-replay: setup build ## Record containers with a mixed load here, then replay 5 million events of it on one core (RECORDING=file, EVENTS=n)
	go build -o bin/tools/busyboximage ./loadtest/busyboximage
	@$(SUDO) env "PATH=$$PATH" deploy/dev/bench-replay.sh

.PHONY: bench-hooks
bench-hooks: setup ## What an event costs in the kernel's hooks, as root, by the kernel's own clock (a minute)
	go test -c -o bin/tools/kerneltest ./services/collector/internal/kerneltest
	$(SUDO) bin/tools/kerneltest -test.run='^$$' -test.bench=Hooks -test.benchtime=1x

.PHONY: bench-shim
bench-shim: setup ## What the runC shim adds to create and start, against runC alone in the same run, as root (CONTAINERS=n)
	go test -c -o bin/tools/shimtest ./services/enforcer/runc-shim
	cd services/enforcer/runc-shim && $(SUDO) env "PATH=$$PATH" $(CURDIR)/bin/tools/shimtest -test.run='^$$' -test.bench=CreateAndStart -test.benchtime=$(CONTAINERS)x

.PHONY: clean
clean: ## Remove what build made
	rm -rf bin
