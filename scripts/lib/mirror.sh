# shellcheck shell=bash
# Sourced: packages of other suites and architectures, from the mirror this machine already uses.
#
# Everything stays in a cache outside the tree: lists and packages of a configuration of their own,
# so that the machine's apt knows nothing of foreign architectures. apt checks every list's
# signature and every package's hash.

cache=${KERNLOOM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kernloom}

# mirror_use NAME ARCHES SUITE...: from now on mirror_apt sees these. A suite may end in ':ARCHES' of
# its own. Lists older than a day are fetched anew.
mirror_use() {
    local name=$1 arches=$2 suite only label line
    shift 2
    mirror_dir=$cache/apt/$name
    mkdir -p "$mirror_dir"/{lists/partial,cache/archives/partial,etc/apt.conf.d,etc/preferences.d} \
        "$cache/debs"
    for suite in "$@"; do
        only=$arches
        [[ $suite == *:* ]] && only=${suite#*:} suite=${suite%:*}
        label=Debian
        [[ $suite == *-security ]] && label=Debian-Security
        line="deb [arch=$only signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        echo "$line $(mirror_of "$label") $suite main"
    done >"$mirror_dir/etc/sources.list.new"
    cat >"$mirror_dir/apt.conf" <<CONF
Dir::Etc "$mirror_dir/etc";
Dir::State::Lists "$mirror_dir/lists";
Dir::State::status "/dev/null";
Dir::Cache "$mirror_dir/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; "armhf"; };
APT::Sandbox::User "root";
APT::Default-Release "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
CONF
    local stamp=$mirror_dir/updated
    if ! cmp -s "$mirror_dir/etc/sources.list"{.new,} || [[ -z $(find "$stamp" -mtime -1 2>/dev/null) ]]; then
        mv "$mirror_dir/etc/sources.list"{.new,}
        # One broken list must not cost the others: apt then says so and keeps what it has.
        mirror_apt apt-get -q=2 update || echo "mirror: some lists could not be updated" >&2
        touch "$stamp"
    fi
}

# The address this machine has for a Debian archive, by the label of its release files.
mirror_of() {
    local found
    # shellcheck disable=SC2016 # apt's own placeholders
    found=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        sed -n "s/^$1 //p" | head -n 1)
    if [[ -z $found ]]; then
        echo "mirror: this machine's apt has no archive labelled $1; run apt-get update first" >&2
        return 1
    fi
    echo "$found"
}

mirror_apt() {
    APT_CONFIG=$mirror_dir/apt.conf "$@"
}

# mirror_fetch PACKAGE[:ARCH][=VERSION]...: downloads what the cache lacks, one apt run for all; 3 is
# what cannot be had.
mirror_fetch() {
    local wanted=() spec
    for spec in "$@"; do
        [[ -n $(mirror_deb "$spec") ]] || wanted+=("$spec")
    done
    ((${#wanted[@]} == 0)) || (cd "$cache/debs" && mirror_apt apt-get -q=2 download "${wanted[@]}") || {
        echo "mirror: not to be had: ${wanted[*]}" >&2
        return 3
    }
}

# mirror_deb PACKAGE[:ARCH]=VERSION: the cached file, empty if there is none.
mirror_deb() {
    local spec=$1 version=${1#*=} name arch=amd64
    name=${spec%%=*}
    [[ $name == *:* ]] && arch=${name#*:} name=${name%:*}
    local stem=$cache/debs/${name}_${version//:/%3a}
    find "$stem"_{"$arch",all}.deb 2>/dev/null || true
}

# mirror_newest PACKAGE[:ARCH]: the newest version any list offers.
mirror_newest() {
    mirror_apt apt-cache madison "$1" | awk -F' *[|] *' '{ print $2 }' | sort -V | tail -n 1
}
