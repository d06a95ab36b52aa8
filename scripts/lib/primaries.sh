# shellcheck shell=bash
# The suite on clusters made here, one run after the other: what these need, what came of each,
# and the sum. Sourced by scripts/conformance and scripts/witness, after places.sh and tally.sh.

binaries='' archive=''
passed=0 failed=0 skipped=0 found=()

# tools_for PRIMARY...: what clusters with these CNIs are made of, as groups of
# scripts/cluster-tools, one a line.
tools_for() {
    local primary
    printf '%s\n' kubernetes plugins helm coredns
    for primary; do
        case $primary in
            flannel) printf 'flannel\nflannel-plugin\n' ;;
            calico*) printf 'calico\n' ;;
            cilium*) printf 'cilium\n' ;;
        esac
    done | sort -u
}

# prepare GROUP...: builds the clusters' programs and ours, and sets the folder of ours, `binaries`,
# and where their image belongs, `archive`.
prepare() {
    SLUICE_CLUSTER_TOOLS=$(scripts/cluster-tools "$@" | tail -n 1)
    export SLUICE_CLUSTER_TOOLS
    cargo build --locked --quiet --workspace
    binaries=$(target_folder)/debug
    archive=$binaries/sluice-image.tar
}

# judge NAME PLACE OPTION...: a run of the suite on a cluster of its own. PLACE is what its results
# are called, but for their endings. It may fail without keeping the next from being judged.
judge() {
    local name=$1 place=$2 counts p=0 f=1 s=0
    shift 2
    # What is found is of this run, or it is not found.
    rm -f -- "$place.json"
    "$binaries/conformance" run --image-archive "$archive" --restarts \
        --evidence "$place-evidence" --report "json=$place.json" "$@" 2>&1 |
        tee "$place.log" || true
    if counts=$(tally_closing "$place.log"); then
        read -r p f s _ <<<"$counts"
    else
        printf '%s: %s ended before it could count\n' "${0##*/}" "$name"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [[ -e $place.json ]]; then
        found+=("$place.json")
    fi
}

# record WHAT FILE OPTION...: renders what the runs have found, if anything, between the lines of the
# file that say so.
record() {
    local what=$1 file=$2
    shift 2
    if ((${#found[@]} > 0)); then
        "$binaries/conformance" "$what" "${found[@]}" --into "$file" "$@"
    fi
}

# sum_up: the closing line. Fails when anything failed, or nothing passed.
sum_up() {
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    ((failed == 0 && passed > 0))
}
