# The binary: one static file.
{
  lib,
  src,
  rustPlatform,
  llvmPackages_19,
  libbpf,
  linuxHeaders,
  glibc,
  python3,
}:
let
  manifest = fromTOML (builtins.readFile ../../Cargo.toml);
in
rustPlatform.buildRustPackage {
  pname = "ringtap";
  version = manifest.workspace.package.version;
  inherit src;
  cargoLock.lockFile = ../../Cargo.lock;

  nativeBuildInputs = [ python3 ];
  buildInputs = [ glibc.static ];
  # Not the wrapped one, whose flags are for programs of this machine.
  BPF_CLANG = "${llvmPackages_19.clang-unwrapped}/bin/clang";
  C_INCLUDE_PATH = "${libbpf}/include:${linuxHeaders}/include";
  RUSTFLAGS = "-C target-feature=+crt-static";
  cargoBuildFlags = [
    "--bin"
    "ringtap"
  ];
  # `nix flake check` and `./dev test` run them; here they would need root and servers.
  doCheck = false;

  postInstall = ''
    install -D -m 0444 images/systemd/ringtap.service $out/lib/systemd/system/ringtap.service
    substituteInPlace $out/lib/systemd/system/ringtap.service --replace-fail /usr/bin/ringtap $out/bin/ringtap
    mkdir -p $out/share/doc/ringtap
    cp -r docs README.md LICENSE CHANGELOG.md $out/share/doc/ringtap/
    python3 images/oci/sbom >$out/share/doc/ringtap/sbom.cdx.json
  '';

  meta = {
    inherit (manifest.package) description;
    license = lib.licenses.asl20;
    mainProgram = "ringtap";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
