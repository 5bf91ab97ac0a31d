#!/bin/sh
# One trial, with what every POSIX system has. The agreement is four files, named by the environment:
#   SURVEY_PARAMS    read: {"x": 1.5, "y": -2.0, "noise": "none"}
#   SURVEY_PROGRESS  append, a line per step: {"step": 1, "value": 12.5}
#   SURVEY_STOP      look: if it exists, end soon
#   SURVEY_RESULT    write, whole, at the end: {"metrics": {"height": 3.25}}
# By hand: SURVEY_PARAMS=params.json sh trial.sh
set -eu
: "${SURVEY_PARAMS:?names the file of parameters}"
result=${SURVEY_RESULT:-result.json}
progress=${SURVEY_PROGRESS:-/dev/null}

# The value of a flat JSON object's key, without its quotes; nothing where there is no such key.
param() {
    tr -d '\n' <"$SURVEY_PARAMS" | sed -n 's/.*"'"$1"'"[[:space:]]*:[[:space:]]*"\{0,1\}\([^",}[:space:]]*\).*/\1/p'
}

x=$(param x)
y=$(param y)
case $(param noise) in
some) amplitude=$(param amplitude) ;;
*) amplitude=0 ;;
esac

step=1
while [ "$step" -le 3 ]; do
    height=$(awk -v x="$x" -v y="$y" -v a="$amplitude" -v n="$step" -v seed="${SURVEY_SEED:-0}" 'BEGIN {
        srand(seed + n)
        printf "%.9g", (x * x + y - 11) ^ 2 + (x + y * y - 7) ^ 2 + a * rand()
    }')
    printf '{"step": %d, "value": %s}\n' "$step" "$height" >>"$progress"
    if [ -n "${SURVEY_STOP:-}" ] && [ -e "$SURVEY_STOP" ]; then
        break
    fi
    step=$((step + 1))
done

# By rename: whoever looks finds a whole file or none.
printf '{"metrics": {"height": %s}}\n' "$height" >"$result.tmp"
mv "$result.tmp" "$result"
