"""The reader's own project: a server of busybox, with tests that leave what pages tell of."""

from __future__ import annotations

import shutil

from tests.walk.walking import Walk

PROGRAMS = ["sh", "ls", "cat", "echo", "httpd", "sleep", "tail", "mkdir", "wget", "tar"]
DOCKERFILE = """FROM scratch
COPY root/bin /bin
COPY root/etc /etc
COPY root/tmp /tmp
COPY root/srv /srv
LABEL org.example.team=greeters
EXPOSE 8080
CMD ["sh", "-c", "trap 'exit 0' TERM; echo listening; httpd -f -p 8080 -h /srv & wait"]
"""
GANTRY_YML = """
inputs:
  level: {type: choice, options: [low, high], default: low}
schedule:
  - {cron: "0 3 * * 1-5", inputs: {level: high}}
tests:
  unit:
    command: "sh /srv/unit.sh"
    coverage: [/tmp/lcov.info]
    artifacts: {paths: [/tmp/report.txt]}
"""
UNIT = """set -e
printf 'SF:app.py\\nDA:1,1\\nDA:2,0\\nend_of_record\\n' >/tmp/lcov.info
echo "level $GANTRY_INPUT_LEVEL" | tee /tmp/report.txt
"""
SLOW = UNIT + "sleep 60\n"


def write_it(walk: Walk) -> None:
    """In /root/shop, with its first commit."""
    box = walk.place.path("/root/shop/root/bin/busybox")
    box.parent.mkdir(parents=True)
    shutil.copy2("/usr/bin/busybox", box)
    for name in PROGRAMS:
        (box.parent / name).symlink_to("busybox")
    (box.parent / "tee").symlink_to("busybox")
    for name, text in {
        "Dockerfile": DOCKERFILE,
        "gantry.yml": GANTRY_YML,
        "root/srv/unit.sh": UNIT,
        "root/srv/index.html": "shop\n",
        "root/srv/report": "a report\n",
        "root/etc/hostname": "shop\n",
        "root/tmp/.keep": "",
    }.items():
        walk.place.write(f"/root/shop/{name}", text)
    walk.sh("git init -q && git add -A && git commit -qm First")
