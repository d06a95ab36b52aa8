# shellcheck shell=bash
# Reads counts out of logs. Each function prints "PASSED FAILED SKIPPED NO_REASON", where
# NO_REASON is how many of the skipped ones do not say why.

# tally_cargo LOG: what `cargo test` ran, over all its test programs.
tally_cargo() {
    awk '
        /^test result: / {
            for (i = 2; i <= NF; i++) {
                if ($i == "passed;") passed += $(i - 1)
                if ($i == "failed;") failed += $(i - 1)
                if ($i == "ignored;") ignored += $(i - 1)
            }
        }
        /^test .* \.\.\. ignored$/ { silent += 1 }
        END { print passed + 0, failed + 0, ignored + 0, silent + 0 }
    ' "$1"
}

# tally_closing LOG: what a program of ours counted, which ends with the line
# "N passed, N failed, N skipped" and has a line "SKIP name: reason" or "– name: reason" for each
# skip. Fails when the last line is another: the program did not get to its end. What is not
# implemented is no pass, and counts as skipped.
tally_closing() {
    awk '
        /^(SKIP|–|○) [^:]+: *[^ ]/ { explained += 1 }
        NF { last = $0 }
        END {
            closing = "^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped(, [0-9]+ not implemented)?$"
            if (last !~ closing) exit 1
            split(last, word, " ")
            skipped = word[5] + word[7]
            silent = skipped - explained
            print word[1], word[3], skipped, (silent > 0 ? silent : 0)
        }
    ' "$1"
}

# tally_reasons LOG: the lines that say why something was skipped.
tally_reasons() {
    sed -nE 's/^test (.*) \.\.\. ignored, (.*)$/SKIP \1: \2/p;t;s/^(–|○) ([^:]+: *[^ ])/SKIP \2/p;t;/^SKIP [^:]+: *[^ ]/p' "$1"
}
