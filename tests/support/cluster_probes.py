"""What ``test_cluster.py`` runs on its hosts: who is alive, who can work, what answers without the token."""

import http.client
import json
import socket
import sys
import time

# methods that tell or do something, of the services that Ray's processes offer each other
METHODS = (
    "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.CoreWorkerService/PushTask",
    "ray.rpc.ReporterService/GetTraceback",
    "ray.rpc.RayletDriver/ClusterInfo",
)


def watch() -> None:
    """The addresses that Ray holds for alive, a line each time that changes. Runs on the head."""
    import ray

    ray.init(address="auto", log_to_driver=False)
    before = None
    while True:
        alive = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
        if alive != before:
            print(json.dumps(alive), flush=True)  # noqa: T201
        before = alive
        time.sleep(0.5)


def visit(address: str) -> None:
    """Run a task on the host of that address. Runs on the head."""
    import ray

    ray.init(address="auto", log_to_driver=False)
    task = ray.remote(num_cpus=0, resources={f"node:{address}": 0.01})(_name)
    print("ran on", ray.get(task.remote(), timeout=60))  # noqa: T201


def _name() -> str:
    return socket.gethostname()


def knock(*places: str) -> None:
    """What each ``host:port`` answers to someone who has no token: a line each."""
    for place in places:
        print(place, _web(place) or _procedures(place), flush=True)  # noqa: T201


def _web(place: str) -> str:
    """``401``, ``metrics`` or what else a web server answers; empty where there is none."""
    connection = http.client.HTTPConnection(place, timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        text = answer.read(200)
    except (http.client.HTTPException, OSError):
        return ""
    finally:
        connection.close()
    numbers = answer.status == 200 and text.startswith(b"# HELP ")
    return "metrics" if numbers else str(answer.status)


def _procedures(place: str) -> str:
    """The distinct outcomes of calls without a token."""
    import grpc

    outcomes = set()
    with grpc.insecure_channel(place) as channel:
        for method in METHODS:
            call = channel.unary_unary(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
            try:
                call(b"", timeout=10)
                outcomes.add("answered")
            except grpc.RpcError as error:
                outcomes.add(error.code().name)
    return ",".join(sorted(outcomes))


if __name__ == "__main__":
    {"watch": watch, "visit": visit, "knock": knock}[sys.argv[1]](*sys.argv[2:])
