# Builds a derivation of the stub with what the host has.
cd "$(mktemp -d)"
export TMPDIR=$PWD
if [ -n "${src:-}" ]; then
    cp -r "$src" source
    chmod -R u+w source
    cd source
fi
substituteInPlace() {
    local file=$1 from=$3 to=$4
    grep -qF -- "$from" "$file"
    chmod u+w "$file"
    python3 -c 'import sys; p, a, b = sys.argv[1:]; t = open(p).read(); open(p, "w").write(t.replace(a, b))' "$file" "$from" "$to"
}
unset BPF_CLANG C_INCLUDE_PATH
if [ -n "${buildPhase:-}" ]; then
    eval "$buildPhase"
elif [ -z "${hostBinary:-}" ]; then
    # The host's own, so that it is compiled as on a real system: for the machine that it is named for.
    export CARGO_BUILD_TARGET=$(rustc -vV | sed -n 's/^host: //p')
    cargo build --offline --locked --release ${cargoBuildFlags:-}
    hostBinary=$PWD/target/$CARGO_BUILD_TARGET/release/ringtap
fi
if [ -n "${installPhase:-}" ]; then
    eval "$installPhase"
else
    install -D -m 0555 "$hostBinary" "$out/bin/ringtap"
    eval "${postInstall:-}"
fi
