"""What can only be tried with a Docker engine: `make containers`, not `make test`.

engine.py    commands of Docker, and the whole of compose.yaml while a block runs
image.py     one container: how large, how soon, how it ends, what it may
walk.py      all of them: write, read, lose a node, begin anew, restart without a lost request

The names of the last two do not begin with `test_`, so that nobody finds them by accident. Where images are built behind a proxy, name
an override in COMPOSE_FILE (`compose.yaml:compose.local.yaml`) that has the builds' `network` and `secrets`.
"""
