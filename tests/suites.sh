# Sourced: packages of Debian's other suites, from the mirror that this machine's own come from.

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# apt_of FOLDER SUITE COMMAND…: apt with the lists of that suite alone, in that folder, and as if nothing were installed.
apt_of() {
    local folder=$1/$2 suite=$2 command=$3
    shift 3
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$folder/sources.list"
    "apt-$command" -q -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$folder/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$folder/cache" \
        -o APT::Sandbox::User=root "$@"
}
