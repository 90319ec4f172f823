# nix build: the program, its manual pages and completions.
{
  description = "Pod network for Kubernetes nodes and plain hosts, compatible with flannel";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      package = pkgs: pkgs.rustPlatform.buildRustPackage {
        pname = "flannel";
        version = (pkgs.lib.importTOML ./Cargo.toml).workspace.package.version;
        src = self;
        cargoLock.lockFile = ./Cargo.lock;
        buildAndTestSubdir = "flanneld";
        # The tests make network namespaces.
        doCheck = false;
        nativeBuildInputs = [ pkgs.installShellFiles ];
        postInstall = ''
          ln -s flanneld $out/bin/flannel
          installManPage deploy/man/*.8
          installShellCompletion --cmd flanneld --bash deploy/completions/flanneld.bash \
            --fish deploy/completions/flanneld.fish --zsh deploy/completions/_flanneld
          install -Dm644 deploy/systemd/flanneld.service $out/lib/systemd/system/flanneld.service
          substituteInPlace $out/lib/systemd/system/flanneld.service --replace-fail /usr/local/bin $out/bin
        '';
        meta = { license = pkgs.lib.licenses.asl20; mainProgram = "flanneld"; platforms = systems; };
      };
    in {
      packages = nixpkgs.lib.genAttrs systems (system: { default = package nixpkgs.legacyPackages.${system}; });
    };
}
