"""A real S3 server (moto) on the loopback interface that records requests and can fail."""

import os
import threading
import time
import urllib.request
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import boto3
import s3fs
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class S3:
    """The server, with a record of requests and switches for faults.

    Attributes:
        url: its endpoint.
        key: credentials; see `check_credentials`.
        asked: "<method> <path>" of every request, in order.
        served: bytes of objects sent.
        stop: takes it down.
        broken: number of next requests to answer with status 503.
        silent_s: delay of each answer, in seconds.
    """

    def __init__(self):
        self.url = ""
        self.key = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "not-to-be-printed"}
        self.stop = lambda: None
        self.asked: list[str] = []
        self.served = 0
        self.broken = 0
        self.silent_s = 0.0
        self._inner = DomainDispatcherApplication(create_backend_app)

    @property
    def environment(self):
        """Return the environment variables that lead client libraries to this server alone."""
        return {
            **self.key,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/none",
            "AWS_SHARED_CREDENTIALS_FILE": "/none",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",  # s3fs tries again by itself
            "NO_PROXY": "127.0.0.1",
        }

    @cached_property
    def client(self):
        """Return a client of another library than the one under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.key["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.key["AWS_SECRET_ACCESS_KEY"],
        )

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        """Put every file under a folder into a new bucket, below a prefix."""
        self.client.create_bucket(Bucket=bucket)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            self.client.upload_file(str(path), bucket, key)

    def forget_connections(self) -> None:
        """Make this process reconnect with its current environment."""
        s3fs.S3FileSystem.clear_instance_cache()

    def check_credentials(self, wanted: bool) -> None:
        """Make the server refuse everybody; or, as at first, accept everybody."""
        left = b"0" if wanted else b"inf"  # number of requests before checks begin
        headers = {"Content-Type": "text/plain"}
        url = f"{self.url}/moto-api/reset-auth"
        urllib.request.urlopen(urllib.request.Request(url, left, headers)).close()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        self.asked.append(f"{environ['REQUEST_METHOD']} {path}")
        time.sleep(self.silent_s)
        if self.broken:
            self.broken -= 1
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        answer = list(self._inner(environ, start_response))
        if environ["REQUEST_METHOD"] == "GET" and path.count("/") > 1 and path[-1] != "/":
            self.served += sum(map(len, answer))
        return answer


@contextmanager
def serving():
    """Give an empty server on a free port."""
    s3 = S3()
    server = make_server("127.0.0.1", 0, s3, threaded=True)
    s3.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    s3.stop = stop
    try:
        urllib.request.urlopen(f"{s3.url}/moto-api/reset", b"").close()  # moto is one per process
        s3.asked.clear()
        yield s3
    finally:
        stop()


@contextmanager
def clean_environment(monkeypatch, s3):
    """Set the variables of a server in this process, and drop cached connections."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    s3.forget_connections()
    yield
    s3.forget_connections()
