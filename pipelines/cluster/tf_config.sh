# Sourced by each worker: sets TF_CONFIG from
#   WORKER         the number of this worker, 0 being the chief
#   WORKERS        how many there are
#   HOST_PATTERN   the address of one, its number written as %d, such as train-%d.train
#   PORT           on which all of them listen
# or, instead of WORKERS and HOST_PATTERN, HOSTS: the addresses, separated by spaces.
if [ -z "${HOSTS:-}" ]; then
    HOSTS=
    number=0
    while [ "$number" -lt "$WORKERS" ]; do
        # shellcheck disable=SC2059  # the pattern is the format
        HOSTS="$HOSTS $(printf "$HOST_PATTERN" "$number")"
        number=$((number + 1))
    done
fi
list=
for host in $HOSTS; do
    list="${list:+$list, }\"$host:$PORT\""
done
TF_CONFIG="{\"cluster\": {\"worker\": [$list]}, \"task\": {\"type\": \"worker\", \"index\": $WORKER}}"
export TF_CONFIG
