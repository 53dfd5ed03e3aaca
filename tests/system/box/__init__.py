"""A whole machine for the package: real systemd, rpm and Python of Fedora's versions, booted where this runs.

`make test-system` builds the RPM inside, installs, uses, breaks, upgrades and removes it; `make rpm` only builds.
"""
