#!/bin/sh
# Debian's PostgreSQL with the official image's settings: POSTGRES_USER, _PASSWORD and _DB.
set -eu
data=/var/lib/postgresql/data
for bin in /usr/lib/postgresql/*/bin; do :; done # the newest
mkdir -p "$data" /run/postgresql
chown postgres "$data" /run/postgresql
chmod 700 "$data"

as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

if [ ! -s "$data/PG_VERSION" ]; then
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
    chown postgres "$password"
    as_postgres "$bin/initdb" -D "$data" -U "$POSTGRES_USER" --pwfile "$password" \
        --auth-local trust --auth-host scram-sha-256 -E UTF8 >/dev/null
    rm -f "$password"
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    as_postgres "$bin/postgres" --single -D "$data" postgres >/dev/null <<SQL
CREATE DATABASE "$POSTGRES_DB";
SQL
fi
exec setpriv --reuid postgres --regid postgres --init-groups \
    "$bin/postgres" -D "$data" -c listen_addresses='*'
