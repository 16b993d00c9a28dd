{
  description = "Captures the HTTP transactions of a Linux machine in clear text, out of the path";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system} self.packages.${system});
      app = program: description: {
        type = "app";
        inherit program;
        meta = { inherit description; };
      };
    in
    {
      packages = each (
        pkgs: own: {
          default = own.ringtap;
          ringtap = pkgs.callPackage ./images/nix/package.nix { src = self; };
          oci = pkgs.callPackage ./images/nix/oci.nix {
            src = self;
            inherit (own) ringtap;
          };
        }
      );

      apps = each (
        pkgs: own:
        let
          # Capturing takes root: whoever is not is asked for it.
          as_root = name: arguments: ''${pkgs.writeShellScript name ''
            if [ "$(id -u)" = 0 ]; then exec ${own.ringtap}/bin/ringtap ${arguments} "$@"; fi
            exec sudo ${own.ringtap}/bin/ringtap ${arguments} "$@"
          ''}'';
        in
        {
          default = app (as_root "ringtap-run" "run") "Capture this machine's HTTP traffic";
          doctor = app (as_root "ringtap-doctor" "doctor") "Say what works on this machine, and what stays dark";
          bench = app (as_root "ringtap-bench" "bench capacity") "Measure what this machine can carry";
        }
      );

      checks = each (
        pkgs: own:
        let
          check = name: command: own.ringtap.overrideAttrs (before: {
            pname = "ringtap-${name}";
            nativeBuildInputs = (before.nativeBuildInputs or [ ]) ++ [
              pkgs.rustfmt
              pkgs.clippy
              pkgs.cargo-deny
            ];
            buildPhase = command;
            # Static programs need their machine named, which these commands leave out.
            RUSTFLAGS = "";
            doCheck = false;
            installPhase = "touch $out";
          });
        in
        {
          package = own.ringtap;
          fmt = check "fmt" "cargo fmt --all --check";
          clippy = check "clippy" "cargo clippy --offline --workspace --all-targets -- -D warnings";
          # Those that need neither root nor servers; the others say that they were skipped.
          tests = check "tests" "cargo test --offline --workspace --lib";
          deny = check "deny" "cargo deny --offline check bans licenses sources";
        }
      );

      devShells = each (
        pkgs: own: {
          default = pkgs.mkShell {
            inputsFrom = [ own.ringtap ];
            packages = [
              pkgs.cargo
              pkgs.rustc
              pkgs.rustfmt
              pkgs.clippy
              pkgs.cargo-nextest
              pkgs.cargo-deny
              pkgs.python3
              pkgs.nodejs
            ];
            inherit (own.ringtap) BPF_CLANG C_INCLUDE_PATH;
          };
        }
      );

      nixosModules = {
        default = self.nixosModules.ringtap;
        ringtap = import ./images/nix/module.nix self;
      };

      formatter = each (pkgs: own: pkgs.nixfmt);
    };
}
