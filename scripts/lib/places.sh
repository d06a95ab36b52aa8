# shellcheck shell=bash
# Where things are. Sourced by scripts that run what cargo has built.

# Debian keeps nft, ip and conntrack where a shell opened with `su` does not look.
PATH=$PATH:/usr/sbin:/sbin

# target_folder: where cargo puts what it builds, whoever configured that.
target_folder() {
    cargo metadata --format-version 1 --no-deps |
        sed -nE 's/.*"target_directory":"([^"]+)".*/\1/p'
}
