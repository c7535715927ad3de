#!/bin/sh
# Writes the secrets that are not there yet to secrets/, random ones. Run it again as you like.
# The folder is for its owner alone; the files in it are readable, since containers read them as
# users that this machine does not know.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
write() { # name, content
    [ -e "secrets/$1" ] || printf '%s' "$2" > "secrets/$1"
}
write postgres_password "$(random)"
write redis_password "$(random)"
write redis_url "redis://:$(cat secrets/redis_password)@redis:6379/0"
write prefect_auth "admin:$(random)"
write s3_access_key "$(random)"
write s3_secret_key "$(random)"
write s3_setup_access_key "$(random)"
write s3_setup_secret_key "$(random)"
identity() { # name, file of the key, actions
    printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}' \
        "$1" "$(cat "secrets/$2_access_key")" "$(cat "secrets/$2_secret_key")" "$3"
}
# Written anew from the keys each time. Only the key that makes the bucket is one of an admin.
rm -f secrets/s3_identities.json
write s3_identities.json "{\"identities\": [$(identity setup s3_setup '"Admin"'), \
$(identity safelight s3 '"Read", "Write", "List", "Tagging"')]}"
write pip.conf ""
chmod 0444 secrets/*
