# Everything a person or CI does here. Each target installs what it needs first (Debian packages, only missing ones).
.PHONY: help demo test prove-no-gap test-compat test-cni test-faults test-backends test-backends-short test-mixed test-kernels test-kube test-deploy test-page test-release test-image test-packages test-kubeadm release reproduce crates package book lint fuzz simulate mutants bench ci check-long
.DEFAULT_GOAL := help

ROOT := $(filter 0,$(shell id -u))
# As root every kernel test has to run; otherwise those that cannot are skipped with a line each.
export FLANNEL_NETNS ?= $(if $(ROOT),require)
TARGET := $(or $(CARGO_TARGET_DIR),target)
# In the order in which they can be published.
PUBLISHED := flannel-netlink flannel-nft flannel-vxlan flannel-lease flannel-cni flanneld
LIBRARIES := $(filter-out flanneld,$(PUBLISHED))
# The second opinions need C libraries: root installs them, others leave that crate out if they are missing.
WORKSPACE := --workspace $(if $(ROOT),,$(shell pkg-config --exists libnftnl libmnl 2>/dev/null || echo --exclude flannel-nft-oracle --exclude flannel-bench-rules))
export WORKSPACE

help: ## print this
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 20

DEMO := -p flanneld -p testkit
demo: ## a cluster on this machine: three nodes talk, a daemon dies, nothing is lost (root; KEEP=1 leaves it up)
	@$(if $(ROOT),:,echo "make demo needs root to make network namespaces: sudo make demo" >&2; exit 1)
	@scripts/install-deps demo
	@# Not optimized: that takes minutes on a fresh machine and shows the same.
	cargo build --quiet --locked $(DEMO) --bin flanneld --bin demo
	@$(TARGET)/debug/demo $(TARGET)/debug/flanneld

test: ## every test; as root on the kernel too
	@$(if $(ROOT),scripts/install-deps test,echo "NOT ROOT: kernel tests are SKIPPED; sudo make test runs them" >&2)
	cargo test --locked $(WORKSPACE) --all-features --doc
	@# Most tests wait for timers and other processes: two for each processor.
	@if cargo nextest --version >/dev/null 2>&1; then \
	    set -x; cargo nextest run --locked $(WORKSPACE) --all-features; \
	else \
	    set -x; cargo build --locked $(WORKSPACE) --all-features --examples && \
	    RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test --locked $(WORKSPACE) --all-features --lib --bins --tests; \
	fi
	@$(if $(ROOT),:,echo "NOT ROOT: kernel tests were SKIPPED" >&2)

prove-no-gap: ## the long proofs: 10 000 replacements under 4 000 new flows/s, no packet lost or bare; 1 000 interrupted listings (root; minutes)
	@scripts/install-deps test
	cargo test --locked --package flannel-nft --test netns -- --include-ignored --nocapture --test-threads=1 no_gap:: races::

test-compat: ## our tables before every nft from 0.9.8 to sid's, unpacked beside the system (root)
	@$(if $(ROOT),:,echo "make test-compat needs root to make network namespaces: sudo make test-compat" >&2; exit 1)
	@scripts/install-deps test compat
	scripts/test-compat

test-cni: ## our CNI plugin beside upstream's, on reference plugins of CNI 1.1, all built from their Go modules (root; Go)
	@$(if $(ROOT),:,echo "make test-cni needs root to make network namespaces: sudo make test-cni" >&2; exit 1)
	@scripts/install-deps test
	UPSTREAM_CNI_PLUGIN=$$(scripts/build-upstream-cni) CNI_PLUGINS=$$(scripts/build-cni-plugins) \
	    cargo test --locked --package flannel-cni --test plugin -- --ignored

test-faults: ## system calls of a real daemon fail, full disks, limits: writes docs/faults.md (root; five minutes)
	@$(if $(ROOT),:,echo "make test-faults needs root to make network namespaces: sudo make test-faults" >&2; exit 1)
	@scripts/install-deps faults
	cargo build --quiet --locked -p flanneld
	scripts/faults $(TARGET)/debug/flanneld

test-backends: ## the backends that not every kernel has, with real packets, in a virtual machine with one Debian kernel (KERNELS="trixie"; minutes)
	@scripts/install-deps test kernels
	KERNELS="$(or $(KERNELS),trixie)" PACKAGES="flannel-vxlan flanneld" scripts/test-kernels \
	    'netns/(ipip|wireguard)::|e2e/(backends|repairs|scale|wireguard|wireguard_peers)::'

test-mixed: ## nodes of upstream's flanneld 0.28.9 (built, once) and of ours in one cluster, with each backend, in the same machine (Go)
	@scripts/install-deps test kernels
	UPSTREAM_FLANNELD=$$(scripts/build-upstream) KERNELS="$(or $(KERNELS),trixie)" PACKAGES=flanneld \
	    scripts/test-kernels 'e2e/mixed::'

