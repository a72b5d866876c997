#!/usr/bin/env bash
# Installs what is missing beside Rust: protoc with its standard .proto files (the build of etcd-client runs it),
# etcd and etcdctl. A second run finds everything and changes nothing.
#
#   scripts/setup.sh              what the build and the demo need
#   scripts/setup.sh consul       Consul too; `zookeeper` is ZooKeeper, with Java where there is none
#   scripts/setup.sh --all        all that the tests need: both of them, shellcheck and promtool; etcd and ZooKeeper in the
#                                 versions of docker-compose.yml, and the oldest etcd that is supported
#   scripts/setup.sh --versions   installs nothing: prints the versions of the registries that the tests use
#
# Official releases, checked by SHA-256 (etcd's by the sums that the release publishes), go to .tools/ in this repository: no
# root, nothing else is touched. Where they cannot be had, Debian's and Ubuntu's packages take their place; ZooKeeper is one.
# For a mirror of GitHub:
#
#   GITHUB_MIRROR=https://mirror.example/https://github.com scripts/setup.sh
set -euo pipefail
set +h # what is installed here is found at once, also where an older one stood in for it

etcd_version=3.5.30 # as in docker-compose.yml and in the Dockerfile
oldest_etcd_version=3.4.23
zookeeper_version=3.9 # as in docker-compose.yml
protoc_version=31.1
consul_version=1.22.1
github=${GITHUB_MIRROR:-https://github.com}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.tools
PATH=$tools/bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }
have() { command -v "$1" >/dev/null; }
at_least() { printf '%s\n' "$1" "$2" | sort -V -C; } # OLDER NEWER

# --- what is there ---

# A program alone is not enough: Debian has the standard .proto files in a package of their own.
protoc_works() {
    local protoc=${PROTOC:-protoc}
    have "$protoc" || return
    printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto";\n' >"$work/probe.proto"
    "$protoc" ${PROTOC_INCLUDE:+"-I$PROTOC_INCLUDE"} "-I$work" -o /dev/null "$work/probe.proto" 2>/dev/null
}

version_of_etcd() { "$1" --version 2>/dev/null | sed -n 's/^etcd Version: //p'; } # PROGRAM
version_of_consul() { consul version 2>/dev/null | sed -n '1s/^Consul v//p'; }

# A ZooKeeper that was not installed here has no version that could be read without starting it.
version_of_zookeeper() {
    local jar
    for jar in "$tools"/zookeeper/zookeeper-[0-9]*.jar; do
        [ -f "$jar" ] || continue
        jar=${jar##*/zookeeper-}
        echo "${jar%.jar}"
    done
}

known() { "$@" | grep . || echo unknown; } # what a function above prints, if anything

# 3.4 is the first etcd whose watches can send a large change in fragments.
etcd_works() { have etcd && have etcdctl && at_least 3.4 "$(version_of_etcd etcd)"; }

# --- official releases ---

# The sums of the releases named above; a platform without a line gets its packages. etcd's are not among them: see
# etcd_from_release.
sha256_of() {
    case $1 in
    protoc-31.1-linux-x86_64.zip) echo 96553041f1a91ea0efee963cb16f462f5985b4d65365f3907414c360044d8065 ;;
    protoc-31.1-linux-aarch_64.zip) echo 6c554de11cea04c56ebf8e45b54434019b1cd85223d4bbd25c282425e306ecc2 ;;
    protoc-31.1-osx-x86_64.zip) echo 485e87088b18614c25a99b1c0627918b3ff5b9fde54922fb1c920159fab7ba29 ;;
    protoc-31.1-osx-aarch_64.zip) echo 4aeea0a34b0992847b03a8489a8dbedf3746de01109b74cc2ce9b6888a901ed9 ;;
    consul_1.22.1_linux_amd64.zip) echo 91222c7ec141f1c2c92f6b732eeb0251220337e4c07c768cbc6ae633fef69733 ;;
    consul_1.22.1_linux_arm64.zip) echo d421c4537b57935a949b9bc34252266672fe484a766a05ec5826bbae16c8f323 ;;
    consul_1.22.1_darwin_amd64.zip) echo 1d8f48639618b8d293e3cfe7855df9fb53c802262848053bf45c260fd7427493 ;;
    consul_1.22.1_darwin_arm64.zip) echo 1bbbdc43ac23321f402d661b20dd0d291047ecbda2dbfe93e4b4ce26cf2c701d ;;
    *) return 1 ;;
    esac
}

