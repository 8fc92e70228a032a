#!/bin/sh
# Brings compose.yaml up with images made on this machine, pushes a commit through it, and takes
# it down again. Needs root, podman and podman-compose (PyPI); pulls from no registry.
#
#   compose/try.sh [--keep]      --keep leaves it running
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=${GANTRY_TRY:-/var/tmp/gantry-try}
port=${GANTRY_TRY_PORT:-8600}
url=http://127.0.0.1:$port
python=$here/.venv/bin/python
base=debian:bookworm-slim

say() { printf '\n== %s\n' "$*"; }

engine_settings() { # of our own, so that nothing of the machine's own podman is touched
    mkdir -p "$work"
    {
        echo '[containers]'
        # Low ones: where CAP_SYS_RESOURCE is missing, podman's own defaults cannot be set.
        echo 'default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]'
        echo '[network]'
        echo 'network_backend = "netavark"' # else a machine's settings for CNI would be found
        echo '[engine]'
        echo 'events_logger = "file"'
        [ -d /run/systemd/system ] || echo 'cgroup_manager = "cgroupfs"'
        # crun refuses a cgroup hierarchy that is part v1, part v2.
        [ -e /sys/fs/cgroup/cgroup.controllers ] || echo 'runtime = "runc"'
    } >"$work/containers.conf"
    printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' \
        "$work/images" "$work/run" >"$work/storage.conf"
    export CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf"
}

build() { # build TARGET: one image of the Containerfile, by our own builder, into podman
    image=docker.io/library/gantry-$1:try
    rm -rf "$work/layout"
    "$python" -m builders build -f compose/Containerfile --target "$1" -t "$image" \
        --build-arg BASE=$base --output "oci:$work/layout" --quiet \
        ${GANTRY_EXTRA_CA:+--extra-ca "$GANTRY_EXTRA_CA"} .
    podman pull --quiet "oci:$work/layout:$image" >"$work/id"
    podman tag "$(cat "$work/id")" "localhost/gantry-$1:try"
    rm -rf "$work/layout"
}

compose() {
    GANTRY_IMAGE=localhost/gantry-service:try POSTGRES_IMAGE=localhost/gantry-postgres:try \
        REDIS_IMAGE=localhost/gantry-redis:try REGISTRY_IMAGE=localhost/gantry-registry:try \
        GANTRY_PUBLISH=127.0.0.1:$port GANTRY_URL=$url POSTGRES_PASSWORD=try \
        COMPOSE_PROJECT_NAME=gantry-try podman-compose -f compose/compose.yaml "$@"
}

wait_for() { # wait_for WHAT SECONDS COMMAND...
    what=$1 left=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || { echo "compose/try.sh: $what did not come up" >&2; return 1; }
        sleep 1
    done
}

api() { # api PATH [JSON]: with a body it is a POST
    curl --silent --show-error --fail-with-body --noproxy '*' -H "Authorization: Bearer $token" \
        -H 'Content-Type: application/json' ${2:+--data "$2"} "$url/api/v1/$1"
}

push() { # a repository of one Dockerfile, pushed as anybody would
    rm -rf "$work/repository"
    mkdir "$work/repository"
    cat >"$work/repository/Dockerfile" <<DOCKERFILE
FROM $base AS app
RUN echo "built in a sandbox" >/built
FROM app AS test
CMD ["grep", "sandbox", "/built"]
FROM app
CMD ["cat", "/built"]
DOCKERFILE
    git -C "$work/repository" init --quiet --initial-branch=main
    git -C "$work/repository" add .
    git -C "$work/repository" -c user.name=try -c user.email=try@gantry.invalid \
        commit --quiet --message "Try"
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=http.extraHeader \
        GIT_CONFIG_VALUE_0="Authorization: Basic $(printf 'admin:%s' "$token" | base64 -w 0)" \
        git -C "$work/repository" push --quiet "$url/git/try.git" HEAD:main
}

finished() { api "pipelines/?project=try" | grep -qE '"state":"(passed|failed|cancelled)"'; }
released() { api "releases/?project=try" | grep -q '"digest":"sha256:'; }
ready() { curl --silent --fail --noproxy '*' "$url/readyz"; }

finish() {
    status=$?
    trap - EXIT
    if [ $status != 0 ]; then
        for name in setup web worker registry postgres; do
            say "last words of $name"
            podman logs --tail 8 "gantry-try_${name}_1" 2>&1 || true
        done
    fi
    [ -n "$keep" ] || { say "Taking it down"; compose down -v >"$work/down.log" 2>&1 || true; }
    exit $status
}

[ "$(id -u)" = 0 ] || { echo "compose/try.sh: run it as root" >&2; exit 1; }
command -v podman-compose >/dev/null ||
    { echo "compose/try.sh: podman-compose is missing: pip install podman-compose" >&2; exit 1; }
keep=${1:-}
cd "$here"
engine_settings
export GANTRY_HOME="$work/home"

say "Building the images"
"$python" -m builders base $base
for target in service postgres redis registry; do
    echo "$target"
    build $target
done
trap finish EXIT

say "Bringing it up"
compose up -d --no-build >"$work/up.log" 2>&1
wait_for "the web service" 120 ready
podman exec gantry-try_worker_1 python -m runtime check
podman exec gantry-try_worker_1 python -m builders base $base
token=$(podman exec gantry-try_web_1 python manage.py bootstrap |
    "$python" -c 'import json, sys; print(json.load(sys.stdin)["token"])')

say "Pushing a commit"
api projects/ '{"slug": "try"}' >/dev/null
push
wait_for "the pipeline's end" 120 finished
api "pipelines/?project=try" | "$python" -m json.tool |
    grep -E '"(state|reason|place|digest|bytes_sent)"'
wait_for "the release" 30 released

say "It works: $url"
