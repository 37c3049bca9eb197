"""A test authority and its certificates, made with the openssl command.

All are for loopback alone and live in the folder of one test run. The good ones
are valid for so long that a test may set the clock.
"""

import collections
import datetime
import pathlib
import subprocess

Certificate = collections.namedtuple("Certificate", "cert key")

LONG_AGO, FAR_AHEAD = "20000101000000Z", "20991231235959Z"
LOOPBACK = "IP:127.0.0.1,IP:::1,DNS:localhost"

CONFIGURATION = """
[ca]
default_ca = test
[test]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = names
[names]
"""


class Authority:
    """Signs certificates; its own is `cert`, signed by `above` or by itself. Only this
    module makes one."""

    def __init__(self, folder, name, above=None):
        self.folder = pathlib.Path(folder) / name
        self.folder.mkdir(parents=True)
        self.config = self.folder / "openssl.cnf"
        self.config.write_text(CONFIGURATION.format(folder=self.folder))
        (self.folder / "index").touch()
        (self.folder / "serial").write_text("1000\n")
        self.cert, self.key = self.folder / "ca.pem", self.folder / "ca.key"
        self._request(name, self.key, self.folder / "ca.csr")
        extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign"
        (above or self)._sign(self.folder / "ca.csr", self.cert, LONG_AGO, FAR_AHEAD, extensions,
                              *(() if above else ("-selfsign",)))

    def issue(self, name, names=LOOPBACK, start=LONG_AGO, end=FAR_AHEAD, usage="serverAuth"):
        paths = [self.folder / f"{name}.{kind}" for kind in ("pem", "key", "csr")]
        self._request(name, paths[1], paths[2])
        extensions = f"basicConstraints=CA:FALSE\nextendedKeyUsage={usage}"
        if names:
            extensions += f"\nsubjectAltName={names}"
        self._sign(paths[2], paths[0], start, end, extensions)
        return Certificate(paths[0], paths[1])

    def chain(self, certificate):
        """The same with this authority's own behind it, as a server has to show them."""
        path = certificate.cert.with_suffix(".chain")
        path.write_text(certificate.cert.read_text() + self.cert.read_text())
        return Certificate(path, certificate.key)

    def self_signed(self, name, names=LOOPBACK):
        """Of nobody's authority: the server vouches for itself."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self._openssl("req", "-config", self.config, "-x509", "-newkey", "ec", "-pkeyopt",
                      "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert,
                      "-days", "9999", "-subj", f"/CN={name}",
                      "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=CA:FALSE")
        return Certificate(cert, key)

    def _request(self, name, key, request):
        self._openssl("req", "-config", self.config, "-new", "-newkey", "ec", "-pkeyopt",
                      "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request,
                      "-subj", f"/CN={name}")

    def _sign(self, request, cert, start, end, extensions, *more):
        extension_file = request.with_suffix(".ext")
        extension_file.write_text(extensions + "\n")
        self._openssl("ca", "-batch", "-notext", "-config", self.config, "-in", request,
                      "-out", cert, "-keyfile", self.key, "-startdate", start, "-enddate", end,
                      "-extfile", extension_file,
                      *(more or ("-cert", self.cert)))

    def _openssl(self, *arguments):
        result = subprocess.run(["openssl", *map(str, arguments)], capture_output=True,
                                text=True, timeout=60)
        assert result.returncode == 0, result.stderr


class Certificates:
    """ca: the file to trust. Each other member is a (cert, key) pair of files."""

    def __init__(self, folder):
        authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
        self.ca = authority.cert
        self.good = authority.issue("good")
        self.wrong_name = authority.issue("wrong-name", "DNS:elsewhere.invalid,IP:192.0.2.1")
        self.expired = authority.issue("expired", end="20010101000000Z")
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=5)
        self.ends_soon = authority.issue("ends-soon", end=soon.strftime("%Y%m%d%H%M%SZ"))
        self.not_yet_valid = authority.issue("not-yet-valid", start="20980101000000Z")
        self.unknown_issuer = stranger.issue("unknown-issuer")
        self.self_signed = authority.self_signed("self-signed")
        self.wrong_usage = authority.issue("wrong-usage", usage="clientAuth")
        between = Authority(folder, "between", authority)
        self.no_intermediate = between.issue("no-intermediate")
        self.with_intermediate = between.chain(self.no_intermediate)
        self.client = authority.issue("client", names=None, usage="clientAuth")


def make(folder):
    return Certificates(folder)
