"""Compose files: what people have for `docker compose`, as one resolved document; or all that is wrong.

``project`` has what others call. A file goes through ``documents`` (YAML with its lines), ``interpolation``
and ``dotenv`` (variables), ``schema`` (the Specification's own), ``canonical`` (the long form of everything)
and ``merge``; ``load`` does so for every file, with what it includes and extends. ``resolve`` makes one
project of it, ``keys`` and ``values`` say what of it no container of Harmony can have.
"""
