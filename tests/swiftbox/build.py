"""Everything a Swift reads before it starts: `swift.conf`, one file per server, and the rings, by Swift's own builder."""

from __future__ import annotations

import _socket
import getpass
from configparser import RawConfigParser
from importlib import import_module
from pathlib import Path

from tests.swiftbox import HOST, Shape

KINDS = ("object", "container", "account")
Conf = dict[str, dict[str, object]]

PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk ratelimit s3api tempauth copy "
    "container-quotas account-quotas slo dlo proxy-logging proxy-server"
)
"""What a request walks through; a part that is named here and has no section of its own is taken as it comes."""


def ports(base: int, node: int) -> dict[str, int]:
    """The ports of a storage node's three servers."""
    return {kind: base + 10 * (node - 1) + place for place, kind in enumerate(KINDS)}


def claimed(base: int) -> _socket.socket | None:
    """The ports of a box from `base` on are its own while this is open, even those of servers that are away; None if they are another's."""
    claim = _socket.socket(_socket.AF_UNIX)
    try:
        claim.bind(f"\0swiftbox-{base}")
    except OSError:
        claim.close()
        return None
    return claim


def port_is_free(port: int) -> bool:
    """Whether nobody listens there."""
    line = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        line.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        line.bind((HOST, port))
    except OSError:
        return False
    finally:
        line.close()
    return True


def swift_conf(shape: Shape) -> Conf:
    """The hash of this Swift, and its storage policies: `gold`, and those asked for."""
    conf: Conf = {"swift-hash": {"swift_hash_path_prefix": "box", "swift_hash_path_suffix": "box"}}
    for index, name in enumerate(policies(shape)):
        conf[f"storage-policy:{index}"] = {"name": name, "default": "no" if index else "yes"}
    return conf


def policies(shape: Shape) -> list[str]:
    """The names of the policies; one that ends in a digit has so many replicas."""
    return ["gold", *filter(None, shape.policies.split(","))]


def server_conf(top: Path, kind: str, node: int, port: int) -> Conf:
    """A storage server and its daemons. No workers: then it neither forks nor changes its user."""
    device = top / "srv" / f"d{node}"
    default = _default(top, port) | {
        "devices": device,
        "mount_check": "false",
        "disable_fallocate": "true",
        "fallocate_reserve": 0,
        "recon_cache_path": top / "cache" / str(node),
        "max_clients": 256,
    }
    conf: Conf = {"DEFAULT": default, "pipeline:main": {"pipeline": f"healthcheck recon {kind}-server"}}
    conf[f"app:{kind}-server"] = {"use": f"egg:swift#{kind}"} | ({"replication_lock_timeout": 5} if kind == "object" else {})
    conf |= {f"filter:{name}": {"use": f"egg:swift#{name}"} for name in ("healthcheck", "recon")}
    if kind == "object":
        # ssync goes over the servers' own ports: no rsync.
        conf["object-replicator"] = {"sync_method": "ssync", "concurrency": 2}
        conf["object-updater"] = {"concurrency": 1, "slowdown": 0}
        conf["object-auditor"] = {"files_per_second": 1000, "zero_byte_files_per_second": 0, "bytes_per_second": 100_000_000}
    if kind == "container":
        conf["container-replicator"] = {"per_diff": 10_000}
        conf["container-updater"] = {"slowdown": 0, "account_suppression_time": 0}
    if kind == "account":
        conf["account-replicator"] = {}
    return conf


def proxy_conf(top: Path, shape: Shape) -> Conf:
    """The proxy: who may come in, and how long it waits for the others."""
    pipeline = " ".join(part for part in PIPELINE.split() if part not in shape.without.split(","))
    conf: Conf = {"DEFAULT": _default(top, shape.port) | {"bind_ip": shape.listen}, "pipeline:main": {"pipeline": pipeline}}
    conf |= {f"filter:{name}": {"use": f"egg:swift#{name.replace('-', '_')}"} for name in PIPELINE.split()[:-1]}
    conf["app:proxy-server"] = {
        "use": "egg:swift#proxy",
        "account_autocreate": "true",
        "allow_account_management": "true",
        "error_suppression_limit": shape.error_limit,
        "error_suppression_interval": shape.error_interval,
        "conn_timeout": 0.5,
        "node_timeout": shape.node_timeout,
        "recheck_account_existence": shape.recheck,
        "recheck_container_existence": shape.recheck,
    }
    conf["filter:cache"] = {"paste.filter_factory": "tests.swiftbox.cache:filter_factory"}
    conf["filter:s3api"] |= {"location": "us-east-1", "s3_acl": "false", "allow_multipart_uploads": "true"}
    conf["filter:slo"] |= {"min_segment_size": 1}
    conf["filter:tempauth"] |= {
        "token_life": shape.token_life,
        "user_admin_admin": "admin .admin .reseller_admin",
        "user_test_tester": f"{shape.key} .admin",
        "user_test_tester3": "testing3",
        "user_test2_tester2": "testing2 .admin",
    }
    return conf


def expirer_conf(top: Path) -> Conf:
    """The daemon that removes what has expired."""
    return {
        "DEFAULT": {"swift_dir": top / "etc", "user": getpass.getuser(), "recon_cache_path": top / "cache" / "1"},
        "object-expirer": {"interval": 5},
        "pipeline:main": {"pipeline": "catch_errors proxy-server"},
        "app:proxy-server": {"use": "egg:swift#proxy", "account_autocreate": "true"},
        "filter:catch_errors": {"use": "egg:swift#catch_errors"},
    }


def build(top: Path, shape: Shape) -> None:
    """Write all of it, but `swift.conf`, which Swift's modules read as they are imported."""
    etc = top / "etc"
    for node in range(1, shape.nodes + 1):
        (top / "srv" / f"d{node}" / f"d{node}").mkdir(parents=True, exist_ok=True)
        (top / "cache" / str(node)).mkdir(parents=True, exist_ok=True)
        for kind, port in ports(shape.base_port, node).items():
            write(etc / f"{kind}{node}.conf", server_conf(top, kind, node, port))
    write(etc / "proxy.conf", proxy_conf(top, shape))
    write(etc / "object-expirer.conf", expirer_conf(top))
    for kind in ("account", "container"):
        _ring(etc, kind, kind, shape.replicas, shape)
    for index, name in enumerate(policies(shape)):
        _ring(etc, "object", f"object-{index}" if index else "object", int(name[-1]) if name[-1].isdigit() else shape.replicas, shape)


def write(path: Path, conf: Conf) -> None:
    """Write one file of settings."""
    parser = RawConfigParser(default_section="")
    parser.read_dict(conf)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        parser.write(file)


def _default(top: Path, port: int) -> dict[str, object]:
    return {
        "swift_dir": top / "etc",
        "bind_ip": HOST,
        "bind_port": port,
        "workers": 0,
        "user": getpass.getuser(),
        "bind_timeout": 5,
        "eventlet_tpool_num_threads": 4,
    }


def _ring(etc: Path, kind: str, name: str, replicas: int, shape: Shape) -> None:
    builder = import_module("swift.common.ring").RingBuilder(4, replicas, 0)
    for node in range(1, shape.nodes + 1):
        port = ports(shape.base_port, node)[kind]
        where = {"ip": HOST, "port": port, "replication_ip": HOST, "replication_port": port, "device": f"d{node}"}
        region = (node - 1) // max(1, shape.nodes // shape.regions) + 1
        builder.add_dev(where | {"region": region, "zone": node, "weight": 100, "meta": ""})
    builder.rebalance(seed=1)
    builder.get_ring().save(str(etc / f"{name}.ring.gz"))