# The limits are for machines without a network, or with one that lets GitHub trickle: they lose seconds, not minutes.
fetch() { # URL FILE
    if have curl; then
        curl -fsSL --connect-timeout 5 --speed-limit 20000 --speed-time 15 -o "$2" "$1"
    elif have wget; then
        wget -q --tries=1 --timeout=10 -O "$2" "$1"
    else
        say "neither curl nor wget is here to download with"
        return 1
    fi
}

sha256() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1; }

download() { # URL FILE SHA-256
    say "downloading $1"
    fetch "$1" "$work/$2" || return
    [ "$(sha256 "$work/$2")" = "$3" ] || { say "that is not the file with the SHA-256 $3: not used"; return 1; }
}

release() { # REPOSITORY TAG FILE SHA-256
    [ -n "$4" ] && [ -n "$github" ] || return
    download "$github/$1/releases/download/$2/$3" "$3" "$4" && return
    [ -f "$work/$3" ] || github= # out of reach: no second attempt
    return 1
}

unpack_zip() { # FILE DIRECTORY
    if have unzip; then unzip -q -o "$1" -d "$2"; else python3 -m zipfile -e "$1" "$2"; fi
}

# The sum is the one that the release itself publishes, over https: it detects a broken download, and a forged one only
# where the forger does not control that site too. Put a line into sha256_of when you know the sum from elsewhere.
etcd_from_release() { # VERSION DIRECTORY
    local os arch
    case $(uname -s) in Linux) os=linux ;; *) return 1 ;; esac
    case $(uname -m) in x86_64) arch=amd64 ;; aarch64 | arm64) arch=arm64 ;; *) return 1 ;; esac
    local name=etcd-v$1-$os-$arch sum
    sum=$(sha256_of "$name.tar.gz" || published_sum "$1" "$name.tar.gz") || { github=; return 1; }
    release etcd-io/etcd "v$1" "$name.tar.gz" "$sum" || return
    tar -xzf "$work/$name.tar.gz" -C "$work"
    install_etcd "$work/$name" "$2"
}

published_sum() { # VERSION FILE
    [ -n "$github" ] && fetch "$github/etcd-io/etcd/releases/download/v$1/SHA256SUMS" "$work/SHA256SUMS" || return
    awk -v file="$2" '$2 == file { print $1; found = 1 } END { exit !found }' "$work/SHA256SUMS"
}

# Only if it runs here: a package of another release of Debian may need a newer libc.
install_etcd() { # FROM DIRECTORY
    [ -n "$(version_of_etcd "$1/etcd")" ] || { say "this etcd does not run here: not used"; return 1; }
    mkdir -p "$2"
    install -m 755 "$1/etcd" "$1/etcdctl" "$2"
}

# protoc looks for its .proto files in ../include, seen from itself: on the PATH it needs no further setting.
protoc_from_release() {
    local os arch
    case $(uname -s) in Linux) os=linux ;; Darwin) os=osx ;; *) return 1 ;; esac
    case $(uname -m) in x86_64) arch=x86_64 ;; aarch64 | arm64) arch=aarch_64 ;; *) return 1 ;; esac
    have unzip || have python3 || { say "neither unzip nor python3 is here to unpack protoc's release with"; return 1; }
    local name=protoc-$protoc_version-$os-$arch
    release protocolbuffers/protobuf "v$protoc_version" "$name.zip" "$(sha256_of "$name.zip")" || return
    unpack_zip "$work/$name.zip" "$work/protoc"
    mkdir -p "$tools/bin" "$tools/include"
    cp -R "$work/protoc/include/." "$tools/include"
    install -m 755 "$work/protoc/bin/protoc" "$tools/bin/protoc"
}

consul_from_release() {
    local os arch
    case $(uname -s) in Linux) os=linux ;; Darwin) os=darwin ;; *) return 1 ;; esac
    case $(uname -m) in x86_64) arch=amd64 ;; aarch64 | arm64) arch=arm64 ;; *) return 1 ;; esac
    have unzip || have python3 || { say "neither unzip nor python3 is here to unpack Consul's release with"; return 1; }
    local name=consul_${consul_version}_${os}_$arch.zip
    download "https://releases.hashicorp.com/consul/$consul_version/$name" "$name" "$(sha256_of "$name")" || return
    unpack_zip "$work/$name" "$work/consul"
    mkdir -p "$tools/bin"
    install -m 755 "$work/consul/consul" "$tools/bin/consul"
}

# --- packages ---

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        say "that needs root, and sudo without a password is not allowed here"
        return 1
    fi
}

apt_install() { # PACKAGE...
    have apt-get || return
    say "installing the packages $* with apt-get"
    as_root apt-get -qq update && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$@" >/dev/null
}

