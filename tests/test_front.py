"""The commands of containers, run for real: doors for writing alone, a follower, an nginx before nodes, and who asks how they are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgproxy import config
from imgproxy.edge import configuration
from imgproxy.edge.spreading import found
from tests.admin.deaths import children
from tests.edging import nginx
from tests.plain import png, written
from tests.readers import until
from tests.serving import COMMAND, Server, environment, free_port, serving
from tests.test_edge_together import is_alive

TOKEN = "a-token-of-thirty-two-characters-or-more"


@contextmanager
def running(data: Path, *words: str, **settings: str) -> Iterator[Server]:
    """A command that serves, until the end of the block; it leaves with 0 when it is told to stop, if nobody has killed it."""
    env = environment(data, **{"IMG_BIND": f"127.0.0.1:{free_port()}", **settings})
    port = int(env["IMG_BIND"].rpartition(":")[2])
    data.mkdir(parents=True, exist_ok=True)
    with (data / "server.log").open("ab") as log:
        process = subprocess.Popen([COMMAND, *words], env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield Server(port, process, env, data)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def health(server: Server, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {**server.env, **settings}
    return subprocess.run([COMMAND, "health", *words], env=env, capture_output=True, text=True, timeout=60, check=False)


def well(server: Server, *words: str) -> Callable[[], bool]:
    return lambda: health(server, *words).returncode == 0


def test_the_doors_for_writing_stand_alone_and_a_follower_serves_what_was_committed_there(tmp_path: Path) -> None:
    picture, store = png(40, 20), f"fs://{tmp_path}/store"
    secret = written(tmp_path / "token", f"{TOKEN}\n".encode())
    with (
        running(tmp_path / "writer", "admin", IMG_STORE=store, IMG_ADMIN_TOKEN_FILE=str(secret)) as writer,
        running(tmp_path / "reader", "serve", "--read-only", IMG_STORE=store) as reader,
    ):
        until(well(writer), "the doors do not open")
        until(well(reader, "--ready"), "the follower does not serve")
        kept = writer.ask("POST", "/admin/images?domain=here&dkey=there", picture, token=TOKEN, Content_Type="image/png")
        assert kept.status == 201
        name = kept.json["name"]
        assert writer.get(f"/{name}").status == 404
        assert reader.get(f"/{name}").body == picture
        assert reader.get("/admin/status").status == 404
        assert writer.ask("POST", "/admin/commit", token=TOKEN).status == 201
        until(lambda: reader.get("/here/there").status == 302, "the follower does not follow")


def test_a_worker_has_a_pulse(tmp_path: Path) -> None:
    with running(tmp_path / "var", "work") as worker:
        until(well(worker, "--worker"), "the worker is not well")
    assert health(worker).returncode == 1
    os.utime(tmp_path / "var" / "run" / "worker", (1, 1))
    assert health(worker, "--worker").returncode == 1


def test_an_edge_leaves_out_nodes_without_an_address_and_spreads_names_over_the_others(tmp_path: Path) -> None:
    nginx()
    with serving(tmp_path / "node") as node:
        nodes = f"127.0.0.1:{node.port},node.invalid:8080"
        (name,) = node.put(written(tmp_path / "a.png", png(40, 20)))
        with running(tmp_path / "edge", "edge", IMG_EDGE_NODES=nodes) as edge:
            until(well(edge, "--ready"), "the edge does not serve")
            assert edge.get(f"/{name}").status == 200
            log = (edge.data / "server.log").read_text()
            assert '"missing":["node.invalid:8080"]' in log


def standing(server: Server) -> list[int]:
    """The nginx that is a server's child, and its workers."""
    (master,) = children(server.process.pid)
    return [master, *children(master)]


def test_an_edge_that_is_killed_leaves_no_nginx_behind(tmp_path: Path) -> None:
    nginx()
    with serving(tmp_path / "node") as node, running(tmp_path / "edge", "edge", IMG_EDGE_NODES=node.address) as edge:
        until(well(edge), "the edge does not serve")
        all = standing(edge)
        edge.process.kill()
        edge.process.wait(60)
        until(lambda: not any(map(is_alive, all)), "nginx lives on", 60)