test-backends-short: ## the same for wireguard and a change of backends only
	@scripts/install-deps test kernels
	KERNELS="$(or $(KERNELS),trixie)" PACKAGES=flanneld scripts/test-kernels 'e2e/wireguard::both_families_are_encrypted_by_one|e2e/backends::a_cluster'

test-kernels: ## the kernel tests in virtual machines with Debian's kernels (KERNELS="bullseye sid" chooses; minutes each)
	@scripts/install-deps test kernels
	scripts/test-kernels

test-kube: ## leases, daemons and deploy/ on a real API server: that in KUBEBUILDER_ASSETS, else two that are built here (Go; minutes, once)
	@scripts/install-deps kube
	@set -e; old=; test -n "$$KUBEBUILDER_ASSETS" || old=$$(scripts/build-kube 1.20.15); \
	export KUBEBUILDER_ASSETS=$${KUBEBUILDER_ASSETS:-$$(scripts/build-kube)}; \
	test -x "$$KUBEBUILDER_ASSETS/kube-apiserver" || { echo "KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd" >&2; exit 1; }; \
	following="cargo test --locked --package flannel-lease --all-features --test stores -- --ignored --test-threads=2"; \
	set -x; \
	$$following kube_apiserver; \
	if [ -x "$$KUBEBUILDER_ASSETS/kine" ]; then \
	    KUBE_DATASTORE=kine $$following kube_apiserver::; \
	else \
	    echo "SKIPPED the datastore of k3s: no kine in $$KUBEBUILDER_ASSETS" >&2; \
	fi; \
	if [ -n "$$old" ]; then \
	    KUBEBUILDER_ASSETS=$$old $$following kube_apiserver:: --skip bookmarks; \
	fi; \
	cargo test --locked --package flanneld --all-features --test e2e kube:: -- --ignored --test-threads=2; \
	if [ -x "$$KUBEBUILDER_ASSETS/kube-controller-manager" ]; then \
	    cargo test --locked --package testkit --test kube -- --ignored --test-threads=2; \
	else \
	    echo "SKIPPED the migration and clean-up: no kube-controller-manager in $$KUBEBUILDER_ASSETS" >&2; \
	fi

test-deploy: ## the Helm chart, the manifest, the unit, alerts and dashboard, with the real Helm engine, Kubernetes' schemas, systemd, promtool and Grafana's types
	@$(if $(ROOT),scripts/install-deps deploy,:)
	@test -x $(TARGET)/deploy-env/bin/python || python3 -m venv $(TARGET)/deploy-env
	$(TARGET)/deploy-env/bin/python -m pip install --quiet --disable-pip-version-check helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 \
	    'grafana-foundation-sdk==1769699998!10.1.0'
	@# Schemas of Kubernetes 1.20, the oldest version that the chart supports.
	@test -d $(TARGET)/deploy-env/kubernetes-validate-1.20.0 || $(TARGET)/deploy-env/bin/python -m pip install --quiet --disable-pip-version-check \
	    --no-deps --target $(TARGET)/deploy-env/kubernetes-validate-1.20.0 kubernetes-validate==1.20.0
	$(TARGET)/deploy-env/bin/python scripts/check-deploy
	$(TARGET)/deploy-env/bin/python scripts/check-monitoring $(TARGET)/promtool

test-page: ## the status page of a real node in headless Chromium, as wide as a phone; installs chromium
	@scripts/install-deps test page
	scripts/check-page flanneld/tests/unit/serve/golden/page.html
	cargo test --locked --package flanneld --test e2e -- --ignored serve::

test-release: ## dist/: the static program where nothing else is: names by /etc/hosts and DNS, `cp` of init containers (root)
	@$(if $(ROOT),:,echo "make test-release needs root to change the root directory: sudo make test-release" >&2; exit 1)
	@scripts/install-deps check-release
	scripts/check-release

test-image: ## dist/: each architecture under qemu-user, the images in Docker, podman and containerd (root)
	@scripts/install-deps images
	scripts/check-image
	scripts/check-docker-guide

test-packages: ## dist/: the guide for systemd; upgrade under traffic and remove the packages, in a Debian of their own; PKGBUILD and flake (root)
	@scripts/install-deps images
	scripts/check-packages deb
	scripts/check-packages rpm
	scripts/check-recipes

test-kubeadm: ## dist/: the kubeadm guide on two nodes with the real kubeadm, kubelet, containerd and kube-proxy (root; Go; minutes)
	@scripts/install-deps images
	scripts/check-kubeadm-guide

