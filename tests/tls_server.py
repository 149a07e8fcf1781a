# SPDX-License-Identifier: Apache-2.0
"""Certificates, and a temper-server over TLS that asks for tokens."""

import shutil
import ssl
import subprocess
import urllib.request
from pathlib import Path

from temper_process import LIMIT, PLACEHOLDER_WORKER, Server, make_token

WORKER = PLACEHOLDER_WORKER.replace("#!/bin/sh\n", '#!/bin/sh\necho "$@" > "$TEMPER_RUN_DIR/arguments"\n')
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """Signs certificates: DIRECTORY/NAME.crt with NAME.key."""

    def __init__(self, directory: Path, name: str):
        self.directory, self.name = directory, name
        self.certificate = directory / f"{name}.crt"
        self._openssl("req", "-x509", *KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")

    def issue(self, name: str) -> tuple[Path, Path]:
        self._openssl("req", "-new", *KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.directory / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        signer = ["-CA", f"{self.name}.crt", "-CAkey", f"{self.name}.key", "-CAcreateserial", "-extfile", "san"]
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-days", "2", "-out", f"{name}.crt")
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)


class TlsServer(Server):
    """With a token of an admin, and its certificate and key below `directory`, as tls.crt and tls.key."""

    def __init__(self, directory: Path, pair: tuple[Path, Path], ca: Path, *options: str):
        self.directory, self.ca = directory, ca
        self.put(*pair)
        worker = directory / "worker"
        worker.write_text(WORKER)
        worker.chmod(0o755)
        files = ["--tls-cert", directory / "tls.crt", "--tls-key", directory / "tls.key"]
        super().__init__(directory, worker, [*files, *options])
        self.token = make_token(self, "root", "admin")

    def put(self, certificate: Path, key: Path) -> None:
        for source, name in ((certificate, "tls.crt"), (key, "tls.key")):
            shutil.copy(source, self.directory / "part")
            (self.directory / "part").rename(self.directory / name)

    def call(self, *arguments, check=0, text=None, **environment: str | Path):
        variables = {"TEMPER_TOKEN": self.token, "TEMPER_CA_FILE": self.ca, **environment}
        environment = {name: str(value) for name, value in variables.items()}
        return self.temper(*arguments, text=text, environment=environment, check=check)

    def subjects(self) -> set[str]:
        """Of the certificates that gRPC and HTTP show now."""
        return {self._subject(address) for address in (self.grpc, self.http.removeprefix("http://"))}

    def _subject(self, address: str) -> str:
        host, port = address.rsplit(":", 1)
        pem = ssl.get_server_certificate((host, int(port)), timeout=LIMIT)
        command = ["openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253"]
        return subprocess.run(command, input=pem, text=True, capture_output=True, check=True).stdout.strip()

    def page(self, path: str, context: ssl.SSLContext | None = None) -> str:
        context = context or ssl.create_default_context(cafile=self.ca)
        url = self.http.replace("http://", "https://") + path
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=LIMIT, context=context) as answer:
            return answer.read().decode()
