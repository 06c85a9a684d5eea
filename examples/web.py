"""A web application: its configuration, its container, and when it counts as ready."""

from __future__ import annotations

import os

from harmony_control import Entry, ScorePolicy
from harmony_scores import FileScore, WebAppScore

IMAGE = os.environ.get("IMAGE", "docker.io/library/nginx:1.29")

scores = {
    "motd": FileScore(path="/etc/motd", content="This Pi is looked after by Harmony.\n"),
    "web": Entry(
        WebAppScore(
            name="web",
            image=IMAGE,
            config="greeting = hello\n",
            config_path="/etc/web.conf",
            port=80,
            published_port=8080,
        ),
        # What does not serve in time gives way to the last that did.
        policy=ScorePolicy(on_failure="rollback", deadline_s=10),
    ),
}
