{
  description = "What flake.nix takes from nixpkgs, played by the host: for a machine that has no nixpkgs";

  outputs =
    { self }:
    let
      # Written by tests/nix/check: where the host has its programs, and a binary that need not be built again.
      host = import ./host.nix;
      lib = import ./lib.nix;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      pkgs =
        system:
        let
          # A derivation of the host's bash, which can be changed as nixpkgs' own.
          derive =
            attributes:
            let
              made = derivation (
                {
                  inherit system;
                  builder = "${host.bash}";
                  args = [
                    "-eu"
                    ./build.sh
                  ];
                  PATH = host.path;
                  HOME = host.home;
                  hostBinary = host.binary;
                  name = attributes.name or "${attributes.pname}-${attributes.version}";
                }
                // removeAttrs attributes [
                  "meta"
                  "cargoLock"
                  "doCheck"
                  "postFixup"
                ]
              );
            in
            made
            // {
              inherit (attributes) meta;
              version = attributes.version or "";
              overrideAttrs = change: derive (attributes // change attributes);
            };
          # Programs that are the host's own.
          own = name: derive { inherit name; meta = { }; buildPhase = "true"; installPhase = "mkdir -p $out/bin"; };
          write =
            name: text: mode:
            derive {
              inherit name text mode;
              meta = { };
              buildPhase = "true";
              installPhase = ''printf %s "$text" >$out; chmod $mode $out'';
            };
          set = rec {
            inherit lib system;
            callPackage =
              file: arguments:
              let
                function = import file;
              in
              function (builtins.intersectAttrs (builtins.functionArgs function) set // arguments);
            rustPlatform.buildRustPackage = attributes: derive attributes;
            writeShellScript = name: text: write name "#!${host.bash}\n${text}" "0555";
            writeText = name: text: write name text "0444";
            runCommand =
              name: attributes: command:
              derive (attributes // { inherit name; meta = { }; buildPhase = command; installPhase = "true"; });
            dockerTools.buildImage =
              {
                name,
                tag,
                copyToRoot,
                extraCommands,
                config,
              }:
              derive {
                name = "${name}.tar.gz";
                meta = { };
                inherit tag copyToRoot extraCommands;
                image = name;
                config = builtins.toJSON config;
                script = ./image.py;
                buildPhase = "cp -r $copyToRoot layer; find layer -type d -exec chmod u+w {} +; (cd layer; eval \"$extraCommands\"); python3 $script layer $image $tag";
                installPhase = "mv image.tar.gz $out";
              };
            mkShell = attributes: derive { name = "shell"; meta = { }; buildPhase = "true"; installPhase = "mkdir $out"; };
            llvmPackages_19.clang-unwrapped = own "clang";
            libbpf = own "libbpf";
            linuxHeaders = own "linux-headers";
            glibc.static = own "glibc-static";
            cacert = derive {
              name = "cacert";
              meta = { };
              buildPhase = "true";
              installPhase = "mkdir -p $out/etc/ssl/certs; cp ${host.certificates} $out/etc/ssl/certs/ca-bundle.crt";
            };
            python3 = own "python3";
            nodejs = own "nodejs";
            cargo = own "cargo";
            rustc = own "rustc";
            rustfmt = own "rustfmt";
            clippy = own "clippy";
            cargo-nextest = own "cargo-nextest";
            cargo-deny = own "cargo-deny";
            nixfmt = own "nixfmt";
          };
        in
        set;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs systems pkgs;
    };
}
