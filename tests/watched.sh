#!/usr/bin/env bash
# Runs a command and ends it if it prints nothing for a set time. The script then names the tests
# that were still running, and fails.
#
#   watched.sh COMMAND...
#
# A test prints a line when it ends, and one when it has run for 60 seconds, so the limit applies to
# the time in which no test ends. EVERFRESH_SILENCE sets the limit in seconds. Default: 600. The
# limit only ends a hang, so no test should come near it.
set -uo pipefail
limit=${EVERFRESH_SILENCE:-600}
log=$(mktemp)

# The tests that have begun and not ended, of the test binary that ran last. A test is known to have
# begun when it has run for 60 seconds, or from the start where tests run one at a time.
still_running() {
    awk '
        /^ *(Running|Doc-tests) / { split("", running) }
        /^test .* has been running for over [0-9]+ seconds$/ {
            sub(/^test /, ""); sub(/ has been running for over .*/, ""); running[$0]; next
        }
        /^test .* \.\.\. / {
            ended = !/ \.\.\. $/
            sub(/^test /, ""); sub(/( - should panic)? \.\.\. .*/, "")
            if (ended) delete running[$0]; else running[$0]
        }
        END { for (name in running) print "HANGS: " name }
    ' "$log"
}

# The command leads a process group, so that what it started ends with it.
set -m
"$@" >"$log" 2>&1 &
command=$!
set +m
trap 'kill -KILL -- "-$command" 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 130' INT TERM
tail --pid="$command" --sleep-interval=0.2 -n +1 -f "$log" &
printer=$!

while kill -0 "$command" 2>/dev/null; do
    sleep 0.2
    if [ $(($(date +%s) - $(stat -c %Y "$log"))) -gt "$limit" ]; then
        kill -KILL -- "-$command"
        wait "$command" "$printer" 2>/dev/null
        printf '\nnothing was printed for %s s by: %s\n' "$limit" "$*"
        still_running
        exit 124
    fi
done
wait "$command"
status=$?
wait "$printer"
exit "$status"
