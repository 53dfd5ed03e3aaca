#!/bin/bash
# sources.sh DIRECTORY PYTHON [VERSION]: the spec's sources, from the working tree, for that Python ("3.14").
# Needs git, and a Python with pip and `packaging` ($BUILD_PYTHON).  Downloads are kept in .cache/vendor-*.
set -eu
cd "$(dirname "$0")/../.."
out=$(realpath -m "$1") python=$2
stated=$(sed -n 's/^Version: *//p' packaging/rpm/hyperllama.spec) version=${3:-$stated}
mkdir -p "$out"

vendor=.cache/vendor-$python-$(cat requirements.lock tools/vendor.py | sha256sum | cut -c1-12)
if ! [ -e "$vendor/vendor" ]; then
    mkdir -p "$vendor" && rm -rf "$vendor/part"
    "${BUILD_PYTHON:-python3}" -m tools.vendor "$python" "$vendor/part"
    mv "$vendor/part" "$vendor/vendor"
fi
tar -C "$vendor" -czf "$out/hyperllama-$version-vendor.tar.gz" vendor

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -cf - 2>/dev/null |
    tar -C "$work/tree" -xf -
if [ "$version" != "$stated" ]; then   # an upgrade to try, not a release
    sed -i "s/^Version: .*/Version:        $version/" "$work/tree/packaging/rpm/hyperllama.spec"
    sed -i "s/\"$stated\"/\"$version\"/" "$work/tree/hyperllamactl/__init__.py"
fi
tar -C "$work/tree" --transform "s|^\.|hyperllama-$version|" -czf "$out/hyperllama-$version.tar.gz" .
cp "$work/tree/packaging/rpm/hyperllama.spec" "$work/tree/packaging/rpm/bundled.inc" "$out/"
