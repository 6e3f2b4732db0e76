"""The commands that work with a repository, and not only with names; what each prints can be read by a program too.

words.py    sessions, commits, search, restore, sync, verify, import
export.py   originals laid out for people
token.py    who may write by HTTP
jobs.py     fetch, make ahead, and the worker that does it
"""

from __future__ import annotations

from imgproxy.commands import export, jobs, token, words
from imgproxy.commands.words import desk

__all__ = ["COMMANDS", "desk"]

COMMANDS = (*words.COMMANDS, *export.COMMANDS, *token.COMMANDS, *jobs.COMMANDS)
