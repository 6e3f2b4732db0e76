"""The commands that work with a repository, and not only with names; what each prints can be read by a program too.

words.py    sessions, commits, search, restore, sync, verify, import
token.py    who may write by HTTP
"""

from __future__ import annotations

from imgproxy.commands import token, words
from imgproxy.commands.words import desk

__all__ = ["COMMANDS", "desk"]

COMMANDS = (*words.COMMANDS, *token.COMMANDS)