def test_an_edge_whose_nginx_is_killed_leaves_with_it_and_frees_the_port(tmp_path: Path) -> None:
    nginx()
    with serving(tmp_path / "node") as node:
        port = f"127.0.0.1:{free_port()}"
        env = environment(tmp_path / "edge", IMG_EDGE_NODES=node.address, IMG_BIND=port)
        with subprocess.Popen([COMMAND, "edge"], env=env, stderr=subprocess.DEVNULL) as process:
            edge = Server(int(port.rpartition(":")[2]), process, env, tmp_path / "edge")
            until(well(edge), "the edge does not serve")
            all = standing(edge)
            os.kill(all[0], signal.SIGKILL)
            assert process.wait(60) == 1
            assert not any(map(is_alive, all))
        with running(tmp_path / "edge", "edge", IMG_EDGE_NODES=node.address, IMG_BIND=port) as edge:
            until(well(edge), "the port is taken")


def test_an_edge_takes_up_new_settings_when_it_is_told_to(tmp_path: Path) -> None:
    nginx()
    with serving(tmp_path / "node") as node:
        conf = written(tmp_path / "settings.toml", f'edge_nodes = ["127.0.0.1:{free_port()}"]\n'.encode())
        with running(tmp_path / "edge", "edge", IMG_CONFIG=str(conf)) as edge:
            until(lambda: "the server behind is not there" in health(edge).stdout, "the edge does not stand there")
            conf.write_text("edge_nodes = []\n")
            edge.process.send_signal(signal.SIGHUP)
            until(lambda: "the old ones stay" in (edge.data / "server.log").read_text(), "nobody complains")
            conf.write_text(f'edge_nodes = ["{node.address}"]\n')
            edge.process.send_signal(signal.SIGHUP)
            until(well(edge), "the old settings stay")


def test_no_node_is_thought_away_by_who_writes() -> None:
    """What is written is not asked twice, so there is no second way for who finds all nodes thought away."""
    text = configuration(config.load(None, {"IMG_EDGE_NODES": "10.0.0.1:8080,10.0.0.2:8080"}))
    desk = text.partition("upstream desk {")[2].partition("}")[0]
    assert re.findall(r"server ([^;]+);", desk) == ["10.0.0.1:8080 max_fails=0", "10.0.0.2:8080 max_fails=0 backup"]


def test_nodes_that_have_addresses_are_found_in_their_order() -> None:
    book = {"b": ("10.0.0.2",), "a": ("10.0.0.1", "10.0.0.3"), "::1": ("::1",)}
    assert found(("b:80", "c:80", "a:8080", "[::1]:80"), lambda host, port: book.get(host, ())) == (
        ("b:80", ("10.0.0.2",)),
        ("a:8080", ("10.0.0.1", "10.0.0.3")),
        ("[::1]:80", ("::1",)),
    )


def test_an_edge_wants_nodes(tmp_path: Path) -> None:
    done = subprocess.run([COMMAND, "edge"], env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "edge_nodes" in done.stderr) == (1, True)


@pytest.mark.parametrize("said", [{}, {"IMG_KEYS": ""}])
def test_a_secret_may_be_in_a_file(tmp_path: Path, said: dict[str, str]) -> None:
    env = environment(tmp_path, IMG_KEYS_FILE=str(written(tmp_path / "keys", b"00112233445566778899aabbccddeeff\n")), **said)
    name = "0" * 64 + ".jpg"
    done = subprocess.run([COMMAND, "sign", name], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("/s/")
    assert "warning" not in done.stderr


def test_the_environment_wins_over_a_file_and_a_file_that_is_missing_is_told_of(tmp_path: Path) -> None:
    env = environment(tmp_path, IMG_KEYS_FILE="/nowhere/keys", IMG_KEYS="00112233445566778899aabbccddeeff")
    assert subprocess.run([COMMAND, "sign", "0" * 64 + ".jpg"], env=env, capture_output=True, timeout=60, check=False).returncode == 0
    del env["IMG_KEYS"]
    done = subprocess.run([COMMAND, "sign", "0" * 64 + ".jpg"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "IMG_KEYS_FILE: /nowhere/keys: No such file" in done.stderr) == (1, True)
