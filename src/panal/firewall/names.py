"""Names that rules may use for protocols, ports and ICMP types, and services that stand for several (macros). Data only.

Called by `spec.py`. The numbers are the registered ones (IANA); the selection and the descriptions are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PROTOCOLS: Final[Mapping[str, int]] = {
    "icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "egp": 8, "igp": 9, "udp": 17, "dccp": 33, "ipv6": 41, "rsvp": 46,
    "gre": 47, "esp": 50, "ipsec-esp": 50, "ah": 51, "ipsec-ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "eigrp": 88,
    "ospf": 89, "pim": 103, "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "udplite": 136,
}  # fmt: skip
ICMP: Final = 1
ICMPV6: Final = 58
WITH_PORTS: Final = frozenset({6, 17, 33, 132, 136})

PORTS: Final[Mapping[str, int]] = {
    "ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "time": 37, "whois": 43, "tacacs": 49, "domain": 53,
    "bootps": 67, "bootpc": 68, "tftp": 69, "http": 80, "www": 80, "kerberos": 88, "pop3": 110, "sunrpc": 111, "ident": 113,
    "nntp": 119, "ntp": 123, "netbios-ns": 137, "netbios-dgm": 138, "netbios-ssn": 139, "imap2": 143, "imap": 143,
    "snmp": 161, "snmp-trap": 162, "bgp": 179, "irc": 194, "ldap": 389, "https": 443, "microsoft-ds": 445, "kpasswd": 464,
    "submissions": 465, "isakmp": 500, "syslog": 514, "printer": 515, "dhcpv6-client": 546, "dhcpv6-server": 547,
    "rtsp": 554, "nntps": 563, "submission": 587, "ipp": 631, "ldaps": 636, "domain-s": 853, "rsync": 873, "imaps": 993,
    "pop3s": 995, "socks": 1080, "openvpn": 1194, "ms-sql-s": 1433, "l2f": 1701, "radius": 1812, "radius-acct": 1813,
    "nfs": 2049, "iscsi-target": 3260, "mysql": 3306, "ms-wbt-server": 3389, "svn": 3690, "ipsec-nat-t": 4500, "sip": 5060,
    "sip-tls": 5061, "mdns": 5353, "postgresql": 5432, "amqp": 5672, "amqps": 5671, "redis": 6379, "http-alt": 8080,
    "git": 9418, "zabbix-agent": 10050, "zabbix-trapper": 10051,
}  # fmt: skip

ICMP_TYPES: Final[Mapping[str, tuple[int, int | None]]] = {
    "echo-reply": (0, None), "pong": (0, None), "destination-unreachable": (3, None), "network-unreachable": (3, 0),
    "host-unreachable": (3, 1), "protocol-unreachable": (3, 2), "port-unreachable": (3, 3), "fragmentation-needed": (3, 4),
    "source-route-failed": (3, 5), "network-prohibited": (3, 9), "host-prohibited": (3, 10),
    "communication-prohibited": (3, 13), "source-quench": (4, None), "redirect": (5, None), "echo-request": (8, None),
    "ping": (8, None), "router-advertisement": (9, None), "router-solicitation": (10, None), "time-exceeded": (11, None),
    "ttl-zero-during-transit": (11, 0), "ttl-zero-during-reassembly": (11, 1), "parameter-problem": (12, None),
    "timestamp-request": (13, None), "timestamp-reply": (14, None), "address-mask-request": (17, None),
    "address-mask-reply": (18, None),
}  # fmt: skip
"""name → type and code (None: any)"""

ICMPV6_TYPES: Final[Mapping[str, tuple[int, int | None]]] = {
    "destination-unreachable": (1, None), "no-route": (1, 0), "communication-prohibited": (1, 1), "beyond-scope": (1, 2),
    "address-unreachable": (1, 3), "port-unreachable": (1, 4), "failed-policy": (1, 5), "reject-route": (1, 6),
    "packet-too-big": (2, None), "time-exceeded": (3, None), "ttl-zero-during-transit": (3, 0),
    "ttl-zero-during-reassembly": (3, 1), "parameter-problem": (4, None), "bad-header": (4, 0),
    "unknown-header-type": (4, 1), "unknown-option": (4, 2), "echo-request": (128, None), "ping": (128, None),
    "echo-reply": (129, None), "pong": (129, None), "router-solicitation": (133, None), "router-advertisement": (134, None),
    "neighbour-solicitation": (135, None), "neighbor-solicitation": (135, None), "neighbour-advertisement": (136, None),
    "neighbor-advertisement": (136, None), "redirect": (137, None),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """What one line of a macro matches: a protocol with its port or ICMP type."""

    proto: str
    dport: str | None = None
    icmp_type: str | None = None


def _tcp(*ports: str) -> tuple[Part, ...]:
    return tuple(Part("tcp", port) for port in ports)


def _udp(*ports: str) -> tuple[Part, ...]:
    return tuple(Part("udp", port) for port in ports)


def _both(*ports: str) -> tuple[Part, ...]:
    return (*_udp(*ports), *_tcp(*ports))


MACROS: Final[Mapping[str, tuple[Part, ...]]] = {
    "AMQP": _both("5672"), "Auth": _tcp("113"), "BGP": _tcp("179"), "BitTorrent": (*_tcp("6881:6889"), *_udp("6881")),
    "CephFull": _tcp("3300,6789,6800:7300"), "CephMon": _tcp("3300,6789"), "CephOSD": _tcp("6800:7300"),
    "DHCPfwd": _udp("67:68"), "DHCPv6": _udp("546:547"), "DNS": _both("53"), "FTP": _tcp("21"), "Finger": _tcp("79"),
    "GRE": (Part("gre"),), "Git": _tcp("9418"), "HTTP": _tcp("80"), "HTTPS": (*_tcp("443"), *_udp("443")),
    "ICQ": _tcp("5190"), "IMAP": _tcp("143"), "IMAPS": _tcp("993"), "IPIP": (Part("ipencap"),),
    "IPsec": (*_udp("500"), Part("esp")), "IPsecah": (*_udp("500"), Part("ah")), "IPsecnat": (*_udp("500,4500"), Part("esp")),
    "IRC": _tcp("6667"), "Jetdirect": _tcp("9100"), "L2TP": _udp("1701"), "LDAP": _tcp("389"), "LDAPS": _tcp("636"),
    "MDNS": _udp("5353"), "MSNP": _tcp("1863"), "MSSQL": _tcp("1433"), "Mail": _tcp("25,465,587"), "Munin": _tcp("4949"),
    "MySQL": _tcp("3306"), "NFS": _both("111,2049"), "NNTP": _tcp("119"), "NNTPS": _tcp("563"), "NTP": _udp("123"),
    "NeighborDiscovery": tuple(Part("ipv6-icmp", icmp_type=name) for name in (
        "router-solicitation", "router-advertisement", "neighbour-solicitation", "neighbour-advertisement",
    )),
    "OSPF": (Part("ospf"),), "OpenVPN": _udp("1194"), "PMG": _tcp("8006"), "POP3": _tcp("110"), "POP3S": _tcp("995"),
    "PPtP": (Part("gre"), *_tcp("1723")), "Ping": (Part("icmp", icmp_type="echo-request"),
        Part("ipv6-icmp", icmp_type="echo-request")), "PostgreSQL": _tcp("5432"), "Printer": _tcp("515"),
    "RDP": _both("3389"), "RNDC": _tcp("953"), "Razor": _tcp("2703"), "Rdate": _tcp("37"), "Rsync": _tcp("873"),
    "SANE": _tcp("6566"), "SMB": (*_udp("135,445,137:139"), *_tcp("135,139,445")), "SMTP": _tcp("25"), "SMTPS": _tcp("465"),
    "SNMP": (*_udp("161:162"), *_tcp("161")), "SPAMD": _tcp("783"), "SPICEproxy": _tcp("3128"), "SSH": _tcp("22"),
    "SVN": _tcp("3690"), "SixXS": (*_tcp("3874"), *_udp("3740"), Part("ipv6")), "Squid": _tcp("3128"),
    "Submission": _tcp("587"), "Syslog": _both("514"), "TFTP": _udp("69"), "Telnet": _tcp("23"), "Telnets": _tcp("992"),
    "Time": _tcp("37"), "Trcrt": (*_udp("33434:33524"), Part("icmp", icmp_type="echo-request"),
        Part("ipv6-icmp", icmp_type="echo-request")), "VNC": _tcp("5900:5999"), "VNCL": _tcp("5500"), "VXLAN": _udp("4789"),
    "Web": _tcp("80,443"), "Webcache": _tcp("8080"), "Webmin": _tcp("10000"), "Whois": _tcp("43"), "WireGuard": _udp("51820"),
}  # fmt: skip
"""a service → what it is made of"""
