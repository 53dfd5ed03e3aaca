#!/bin/bash
# build.sh SOURCES OUT [rpmbuild arguments]: build the packages from what sources.sh has made.
# The same sources give the same packages: times and the builder's name are taken from the changelog, not the machine.
set -eu
sources=$(realpath "$1") out=$(realpath -m "$2")
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rpmbuild -ba "$@" \
    --define "_topdir $work" --define "_sourcedir $sources" \
    --define "source_date_epoch_from_changelog 1" --define "use_source_date_epoch_as_buildtime 1" \
    --define "build_mtime_policy clamp_to_source_date_epoch" --define "_buildhost reproducible" \
    "$sources/hyperllama.spec"
mkdir -p "$out"
find "$work/RPMS" "$work/SRPMS" -name '*.rpm' -exec cp -t "$out" {} +
