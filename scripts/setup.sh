#!/usr/bin/env bash
# Installs what is missing beside Rust: protoc with its standard .proto files (the build of etcd-client runs it),
# etcd and etcdctl. A second run finds everything and changes nothing.
#
#   scripts/setup.sh          what the build, the demo and the tests need
#   scripts/setup.sh --all    shellcheck and promtool too, which scripts/test.sh uses where they are there
#
# Official releases from GitHub, checked by SHA-256, go to .tools/ in this repository: no root, nothing else is touched.
# Where they cannot be had, Debian's and Ubuntu's packages take their place. For a mirror of GitHub:
#
#   GITHUB_MIRROR=https://mirror.example/https://github.com scripts/setup.sh
set -euo pipefail
set +h # what is installed here is found at once, also where an older one stood in for it

etcd_version=3.5.27
protoc_version=31.1
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

release() { # REPOSITORY TAG FILE
    local sum url=$github/$1/releases/download/$2/$3
    sum=$(sha256_of "$3") && [ -n "$github" ] || return
    say "downloading $url"
    fetch "$url" "$work/$3" || { github=; return 1; } # out of reach: it is not asked again
    [ "$(sha256 "$work/$3")" = "$sum" ] || { say "that is not the file with the SHA-256 $sum: not used"; return 1; }
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

case ${1:-} in
--help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit ;;
'' | --all) ;;
*) printf 'setup: unknown argument %s: --all, --help or nothing\n' "$1" >&2; exit 2 ;;
esac

have cargo || fail "cargo is missing. Install Rust first: https://rustup.rs"
provide_protoc
provide_etcd
if [ "${1:-}" = --all ]; then
    provide_shellcheck
    provide_promtool
fi

if [ -d "$tools/bin" ]; then
    say "the scripts find $tools/bin by themselves; for your own shell: export PATH=\"$tools/bin:\$PATH\""
fi
