# SPDX-License-Identifier: Apache-2.0
"""S3 servers: versitygw, whose buckets are directories, and SeaweedFS."""

import json
import time
from pathlib import Path

from pyarrow import fs
from servers.server_process import LIMIT, PROGRAMS, ServerProcess, free_port

REGION = "us-east-1"
ACCESS_KEY = "temper-test"
SECRET_KEY = "temper-test-secret"


class S3Server(ServerProcess):
    name: str
    admin = (ACCESS_KEY, SECRET_KEY)  # who makes buckets

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a client has in its environment. `endpoint`: that of a proxy in front of it."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def files(self) -> fs.S3FileSystem:
        """Its buckets, by a client that is not ours."""
        return fs.S3FileSystem(
            access_key=self.admin[0],
            secret_key=self.admin[1],
            endpoint_override=self.endpoint,
            region=REGION,
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def make_bucket(self, name: str) -> str:
        """The bucket's URI."""
        self.files().create_dir(name)
        return f"s3://{name}"


class Versitygw(S3Server):
    name = "versitygw"

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.data = directory / "data"
        for folder in ("data", "iam", "versions"):
            (directory / folder).mkdir(exist_ok=True)
        port = free_port()
        command = [PROGRAMS / "versitygw", "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION]
        command += ["--port", f"127.0.0.1:{port}", "--iam-dir", directory / "iam", "--quiet"]
        command += ["posix", "--versioning-dir", directory / "versions", self.data]
        super().__init__(command, port, directory / "versitygw.log")


class SeaweedFs(S3Server):
    """`volumes`: how many there may be; uploads fail with 500 when they do not suffice."""

    name = "seaweedfs"
    admin = ("admin", "admin-secret")  # for whom a bucket is made by writing to it

    def __init__(self, directory: Path, volumes: int = 100):
        (directory / "data").mkdir(parents=True, exist_ok=True)
        rights = {self.admin: ["Admin"], (ACCESS_KEY, SECRET_KEY): ["Read", "Write", "List", "Tagging"]}
        identities = directory / "identities.json"
        identities.write_text(
            json.dumps(
                {
                    "identities": [
                        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
                        for (key, secret), actions in rights.items()
                    ]
                }
            )
        )
        port = free_port()
        command = [PROGRAMS / "weed", "server", f"-dir={directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-s3", f"-s3.port={port}", f"-s3.config={identities}", "-s3.iam=false"]
        command += ["-master.volumeSizeLimitMB=64", f"-volume.max={volumes}"]
        for part in ("master", "volume", "filer"):
            command += [f"-{part}.port={free_port()}", f"-{part}.port.grpc={free_port()}"]
        # The last two have fixed ports otherwise, and two servers can't be up at once.
        command += [f"-s3.port.grpc={free_port()}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        super().__init__(command, port, directory / "seaweedfs.log")

    def start(self):
        """It listens before it has a place to store on."""
        super().start()
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                self.files().create_dir("ready")
                return self
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)
