"""Makes qcow2 headers, good and bad, byte by byte."""

import struct


def qcow2(
    *, version=3, size=1 << 20, backing=b"", data_file=b"", incompatible=0, cluster_bits=16, crypt=0, header_length=104,
    snapshots=0, snapshots_at=0, extensions=None,
):  # fmt: skip
    """The first cluster of an image."""
    listed = list(extensions or [])
    if data_file:
        incompatible |= 4
        listed.append((0x44415441, data_file))
    tail = b"".join(
        struct.pack(">II", kind, len(text)) + text + bytes(-len(text) % 8) for kind, text in listed
    ) + bytes(8)
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", version, 104 + len(tail) if backing else 0, len(backing), cluster_bits, size,
        crypt, 1, 3 << 16, 1 << 16, 1, snapshots, snapshots_at, incompatible, 0, 0, 4, header_length,
    )  # fmt: skip
    data = head + tail + backing
    return data + bytes(max(0, (4 << 16) - len(data)))
