// The life of a virtual machine through npm proxmox-api; facts come as JSON on standard input. Fails with a sentence.
import { readFileSync } from "node:fs";
import proxmoxApi from "proxmox-api";

const facts = JSON.parse(readFileSync(0, "utf8"));
const { node, vmid, clone } = facts;
const panal = proxmoxApi({ host: "127.0.0.1", port: facts.port, username: facts.username, password: facts.password });
const here = panal.nodes.$(node);
const vm = here.qemu.$(vmid);

async function ended(what, upid) {
  for (;;) {
    const status = await here.tasks.$(upid).status.$get();
    if (status.status === "stopped") {
      if (status.exitstatus !== "OK") throw new Error(`${what}: ${status.exitstatus}`);
      console.log(`${what}: OK`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function expect(what, found, wanted) {
  if (found !== wanted) throw new Error(`${what}: ${found}, not ${wanted}`);
}

await ended("create", await here.qemu.$post({ ...facts.config, vmid, name: "from-npm" }));
await ended("start", await vm.status.start.$post());
expect("status", (await vm.status.current.$get()).status, "running");
await ended("snapshot", await vm.snapshot.$post({ snapname: "before", vmstate: true }));
const snapshots = await vm.snapshot.$get();
expect("snapshot with memory", snapshots.find((one) => one.name === "before").vmstate, 1);
await ended("rollback", await vm.snapshot.$("before").rollback.$post());
expect("status after rollback", (await vm.status.current.$get()).status, "running");
// while it runs
await ended("clone", await vm.clone.$post({ newid: clone, name: "npm-clone", full: true }));
const before = (await here.qemu.$(clone).config.$get()).scsi0;
await ended("resize", await here.qemu.$(clone).resize.$put({ disk: "scsi0", size: "+16M" }));
const after = (await here.qemu.$(clone).config.$get()).scsi0;
if (before === after) throw new Error(`resize changed nothing: ${after}`);
await ended("delete the clone", await here.qemu.$(clone).$delete());
await ended("stop", await vm.status.stop.$post());
await ended("delete", await vm.$delete());
const left = (await here.qemu.$get()).map((one) => one.vmid);
if (left.includes(vmid) || left.includes(clone)) throw new Error(`still there: ${left}`);
