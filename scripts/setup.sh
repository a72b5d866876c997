#!/usr/bin/env bash
# Installs what is missing beside Rust: protoc with its standard .proto files (the build of etcd-client runs it),
# etcd and etcdctl. A second run finds everything and changes nothing.
#
#   scripts/setup.sh              what the build and the demo need
#   scripts/setup.sh consul       Consul too; `zookeeper` is ZooKeeper, with Java where there is none
#   scripts/setup.sh --all        all that the tests need: both of them, shellcheck and promtool
#
# Official releases, checked by SHA-256, go to .tools/ in this repository: no root, nothing else is touched. Where they
# cannot be had, Debian's and Ubuntu's packages take their place; ZooKeeper is one. For a mirror of GitHub:
#
#   GITHUB_MIRROR=https://mirror.example/https://github.com scripts/setup.sh
set -euo pipefail
set +h # what is installed here is found at once, also where an older one stood in for it

etcd_version=3.5.27
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

# --- what is there ---

# A program alone is not enough: Debian has the standard .proto files in a package of their own.
protoc_works() {
    local protoc=${PROTOC:-protoc}
    have "$protoc" || return
    printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto";\n' >"$work/probe.proto"
    "$protoc" ${PROTOC_INCLUDE:+"-I$PROTOC_INCLUDE"} "-I$work" -o /dev/null "$work/probe.proto" 2>/dev/null
}

# 3.4 is the first etcd whose watches can send a large change in fragments.
etcd_works() {
    have etcd && have etcdctl || return
    printf '3.4\n%s\n' "$(etcd --version | sed -n 's/^etcd Version: //p')" | sort -V -C
}

# --- official releases ---

# The sums of the releases named above; a platform without a line gets its packages.
sha256_of() {
    case $1 in
    etcd-v3.5.27-linux-amd64.tar.gz) echo 0aad9a9e4e0817a021e933f9806a2b2960a62f949ad5a3d6436d8886945cb1bc ;;
    etcd-v3.5.27-linux-arm64.tar.gz) echo 1277309f540c5a0329c428f95455c9f76d24f768c8d28fd2753e891c379053fa ;;
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

download() { # URL FILE
    local sum
    sum=$(sha256_of "$2") || return
    say "downloading $1"
    fetch "$1" "$work/$2" || return
    [ "$(sha256 "$work/$2")" = "$sum" ] || { say "that is not the file with the SHA-256 $sum: not used"; return 1; }
}

release() { # REPOSITORY TAG FILE
    sha256_of "$3" >/dev/null && [ -n "$github" ] || return
    download "$github/$1/releases/download/$2/$3" "$3" && return
    [ -f "$work/$3" ] || github= # out of reach: it is not asked again
    return 1
}

unpack_zip() { # FILE DIRECTORY
    if have unzip; then unzip -q -o "$1" -d "$2"; else python3 -m zipfile -e "$1" "$2"; fi
}

etcd_from_release() {
    local os arch
    case $(uname -s) in Linux) os=linux ;; *) return 1 ;; esac
    case $(uname -m) in x86_64) arch=amd64 ;; aarch64 | arm64) arch=arm64 ;; *) return 1 ;; esac
    local name=etcd-v$etcd_version-$os-$arch
    release etcd-io/etcd "v$etcd_version" "$name.tar.gz" || return
    tar -xzf "$work/$name.tar.gz" -C "$work"
    install -D -m 755 -t "$tools/bin" "$work/$name/etcd" "$work/$name/etcdctl"
}

# protoc looks for its .proto files in ../include, seen from itself: on the PATH it needs no further setting.
protoc_from_release() {
    local os arch
    case $(uname -s) in Linux) os=linux ;; Darwin) os=osx ;; *) return 1 ;; esac
    case $(uname -m) in x86_64) arch=x86_64 ;; aarch64 | arm64) arch=aarch_64 ;; *) return 1 ;; esac
    have unzip || have python3 || { say "neither unzip nor python3 is here to unpack protoc's release with"; return 1; }
    local name=protoc-$protoc_version-$os-$arch
    release protocolbuffers/protobuf "v$protoc_version" "$name.zip" || return
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
    download "https://releases.hashicorp.com/consul/$consul_version/$name" "$name" || return
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
etcd_from_packages() {
    have apt-get || return
    say "downloading the packages etcd-server and etcd-client with apt-get"
    apt_download etcd-server etcd-client 2>/dev/null ||
        { as_root apt-get -qq update && apt_download etcd-server etcd-client; } || return
    local package
    for package in "$work"/etcd-*.deb; do dpkg -x "$package" "$work/etcd"; done
    install -D -m 755 -t "$tools/bin" "$work"/etcd/usr/bin/{etcd,etcdctl}
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
        -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update && (cd "$work" && apt-get "${options[@]}" download "$@")
}

# ZooKeeper is five libraries for Java: unpacked, with a command that starts it.
zookeeper_from_packages() {
    local packages=(libzookeeper-java libslf4j-java libdropwizard-metrics-java libsnappy-java)
    have apt-get || return
    say "downloading the packages ${packages[*]} with apt-get"
    apt_download "${packages[@]}" 2>/dev/null ||
        { as_root apt-get -qq update && apt_download "${packages[@]}"; } || return
    local package
    for package in "${packages[@]}"; do dpkg -x "$work/$package"_*.deb "$work/zookeeper"; done
    mkdir -p "$tools/zookeeper" "$tools/bin"
    cp -L "$work"/zookeeper/usr/share/java/{zookeeper,zookeeper-jute,slf4j-api,slf4j-simple,metrics-core,snappy-java}.jar \
        "$tools/zookeeper"
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

provide_etcd() {
    if etcd_works; then say "etcd: found"; return; fi
    etcd_from_release || etcd_from_packages || true
    etcd_works || fail "etcd and etcdctl, 3.4 or newer, are missing and could not be installed. Install them:" \
        "  Debian, Ubuntu   sudo apt-get install etcd-server etcd-client" \
        "  Fedora           sudo dnf install etcd" \
        "  macOS            brew install etcd" \
        "or put both programs of a release of github.com/etcd-io/etcd into $tools/bin"
    say "etcd: installed"
}

provide_consul() {
    if have consul; then say "consul: found"; return; fi
    consul_from_release || consul_from_packages || true
    have consul || fail "consul is missing and could not be installed: put the program of a release of Consul into $tools/bin" \
        "  https://developer.hashicorp.com/consul/install"
    say "consul: installed"
}

provide_zookeeper() {
    if have zookeeper && have java; then say "zookeeper: found"; return; fi
    have java || apt_install --no-install-recommends default-jre-headless || fail "java is missing and could not be installed"
    have zookeeper || zookeeper_from_packages || true
    have zookeeper || fail "ZooKeeper is missing and could not be installed from packages: put a command 'zookeeper FILE'," \
        "which runs a release of https://zookeeper.apache.org in the foreground with that configuration, into $tools/bin"
    say "zookeeper: installed"
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

wanted=(protoc etcd)
for argument in "$@"; do
    case $argument in
    --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit ;;
    --all) wanted+=(consul zookeeper shellcheck promtool) ;;
    etcd | consul | zookeeper) wanted+=("$argument") ;;
    *) printf 'setup: unknown argument %s; see --help\n' "$argument" >&2; exit 2 ;;
    esac
done

have cargo || fail "cargo is missing. Install Rust first: https://rustup.rs"
for what in "${wanted[@]}"; do "provide_$what"; done

if [ -d "$tools/bin" ]; then
    say "the scripts find $tools/bin by themselves; for your own shell: export PATH=\"$tools/bin:\$PATH\""
fi