release: ## dist/: static programs, images, packages, bill of materials, for ARCHITECTURES="amd64 ..." (default: all six; Go; half an hour on two free cores)
	@$(if $(ROOT),scripts/install-deps release,:)
	scripts/release $(ARCHITECTURES)

reproduce: ## dist/: build ARCHITECTURES="amd64 ..." (default: this machine's) again under another path; every file has the same bytes (Go; minutes)
	@$(if $(ROOT),scripts/install-deps release,:)
	scripts/check-reproducible $(ARCHITECTURES)

book: ## target/book: the documentation as a web site; every link leads somewhere
	@$(if $(ROOT),scripts/install-deps compat,:)
	scripts/book

crates: ## the libraries: each feature alone and none, the oldest Rust (rustup; minutes)
	@cargo hack --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-hack@0.6.46
	RUSTFLAGS="--deny warnings" cargo hack check --quiet --locked --each-feature $(LIBRARIES:%=--package %)
	rustup run --install 1.88 cargo check --quiet --locked --all-features --package flannel-netlink --package flannel-nft --package flannel-vxlan --package flannel-cni
	rustup run --install 1.89 cargo check --quiet --locked --all-features --package flannel-lease --package flanneld

package: ## builds each published crate from what crates.io would get, without publishing it
	cargo publish --dry-run --quiet --locked $(PUBLISHED:%=--package %)

lint: ## formatting, spelling, links, warnings, documentation, the libraries' interfaces, licences
	@$(if $(ROOT),scripts/install-deps test,:)
	scripts/check-imports
	scripts/check-docs
	scripts/draw-overview --check
	@# As root, so that CI has it; seconds.
	@$(if $(ROOT),test -x $(TARGET)/lint-env/bin/python || python3 -m venv $(TARGET)/lint-env,:)
	@$(if $(ROOT),$(TARGET)/lint-env/bin/python -m pip install --quiet --disable-pip-version-check typos==1.52.0,:)
	$(if $(ROOT),$(TARGET)/lint-env/bin/typos,@echo "NOT ROOT: spelling is not checked" >&2)
	cargo fmt --all --check
	cargo clippy --locked $(WORKSPACE) --all-targets --all-features -- --deny warnings
	cargo clippy --quiet --locked --package flannel-nft --package flannel-vxlan -- --deny warnings # without features
	@if cargo tree --locked --package flannel-nft --edges normal | grep tokio; then echo "flannel-nft: tokio without its feature" >&2; exit 1; fi
	scripts/check-public-api $(WORKSPACE)
	scripts/check-licences
	@if command -v cargo-deny >/dev/null; then set -x; cargo deny --locked check; fi

fuzz: ## libFuzzer on every decoder of bytes from outside, SECONDS=10 each; TARGETS="nft_changes status" chooses (C++ compiler)
	@$(if $(ROOT),scripts/install-deps fuzz,echo "NOT ROOT: no seeds from this kernel" >&2)
	scripts/fuzz $(or $(SECONDS),10) $(TARGETS)

simulate: ## nodes on fake kernels and a fake etcd, in virtual time, under random faults: SEEDS=1000; SEED=64 prints one; HOURS=1 runs as many as fit
	@# With the features of `make test`, so that nothing is compiled again.
	cargo build --quiet --locked $(WORKSPACE) --all-features --bin simulate
	$(TARGET)/debug/simulate $(if $(SEED),seed $(SEED) --log,seeds $(if $(HOURS),--first 1000 --seconds $$(($(HOURS) * 3600)),--count $(or $(SEEDS),1000)))

mutants: ## change the pure decisions one place at a time, and name what no test notices; PACKAGES="flannel-lease" chooses (hours)
	scripts/mutants $(PACKAGES)

bench: ## measure; BENCH=name runs one, QUICK=1 takes under a minute each, BENCH=rule_swap RULESET=file.json your own rules
	@$(if $(ROOT),:,echo "make bench needs root to make network namespaces: sudo make bench" >&2; exit 1)
	@scripts/install-deps bench
	cargo build --quiet --locked --release -p flanneld
	cargo bench --locked -p flannel-benches -p flannel-bench-rules $(if $(BENCH),--bench $(BENCH)) $(if $(RULESET),-- $(abspath $(RULESET)))

# The features of `make test`, so that nothing is compiled twice.
ci: DEMO := $(WORKSPACE) --all-features
ci: lint book demo test simulate fuzz test-deploy test-backends-short ## what CI runs

check-long: prove-no-gap test-compat test-cni test-faults test-kernels test-mixed release reproduce test-release test-image test-packages test-kubeadm test-kube test-page crates package ## what is too long for CI; before a release (root; hours)
	$(MAKE) simulate HOURS=1
