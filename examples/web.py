"""A web application: its configuration, its container, and when it counts as ready."""

from __future__ import annotations

import os

from harmony_scores import FileScore, WebAppScore

IMAGE = os.environ.get("IMAGE", "docker.io/library/nginx:1.29")

scores = {
    "motd": FileScore(path="/etc/motd", content="This Pi is looked after by Harmony.\n"),
    "web": WebAppScore(
        name="web",
        image=IMAGE,
        config="greeting = hello\n",
        config_path="/etc/web.conf",
        port=80,
        published_port=8080,
    ),
}