apt_download() { (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$@"); }

# Unpacked, not installed: that needs no root, and installing would start an etcd service on port 2379.
etcd_from_packages() { # DIRECTORY [DEBIAN-RELEASE]: without one, this system's own packages
    have apt-get || return
    say "downloading the packages etcd-server and etcd-client${2:+ of Debian $2} with apt-get"
    if [ -n "${2:-}" ]; then
        apt_download_from "$2" etcd-server etcd-client || return
    else
        apt_download etcd-server etcd-client 2>/dev/null ||
            { as_root apt-get -qq update && apt_download etcd-server etcd-client; } || return
    fi
    local package unpacked=$work/etcd-${2:-packages}
    for package in "$work"/etcd-*.deb; do dpkg -x "$package" "$unpacked"; done
    rm "$work"/etcd-*.deb
    install_etcd "$unpacked/usr/bin" "$1"
}

# The checker of Prometheus, without the server that the package would start.
promtool_from_packages() {
    have apt-get || return
    say "downloading the package prometheus with apt-get"
    apt_download prometheus 2>/dev/null || { as_root apt-get -qq update && apt_download prometheus; } || return
    dpkg -x "$work"/prometheus_*.deb "$work/prometheus"
    install -D -m 755 -t "$tools/bin" "$work/prometheus/usr/bin/promtool"
}

# Debian's releases after bullseye have no Consul. Bullseye's runs on them; it comes from where this machine gets its
# packages, with lists of its own, so that the system's stay as they are.
consul_from_packages() {
    have apt-get || return
    say "downloading the package consul with apt-get"
    apt_download consul 2>/dev/null || { as_root apt-get -qq update && apt_download consul 2>/dev/null; } ||
        apt_download_from bullseye consul || return
    dpkg -x "$work"/consul_*.deb "$work/consul"
    install -D -m 755 -t "$tools/bin" "$work/consul/usr/bin/consul"
}

apt_download_from() { # RELEASE PACKAGE...
    local release=$1 lists=$work/apt-$1 mirror
    shift
    # shellcheck disable=SC2016 # apt fills these in
    mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' | sed -n '/^Debian|Debian|/{s///p;q;}')
    [ -n "$mirror" ] || { say "this system knows no mirror of Debian"; return 1; }
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$lists/sources.list"
    local options=(-qq -o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root
        -o Acquire::Languages=none)
    apt-get "${options[@]}" update && (cd "$work" && apt-get "${options[@]}" download "$@")
}

# ZooKeeper is five libraries for Java: unpacked, with a command that starts it. Debian trixie has 3.9, and it runs on the
# Java of older releases.
zookeeper_from_packages() {
    local packages=(libzookeeper-java libslf4j-java libdropwizard-metrics-java libsnappy-java)
    have apt-get || return
    say "downloading the packages ${packages[*]} with apt-get"
    apt_download_from trixie "${packages[@]}" || apt_download "${packages[@]}" 2>/dev/null ||
        { as_root apt-get -qq update && apt_download "${packages[@]}"; } || return
    local package name
    for package in "${packages[@]}"; do dpkg -x "$work/$package"_*.deb "$work/zookeeper"; done
    rm -rf "$tools/zookeeper"
    mkdir -p "$tools/zookeeper" "$tools/bin"
    for name in zookeeper zookeeper-jute slf4j-api slf4j-simple metrics-core snappy-java; do
        cp "$(readlink -f "$work/zookeeper/usr/share/java/$name.jar")" "$tools/zookeeper"
    done
    cat >"$tools/bin/zookeeper" <<'RUN'
#!/bin/sh
# ZooKeeper in the foreground: zookeeper FILE. Small and soon there: what it has to hold are a few nodes.
exec java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$(dirname "$0")/../zookeeper/*" org.apache.zookeeper.server.quorum.QuorumPeerMain "$@"
RUN
    chmod 755 "$tools/bin/zookeeper"
}

# --- one line for each ---

provide_protoc() {
    if protoc_works; then say "protoc: found"; return; fi
    [ -z "${PROTOC:-}${PROTOC_INCLUDE:-}" ] || fail "PROTOC=${PROTOC:-} PROTOC_INCLUDE=${PROTOC_INCLUDE:-} do not work: unset them"
    protoc_from_release || apt_install protobuf-compiler libprotobuf-dev || true
    protoc_works || fail "protoc with its standard .proto files is missing and could not be installed. Install it:" \
        "  Debian, Ubuntu   sudo apt-get install protobuf-compiler libprotobuf-dev" \
        "  Fedora           sudo dnf install protobuf-compiler protobuf-devel" \
        "  macOS            brew install protobuf" \
        "or unpack a release of github.com/protocolbuffers/protobuf into $tools"
    say "protoc: installed"
}

# For the demo any etcd will do that works; the tests want the version that users get, or a newer one.
provide_etcd() {
    local wanted=3.4
    [ -z "$all" ] || wanted=$etcd_version
    if etcd_works && at_least "$wanted" "$(version_of_etcd etcd)"; then
        say "etcd: found, $(version_of_etcd etcd)"
        return
    fi
    etcd_from_release "$etcd_version" "$tools/bin" || etcd_from_packages "$tools/bin" sid ||
        etcd_works || etcd_from_packages "$tools/bin" || true
    etcd_works || fail "etcd and etcdctl, 3.4 or newer, are missing and could not be installed. Install them:" \
        "  Debian, Ubuntu   sudo apt-get install etcd-server etcd-client" \
        "  Fedora           sudo dnf install etcd" \
        "  macOS            brew install etcd" \
        "or put both programs of a release of github.com/etcd-io/etcd into $tools/bin"
    say "etcd: installed, $(version_of_etcd etcd); docker-compose.yml has $etcd_version"
}

# The tests need it beside the other one, and are complete without it on systems where it cannot be had.
provide_oldest_etcd() {
    local directory=$tools/etcd-oldest
    if [ -n "$(version_of_etcd "$directory/etcd")" ]; then
        say "the oldest etcd that is supported: found, $(version_of_etcd "$directory/etcd")"
        return
    fi
    etcd_from_release "$oldest_etcd_version" "$directory" || etcd_from_packages "$directory" bookworm ||
        { say "the oldest etcd that is supported, $oldest_etcd_version, could not be had: not tested"; return; }
    say "the oldest etcd that is supported: installed, $(version_of_etcd "$directory/etcd")"
}

provide_consul() {
    if have consul; then say "consul: found, $(known version_of_consul)"; return; fi
    consul_from_release || consul_from_packages || true
    have consul || fail "consul is missing and could not be installed: put the program of a release of Consul into $tools/bin" \
        "  https://developer.hashicorp.com/consul/install"
    say "consul: installed, $(known version_of_consul)"
}

zookeeper_works() {
    have zookeeper && have java || return
    [ -z "$all" ] || [ "$(command -v zookeeper)" != "$tools/bin/zookeeper" ] ||
        at_least "$zookeeper_version" "$(version_of_zookeeper)"
}

provide_zookeeper() {
    if zookeeper_works; then say "zookeeper: found, $(known version_of_zookeeper)"; return; fi
    have java || apt_install --no-install-recommends default-jre-headless || fail "java is missing and could not be installed"
    zookeeper_works || zookeeper_from_packages || true
    have zookeeper || fail "ZooKeeper is missing and could not be installed from packages: put a command 'zookeeper FILE'," \
        "which runs a release of https://zookeeper.apache.org in the foreground with that configuration, into $tools/bin"
    say "zookeeper: installed, $(known version_of_zookeeper)"
}

provide_shellcheck() {
    if have shellcheck; then say "shellcheck: found"; return; fi
    apt_install shellcheck || fail "shellcheck is missing and could not be installed: see https://www.shellcheck.net"
    say "shellcheck: installed"
}

provide_promtool() {
    if have promtool; then say "promtool: found"; return; fi
    promtool_from_packages || true
    have promtool || fail "promtool is missing and could not be installed. Put that of a release of" \
        "github.com/prometheus/prometheus into $tools/bin"
    say "promtool: installed"
}

# NAME VERSION-HERE VERSION-OF-COMPOSE, a line each.
versions() {
    echo "etcd $(known version_of_etcd etcd) $etcd_version"
    local oldest=$tools/etcd-oldest/etcd
    [ ! -x "$oldest" ] || echo "etcd-oldest $(known version_of_etcd "$oldest") $oldest_etcd_version"
    echo "consul $(known version_of_consul) $consul_version"
    echo "zookeeper $(known version_of_zookeeper) $zookeeper_version"
}

all=''
wanted=(protoc etcd)
for argument in "$@"; do
    case $argument in
    --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit ;;
    --versions) versions; exit ;;
    --all) all=yes; wanted+=(oldest_etcd consul zookeeper shellcheck promtool) ;;
    etcd | consul | zookeeper) wanted+=("$argument") ;;
    *) printf 'setup: unknown argument %s; see --help\n' "$argument" >&2; exit 2 ;;
    esac
done

have cargo || fail "cargo is missing. Install Rust first: https://rustup.rs"
for what in "${wanted[@]}"; do "provide_$what"; done

if [ -d "$tools/bin" ]; then
    say "the scripts find $tools/bin by themselves; for your own shell: export PATH=\"$tools/bin:\$PATH\""
fi
