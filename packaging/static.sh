#!/usr/bin/env bash
# Builds metalbond as one static file, proves that it needs nothing else by running it in an empty
# root folder, and prints its path and size. Fails above 4 MB.
#
#   packaging/static.sh [musl|debian|glibc]
#
# musl    the musl target of the Rust toolchain (rustup target add x86_64-unknown-linux-musl)
# debian  the same target, its standard library built from Debian's rustc-web and rust-web-src
# glibc   a static glibc; host names are then looked up by what glibc finds at run time
#
# Without an argument, the first of them that this machine can do. The first two need musl-gcc
# (Debian: musl-tools).
set -euo pipefail
cd "$(dirname "$0")/.."

limit=4000000
target_dir=${CARGO_TARGET_DIR:-target}
flags=(--bin metalbond --profile dist --locked)
musl=$(uname -m)-unknown-linux-musl
gnu=$(uname -m)-unknown-linux-gnu

# The folder in which the standard library of a target is, if it is installed.
has_target() { [[ -d $(rustc --print sysroot)/lib/rustlib/$1/lib ]]; }
has_debian() { [[ -x /usr/bin/rustc && -d /usr/src/rustc-$(/usr/bin/rustc --version | cut -d' ' -f2)/library ]]; }

if (($# > 0)); then
    way=$1
elif ! command -v musl-gcc >/dev/null; then
    way=glibc
elif has_target "$musl"; then
    way=musl
elif has_debian; then
    way=debian
else
    way=glibc
fi

export "CC_${musl//-/_}=musl-gcc"
case $way in
    musl)
        target=$musl
        rustflags="-C target-feature=+crt-static -C link-arg=-lgcc"
        flags+=(--features mimalloc)
        ;;
    debian)
        target=$musl
        export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
        export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=musl-gcc
        unwind=$(dirname "$(find /usr/lib -name libunwind.a -path '*llvm*' | head -n 1)")
        rustflags="-C target-feature=+crt-static -C link-self-contained=no -C relocation-model=static"
        rustflags+=" -L native=$unwind -C link-arg=-lgcc"
        flags+=(--features mimalloc -Z build-std=std,panic_abort)
        ;;
    glibc)
        target=$gnu
        rustflags="-C target-feature=+crt-static"
        ;;
    *)
        echo "static.sh: $way: expected musl, debian or glibc" >&2
        exit 2
        ;;
esac
export "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_RUSTFLAGS=$rustflags"

cargo=cargo
# The rustup proxy would set aside RUSTC.
[[ $way == debian ]] && command -v rustup >/dev/null && cargo=$(rustup which cargo)
"$cargo" build "${flags[@]}" --target "$target" >&2

mkdir -p "$target_dir/static"
binary=$target_dir/static/metalbond
install -m 755 "$target_dir/$target/dist/metalbond" "$binary"

# No interpreter, no library, no file at all beside it.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
install -m 755 "$binary" "$root/metalbond"
if ((EUID == 0)); then
    chroot "$root" /metalbond --version >&2
    chroot "$root" /metalbond demo >/dev/null
else
    unshare --user --map-root-user chroot "$root" /metalbond --version >&2
fi

size=$(stat -c %s "$binary")
echo "$binary: $size bytes, static ($way)"
if ((size > limit)); then
    echo "static.sh: $size bytes are more than $limit" >&2
    exit 1
fi
