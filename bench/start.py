"""`status/start` → guest running, against `virsh create` of the same guest in the same run, in turn.

Ours: from sending the POST until QEMU runs (the task's end is seen by asking for its status; that is inside the figure).
Theirs: the whole `virsh create`, which returns when the guest runs; and, because that includes starting the program `virsh`,
the same with the time of an empty `virsh` call (`virsh list`) taken off.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from bench.node import BenchNode, node
from bench.report import median_ms, spread, write

ROUNDS = 15
_XML = """<domain type='qemu'><name>bench</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type machine='pc'>hvm</type></os><features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<serial type='pty'/><video><model type='vga'/></video><graphics type='vnc' autoport='yes'/><memballoon model='virtio'/>
</devices></domain>"""


class Libvirt:
    """libvirtd of our own in a directory of our own."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "libvirt-sock"
        qemu = directory / "qemu.conf"
        qemu.write_text(
            'stdio_handler="file"\ncgroup_controllers=[]\nuser="root"\ngroup="root"\nsecurity_driver="none"\n'
            "namespaces=[]\nremember_owner=0\n"
        )
        daemon = directory / "libvirtd.conf"
        daemon.write_text('auth_unix_ro="none"\nauth_unix_rw="none"\n')
        # libvirtd reads /etc/libvirt and writes /run, /var: a mount namespace of its own keeps the machine untouched
        script = (
            "mount --make-rprivate / && mount -t tmpfs none /run && mkdir -p /run/libvirt && "
            f"mount --bind {qemu} /etc/libvirt/qemu.conf && "
            "for d in lib cache log; do mount -t tmpfs none /var/$d/libvirt; done; "
            # not exec: the first process of the namespace must reap what others leave behind, libvirtd does not
            f"libvirtd --config {daemon} --pid-file {directory}/pid; true"
        )
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while self.virsh("list").returncode != 0:
            if time.monotonic() > deadline:
                self.close()
                raise RuntimeError("libvirtd did not start")
            time.sleep(0.2)

    def virsh(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        """In the daemon's mount namespace."""
        child = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pid = (child.read_text().split() or [str(self.process.pid)])[0] if child.exists() else str(self.process.pid)
        enter = ["nsenter", "-t", pid, "-m", "-p", "--", "/usr/bin/virsh", "-q", "-c", "qemu:///system", *args]
        return subprocess.run(enter, capture_output=True, check=False, timeout=20)

    def close(self) -> None:
        """Everything in the pid namespace dies with its first process."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def _ours(started: BenchNode) -> float:
    begin = time.perf_counter()
    started.wait_task(started.call("POST", f"/nodes/{started.name}/qemu/100/status/start"))
    took = time.perf_counter() - begin
    started.wait_task(started.call("POST", f"/nodes/{started.name}/qemu/100/status/stop"))
    return took


def _theirs(libvirt: Libvirt, xml: Path) -> tuple[float, float]:
    begin = time.perf_counter()
    done = libvirt.virsh("create", str(xml))
    took = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    libvirt.virsh("destroy", "bench")
    begin = time.perf_counter()
    libvirt.virsh("list")
    return took, time.perf_counter() - begin


def main() -> None:
    """Measure and write."""
    if os.geteuid() != 0 or shutil.which("libvirtd") is None or shutil.which("virsh") is None:
        raise SystemExit("bench start needs root and the packages libvirt-daemon-system, libvirt-clients")
    directory = Path(tempfile.mkdtemp(prefix="pnlv", dir="/tmp"))
    disk, xml = directory / "disk.qcow2", directory / "bench.xml"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1G"], check=True)
    xml.write_text(_XML.format(disk=disk))
    libvirt = Libvirt(directory)
    try:
        with node("qemu") as started:
            guest = {"vmid": 100, "memory": 128, "virtio0": "local:1", "serial0": "socket", "vga": "std", "kvm": 0}
            started.wait_task(started.call("POST", f"/nodes/{started.name}/qemu", guest))
            _ours(started), _theirs(libvirt, xml)  # warm-up
            ours, theirs, empty = [], [], []
            for _ in range(ROUNDS):
                ours.append(_ours(started))
                took, nothing = _theirs(libvirt, xml)
                theirs.append(took)
                empty.append(nothing)
    finally:
        libvirt.close()
        shutil.rmtree(directory, ignore_errors=True)
    net = [a - b for a, b in zip(theirs, empty, strict=True)]
    write(
        "Starting a guest",
        f"{ROUNDS} rounds in turn; 128 MiB, one vCPU, one 1 GiB qcow2 virtio disk, VGA, serial port, TCG on both sides.",
        ["what", "p50 (min to max)", "goal"],
        [
            ["`status/start` through the API → running", spread(ours), "-"],
            ["`virsh create`", spread(theirs), "-"],
            ["`virsh create` without the start of virsh itself", spread(net), "-"],
            ["ratio to `virsh create`", f"{median_ms(ours) / median_ms(theirs):.2f}", "0.5"],
            ["ratio to it without virsh's own start", f"{median_ms(ours) / median_ms(net):.2f}", "-"],
        ],
    )


if __name__ == "__main__":
    main()
