# SPDX-License-Identifier: Apache-2.0
"""Emulators of Google Cloud Storage (fake-gcs-server, which asks nobody for credentials) and of Azure Blob Storage
(Azurite, an account without a hierarchical namespace)."""

import base64
from pathlib import Path

from pyarrow import fs
from servers.server_process import PROGRAMS, ServerProcess, free_port


class CloudServer(ServerProcess):
    name: str

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def environment(self, address: str | None = None) -> dict[str, str]:
        """What a client has in its environment. `address`: that of a proxy in front of it."""
        raise NotImplementedError

    def files(self) -> fs.FileSystem:
        """Its buckets, by a client that is not ours."""
        raise NotImplementedError

    def uri(self, bucket: str) -> str:
        raise NotImplementedError

    def make_bucket(self, name: str) -> str:
        self.files().create_dir(name)
        return self.uri(name)


class FakeGcs(CloudServer):
    name = "fake-gcs-server"

    def __init__(self, directory: Path):
        (directory / "data").mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = [PROGRAMS / "fake-gcs-server", "-scheme=http", "-host=127.0.0.1", f"-port={port}"]
        command += ["-backend=filesystem", f"-filesystem-root={directory / 'data'}", "-log-level=error"]
        super().__init__(command, port, directory / "fake-gcs-server.log")

    def environment(self, address: str | None = None) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": f"http://{address or self.address}"}

    def files(self) -> fs.GcsFileSystem:
        return fs.GcsFileSystem(
            anonymous=True,
            scheme="http",
            endpoint_override=self.address,
            default_bucket_location="US",
            project_id="test",
        )

    def uri(self, bucket: str) -> str:
        return f"gs://{bucket}"


class Azurite(CloudServer):
    name = "azurite"
    account = "tempertest"
    key = base64.b64encode(b"the key of a test's account").decode()

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = [PROGRAMS / "azurite-blob", "--blobHost=127.0.0.1", f"--blobPort={port}", "--silent"]
        command += [f"--location={directory / 'data'}", "--skipApiVersionCheck", "--disableTelemetry"]
        super().__init__(command, port, directory / "azurite.log", {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"})

    def environment(self, address: str | None = None) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ENDPOINT": f"http://{address or self.address}",
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
        }

    def files(self) -> fs.AzureFileSystem:
        return fs.AzureFileSystem(
            account_name=self.account,
            account_key=self.key,
            blob_storage_authority=self.address,
            dfs_storage_authority=self.address,
            blob_storage_scheme="http",
            dfs_storage_scheme="http",
        )

    def uri(self, bucket: str) -> str:
        return f"abfs://{bucket}@{self.account}"
