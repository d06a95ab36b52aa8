# shellcheck shell=bash
# Runs stages one after the other: quietly, with a sign of life, and with a deadline.
# Sourced by scripts/check and scripts/test.

stage_folder=$(mktemp -d)
stage_pid=

# stage_end: whatever still runs is ended, and the logs go.
stage_end() {
    if [[ -n $stage_pid ]]; then
        kill -TERM "$stage_pid" 2>/dev/null || true
        wait "$stage_pid" 2>/dev/null || true
    fi
    rm -rf -- "$stage_folder"
}
trap stage_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# stage_log NAME: where the output of a stage is.
stage_log() {
    printf '%s/%s.log' "$stage_folder" "$1"
}

# stage NAME MINUTES COMMAND...: runs the command, its output going to the stage's log.
# Returns what the command returned; 124 after the deadline.
stage() {
    local name=$1 minutes=$2 log status=0 start=$SECONDS sign=30
    shift 2
    log=$(stage_log "$name")
    printf '      %s ...\n' "$name"
    timeout --kill-after=20 "${minutes}m" "$@" >"$log" 2>&1 </dev/null &
    stage_pid=$!
    while kill -0 "$stage_pid" 2>/dev/null; do
        if ((SECONDS - start >= sign)); then
            printf '      %s: %d s, %s\n' "$name" $((SECONDS - start)) \
                "$(tail -n 1 "$log" | tr -d '\r' | cut -c 1-90)"
            sign=$((sign + 30))
        fi
        sleep 0.2
    done
    wait "$stage_pid" || status=$?
    stage_pid=
    case $status in
        0) printf 'ok    %s (%d s)\n' "$name" $((SECONDS - start)) ;;
        124) printf 'FAIL  %s: not done after %d minutes\n' "$name" "$minutes" ;;
        *) printf 'FAIL  %s (%d s, exit code %d)\n' "$name" $((SECONDS - start)) "$status" ;;
    esac
    return "$status"
}

# stage_show NAME: the output of a failed stage, without what went well.
stage_show() {
    printf -- '----- %s\n' "$1"
    grep -vE '^(test .* \.\.\. ok$|PASS |running [0-9]+ tests?$| +(Compiling|Checking|Running|Doc-tests|Documenting) |$)' \
        "$(stage_log "$1")" || true
    printf -- '-----\n'
}
