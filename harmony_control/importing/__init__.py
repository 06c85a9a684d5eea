"""``harmony import``: what somebody runs today, as Scores.

* `command_line`   `podman run …` and `docker run …`
* `quadlet`        files of podman's Quadlet, whose keys are read as the flags that podman makes of them
* `compose`        compose files, read as a push reads them, and taken apart
* `flags`          every flag of `podman run`, in one of three lists: done, refused, of no meaning here
* `readers`        what is done: each reads the value of one flag into a draft
* `draft`          Scores as they are put together, with where each part of them was said
* `written`        the Scores as a Score file, in YAML or in Python

Nothing is passed over in silence. What a Score cannot say is refused by the name of its flag or key, all of
it at once; what has no meaning here is said once. What is printed was validated as a push would do it.
"""
