# shellcheck shell=bash
# The folder of fuzz targets is a workspace of its own. Sourced from the root of the
# checkout by scripts that build it.

# fuzz_lock: what is fuzzed is what is shipped, the same versions of everything.
fuzz_lock() {
    if [[ ! Cargo.lock -ot fuzz/Cargo.lock ]]; then
        cp Cargo.lock fuzz/Cargo.lock
    fi
}
