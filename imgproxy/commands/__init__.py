"""The commands that work with a repository, and not only with names; what each prints can be read by a program too.

where.py      on this machine, or behind a server: what commands ask of a repository
here.py       on this machine
progress.py   a bar for what takes its time
words.py      sessions, commits, search, restore, sync, verify
importing.py  much at once
export.py     originals laid out for people
token.py      who may write by HTTP
jobs.py       fetch, make ahead, and the worker that does it
front.py      nginx before several nodes, and how a server is
"""

from __future__ import annotations

from imgproxy.commands import export, front, importing, jobs, token, words

__all__ = ["COMMANDS"]

COMMANDS = (*words.COMMANDS, *importing.COMMANDS, *export.COMMANDS, *token.COMMANDS, *jobs.COMMANDS, *front.COMMANDS)
