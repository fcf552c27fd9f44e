"""The cluster's own certificate authority and this node's certificate for `https://…:8006`.

The authority's key is in the store (sealed); a node's key is a file of the node. panal-web reads copies in `<run>/tls`.
Called by `daemon/` at every start. Invariant: a certificate that is served names every address and name of the node at the
time it was made, and has more than RENEW_DAYS left.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from panal.cluster.store import Absent, Mirror, Put
from panal.core.errors import Failed

CA_DAYS: Final = 3650
NODE_DAYS: Final = 730
RENEW_DAYS: Final = 30
_CA = "certificate/ca"
_CA_KEY = "secret/certificate/ca"


@dataclass(frozen=True, slots=True)
class Authority:
    """Certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate, for people to import."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


async def authority(store: Mirror, now: datetime.datetime) -> Authority:
    """The cluster's authority; made on an empty store, by one node only."""
    if store.value(_CA) is None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Panal cluster CA {os.urandom(4).hex()}")])
        builder = _builder(name, name, key, now, CA_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.add_extension(_usage(ca=True), critical=True).sign(key, hashes.SHA256())
        await store.txn(
            [Absent(_CA)],
            [
                Put(_CA, {"v": 1, "pem": certificate.public_bytes(serialization.Encoding.PEM).decode()}),
                Put(_CA_KEY, {"v": 1, "key": _key_pem(key).decode()}),
            ],
        )
    public, secret = store.value(_CA), store.value(_CA_KEY)
    if public is None or secret is None:
        raise Failed("the cluster's certificate authority is not whole in the store; restore the store from a backup")
    key_object = serialization.load_pem_private_key(secret["key"].encode(), None)
    if not isinstance(key_object, ec.EllipticCurvePrivateKey):
        raise Failed("the key of the cluster's certificate authority is of another kind than expected")
    return Authority(x509.load_pem_x509_certificate(public["pem"].encode()), key_object)


def node_certificate(directory: Path, node: str, ca: Authority, now: datetime.datetime) -> tuple[bytes, bytes]:
    """Chain and key of this node as PEM, from `directory`, or made anew when missing, old, or short of a name. Blocking."""
    chain_file, key_file = directory / "node.pem", directory / "node.key"
    names, addresses = own_names(node)
    try:
        chain, key = chain_file.read_bytes(), key_file.read_bytes()
        if _serves(x509.load_pem_x509_certificate(chain), ca, names, addresses, now):
            return chain, key
    except (FileNotFoundError, ValueError):
        pass
    fresh = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    san = [x509.DNSName(n) for n in names] + [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    builder = _builder(subject, ca.certificate.subject, fresh, now, NODE_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    builder = builder.add_extension(_usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    ca_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    certificate = builder.add_extension(ca_id, critical=False).sign(ca.key, hashes.SHA256())
    chain = certificate.public_bytes(serialization.Encoding.PEM) + ca.pem
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(key_file, _key_pem(fresh))
    write_private(chain_file, chain)
    return chain, _key_pem(fresh)


def write_private(path: Path, data: bytes, owner: tuple[int, int] | None = None) -> None:
    """Replace a file at once, readable by its owner only."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def own_names(node: str) -> tuple[Sequence[str], Sequence[str]]:
    """DNS names and addresses of this machine (link-local ones left out)."""
    names = {node, "localhost", socket.gethostname().lower()}
    addresses = {"127.0.0.1", "::1"}
    for rows in psutil.net_if_addrs().values():
        for row in rows:
            text = row.address.partition("%")[0]
            if row.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(text).is_link_local:
                addresses.add(text)
    return sorted(n for n in names if n and len(n) <= 253), sorted(addresses)


def _serves(
    certificate: x509.Certificate, ca: Authority, names: Sequence[str], addresses: Sequence[str], now: datetime.datetime
) -> bool:
    if certificate.issuer != ca.certificate.subject:
        return False
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    named = set(san.get_values_for_type(x509.DNSName))
    addressed = {str(a) for a in san.get_values_for_type(x509.IPAddress)}
    left = certificate.not_valid_after_utc - now
    return set(names) <= named and set(addresses) <= addressed and left > datetime.timedelta(days=RENEW_DAYS)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
