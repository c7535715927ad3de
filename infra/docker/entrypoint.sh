#!/bin/sh
# Reads secrets from files into the settings they are for: NAME_FILE=/run/secrets/x sets NAME.
# The value then is in this process alone, not in the container's configuration.
set -eu

for name in \
    PREFECT_API_AUTH_STRING \
    PREFECT_SERVER_API_AUTH_STRING \
    PREFECT_SERVER_DATABASE_PASSWORD \
    PREFECT_SERVER_DOCKET_URL \
    PREFECT_REDIS_MESSAGING_URL \
    PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL \
    SAFELIGHT_S3_ACCESS_KEY \
    SAFELIGHT_S3_SECRET_KEY
do
    eval "file=\${${name}_FILE:-}"
    [ -n "$file" ] || continue
    if [ ! -r "$file" ]; then
        echo "${name}_FILE names $file, which user $(id -u) cannot read." \
            "Fix: create the secret, readable for that user." >&2
        exit 78
    fi
    value=$(cat "$file")
    export "$name=$value"
    unset "${name}_FILE"
done

exec "$@"
