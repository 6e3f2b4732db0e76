"""How gunicorn runs the doors: threads for waiting, processes for cores, and never a libvips operation in any of them.

Each worker builds its own house after the fork, out of what all of them have loaded before it; pictures are made in processes of the
pool, which are started by exec. Our settings (`conf/imgproxy.toml`, `IMG_...`) decide; gunicorn's own are here, with the reason for each.
"""

import os
import re
import resource
import signal
from importlib import import_module

from imgproxy import keeper, observe, wiring

settings = wiring.settings_of(os.environ)

# What workers load is loaded here, once for all of them.
for room in ("wsgi",) if settings.admin == "off" else ("wsgi", "clerk", "jobs.trades", "purges", "workshop"):
    import_module(f"imgproxy.{room}")

wsgi_app = "imgproxy.wsgi:both()"
bind = [*settings.doors, *([] if settings.admin in ("beside", "off") else [settings.admin])]
workers = settings.workers or os.cpu_count() or 1
worker_class = "gthread"
threads = settings.threads

FILES_OF_A_THREAD = 12  # descriptors of one request at work, and its thread's connection to the index of the local tier
FILES_OF_A_WORKER = 256


def connections() -> int:
    """How many connections a worker takes: four a thread, or fewer where it may not have a descriptor for each.

    One that runs out of descriptors stops accepting for good, and is killed. Many systems allow 1,024 unless one asks for more.
    """
    wanted = settings.threads * 4
    needed = FILES_OF_A_WORKER + settings.threads * FILES_OF_A_THREAD + wanted
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now < needed and now != resource.RLIM_INFINITY:
        now = needed if most == resource.RLIM_INFINITY else min(needed, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))
    if now == resource.RLIM_INFINITY or now >= needed:
        return wanted
    spare = now - FILES_OF_A_WORKER
    return max(1, spare // (FILES_OF_A_THREAD + 1), spare - settings.threads * FILES_OF_A_THREAD)


worker_connections = connections()  # those that wait cost little; threads are for requests
keepalive = 75  # longer than what load balancers keep, so that it is they who hang up
timeout = 60  # without a sign of life from a worker's main thread, not from a request: those have their own deadlines
graceful_timeout = round(settings.grace) or 1
preload_app = False  # a house has threads and connections, which do not follow through a fork
max_requests = 100_000  # fragmentation of a long life; spread, so that they do not leave together
max_requests_jitter = 20_000
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108 - heartbeats must not wait for a disk
control_socket_disable = True  # nothing here is steered by a socket; one door less
accesslog = None  # the door writes its own line
limit_request_line = 4094
limit_request_fields = 64
forwarder_headers = ""  # nobody, not even a proxy, says by a header which path was asked for
secure_scheme_headers = {}  # nor by which scheme; nothing here asks for it
forwarded_allow_ips = "*"  # so nobody is trusted with anything, and no address need be looked up at each request
logger_class = observe.ServerLog  # its lines look like ours
observe.configure(settings.log_level, settings.log_format)
observe.adopt_logging(settings.log_level)


def on_starting(server):  # type: ignore[no-untyped-def]
    """Figures of an earlier life are swept away before there is any worker; not those of a server that listens elsewhere."""
    observe.sweep(settings.data / "run" / "figures" / re.sub("[^A-Za-z0-9.]", "-", ",".join(settings.bind))[:200])


def when_ready(server):  # type: ignore[no-untyped-def]
    """gunicorn buries every child, and knows only its workers; a keeper that was killed is replaced here, and hears early of the end."""

    def before(number, do):  # type: ignore[no-untyped-def]
        heard = signal.getsignal(number)

        def hear(number, frame):  # type: ignore[no-untyped-def]
            if os.getpid() == server.pid:
                do(os.environ)
            heard(number, frame)

        signal.signal(number, hear)

    before(signal.SIGCHLD, keeper.mind)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        before(number, keeper.stop)


def on_reload(server):  # type: ignore[no-untyped-def]
    """The jobs beside this server are done with the new settings, too."""
    keeper.renew(os.environ)


def child_exit(server, worker):  # type: ignore[no-untyped-def]
    """What a worker counted stays counted."""
    observe.worker_gone(worker.pid)


def on_exit(server):  # type: ignore[no-untyped-def]
    """The jobs beside this server end with it."""
    keeper.end(os.environ, settings.grace + 5)
