#!/bin/sh
# The service image's roles: setup, web, worker, scheduler. Anything else is run as it is.
set -eu
export DJANGO_SETTINGS_MODULE=ciserver.settings
cd /srv/gantry

as_gantry() {
    exec setpriv --reuid gantry --regid gantry --init-groups --no-new-privs "$@"
}

until_it_works() { # until_it_works COMMAND...: the others are still on their way up
    for _ in $(seq 120); do
        "$@" >/dev/null 2>&1 && return
        sleep 1
    done
    "$@"
}

case ${1:-} in
    web | worker | scheduler) until_it_works python manage.py migrate --check ;;
esac

case ${1:-} in
    setup) # once: folders, keys, tables, static files; the others wait for it
        python -m ciserver.ops prepare
        until_it_works python -c 'import django; django.setup()
from django.db import connection; connection.ensure_connection()'
        (as_gantry python manage.py migrate --no-input)
        as_gantry python manage.py collectstatic --no-input
        ;;
    web)
        export GANTRY_BIND="${GANTRY_BIND:-0.0.0.0}"
        as_gantry python -m ciserver.serve
        ;;
    worker)
        # What './gantry up' has as its watcher: what people ask of deployed containers.
        (while :; do python manage.py watch || true; sleep 1; done) &
        exec python -m celery -A ciserver.celery worker \
            -Q default,planning,deployments,chores --pool prefork \
            --concurrency "${GANTRY_WORKER_CONCURRENCY:-2}" --loglevel INFO \
            --without-gossip --without-mingle
        ;;
    scheduler)
        as_gantry python manage.py tick
        ;;
    *)
        exec "$@"
        ;;
esac
