"""Faults to plant into the safety core: (file, what stands there, what stands there instead), and the tests that must see them.

A text that is not there exactly once fails the run: a mutant follows its code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One fault."""

    file: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()[:60]!r} → {self.new.strip()[:60]!r}"


# below tests/; the most likely ones first
TESTS = {
    "guests/claims.py": "unit/guests/test_claim_decisions.py unit/guests/test_claims.py unit/guests/test_start.py",
    "guests/boot.py": "unit/guests/test_boot_settle.py unit/guests/test_boot.py unit/guests/test_crash.py",
    "tasks/steps.py": "unit/tasks/test_steps_order.py unit/tasks/test_steps.py unit/tasks/test_runner.py",
    "api/permission.py": "unit/api api/test_matrix.py api/access",
    "cluster/store/sqlite.py": "contract/store unit/cluster/test_mirror.py",
    "access/tickets.py": "unit/access/test_tickets.py unit/access/test_authenticate.py unit/access/test_login.py",
    "access/audit.py": "unit/access/test_audit.py",
    "access/rights.py": "unit/access/test_rights.py",
    "storage/image_header.py": "unit/storage/test_images.py",
}


def _of(file: str, *pairs: tuple[str, str]) -> list[Mutant]:
    return [Mutant(file, old, new) for old, new in pairs]


# the first five run in every ./test
MUTANTS = [
    *_of(
        "guests/claims.py",
        ("if claim.free or claim.incarnation == me.id:\n        return Claim(me", "if True:\n        return Claim(me"),
    ),
    *_of("tasks/steps.py", ("for step in reversed(begun):", "for step in reversed(begun[:-1]):")),
    *_of("cluster/store/sqlite.py", ("(row is None or row[0] != check.revision)", "(row is None)")),
    *_of(
        "access/tickets.py", ("return -GRACE_S <= now_s - time_s <= TICKET_LIFE_S", "return -GRACE_S <= now_s - time_s")
    ),
    *_of("api/permission.py", ("if not rights.is_root:", "if False:")),
    *_of(
        "guests/claims.py",
        ("me.id, claim.epoch + 1)", "me.id, claim.epoch)"),
        (
            "if claim.free or claim.node != me.node or claim.incarnation == me.id:",
            "if claim.free or claim.incarnation == me.id:",
        ),
        (
            "if claim.free or claim.node != me.node or claim.incarnation == me.id:",
            "if claim.free or claim.node != me.node:",
        ),
        ("if claim.held_by(me, epoch) else None", "if claim.held_by(me) else None"),
        ("if claim.held_by(me, epoch) else None", "if True else None"),
        ("store.txn([old.check(vmid), *checks], [Put", "store.txn([*checks], [Put"),
        ("store.txn([old.check(vmid), *checks], [Put", "store.txn([old.check(vmid)], [Put"),
        (
            "if (await store.txn([old.check(vmid)], [Put(claim_key(vmid), new.value())])).ok:",
            "if (await store.txn([], [Put(claim_key(vmid), new.value())])).ok:",
        ),
        ("return self.incarnation == me.id and (epoch", "return self.node == me.node and (epoch"),
        (
            "return Claim(None, None, claim.epoch)\n\n\ndef decide_release",
            "return Claim(None, None, 0)\n\n\ndef decide_release",
        ),
    ),
    *_of(
        "tasks/steps.py",
        ("for step in reversed(begun):", "for step in begun:"),
        (
            "            await journal.mark(upid, begun, False)\n",
            "",
        ),
        ("late = await _unstoppable(journal.mark(upid, point, True))", "late = False"),
        ("steps[max(_point(steps), entry.begun - 1) :]", "steps[entry.begun :]"),
        ("steps[max(_point(steps), entry.begun - 1) :]", "steps[entry.begun - 1 :]"),
        ("if entry.committed:\n", "if not entry.committed:\n"),
        ("await _undo(steps[: entry.begun],", "await _undo(steps[: entry.begun - 1],"),
        ("            continue\n        await journal.close(entry.upid)", "        await journal.close(entry.upid)"),
        ("        raise\n    await journal.close(upid)", "    await journal.close(upid)"),
        ("        cancelled = True\n    running", "        running.cancel()\n    running"),
        ("            whole = False", "            whole = True"),
        ('raise Failed("an undo failed")', "pass"),
        (
            "        await _unstoppable(_give_up(journal, upid, steps[:begun], log))\n        raise",
            "        await _unstoppable(_give_up(journal, upid, steps[:begun], log))",
        ),
        (
            "next((n for n, step in enumerate(steps, start=1) if step.point_of_no_return), len(steps))",
            "next((n for n, step in enumerate(steps, start=1) if step.point_of_no_return), 0)",
        ),
        ("await _unstoppable(_give_up(", "await (_give_up("),
        ("    await journal.open(upid, kind, args)\n", ""),
    ),
    *_of(
        "cluster/store/sqlite.py",
        ("if (row is not None) if isinstance(check, Absent)", "if False if isinstance(check, Absent)"),
        ("return TxnResult(False, head)", "return TxnResult(True, head)"),
        ("revision = head + 1", "revision = head + 2"),
        ("created = revision if row is None else row[0]", "created = revision"),
        ('db.execute("update head set revision = ?", (revision,))', "pass"),
        ("return await asyncio.shield(self._commit(write))", "return await self._commit(write)"),
        ("if len(set(keys)) != len(keys):", "if False:"),
        ("if size > MAX_TXN_BYTES:", "if False:"),
        ("if key.startswith(prefix)", "if True"),
        ("if oldest is not None and seen + 1 < oldest:", "if False:"),
        ("durable=True, exclusive=True", "durable=True, exclusive=False"),
        ("                seen = head\n", "                seen = revision\n"),
    ),
    *_of(
        "access/tickets.py",
        ("return -GRACE_S <= now_s - time_s <= TICKET_LIFE_S", "return now_s - time_s <= TICKET_LIFE_S"),
        ("{session}|{user.uid}|{user.epoch}", "{session}|{user.uid}"),
        ("{session}|{user.uid}|{user.epoch}", "{session}|{user.epoch}"),
        (
            "        except InvalidSignature:\n            continue",
            "        except InvalidSignature:\n            pass",
        ),
        ("    if not fresh(claimed.time_s, now_s):\n        return False\n", ""),
        ("{stamp}:{userid}:{session}", "{stamp}:{userid}"),
        ("{stamp}:{userid}:{session}", "{stamp}:{session}"),
        ("or not fresh(int(match[1], 16), now_s)", ""),
        ("good |= hmac", "good = hmac"),
        ("_TICKET.fullmatch(ticket)", "_TICKET.match(ticket)"),
    ),
    *_of(
        "api/permission.py",
        ("(any if self.any_of else all)", "any"),
        ("(any if self.any_of else all)", "all"),
        ('if self.when is not None and params.get(self.when) in (None, ""):', "if False:"),
        (
            "        for form in self.forms:\n            form.check",
            "        for form in self.forms[:1]:\n            form.check",
        ),
        ('        raise first or Forbidden("Permission check failed")', "        return"),
        ('if params.get("userid") != rights.owner:', "if False:"),
        ("if self.priv not in rights.privileges(path):", "if False:"),
        ("if wanted and all(may", "if all(may"),
        (
            'for group in rights.groups_of(str(params.get("userid", "")))) and all(',
            'for group in rights.groups_of(str(params.get("userid", "")))) or all(',
        ),
        ("(alternative is not None and alternative in have)", "alternative is not None"),
        ('        if may("/access/groups"):\n            return\n', "        return\n"),
        ('rf"{root}/[^/]"', 'rf"{root}"'),
    ),
    *_of(
        "guests/boot.py",
        ("await guests.driver.stop(running.vmid)", "pass"),
        ("if claim.free or claim.node != guests.node:", "if claim.free:"),
        ("new = new or claims.decide_release(claim, guests.incarnation, claim.epoch)", "pass"),
        ("checks.append(claim.check(vmid))", "pass"),
        (
            "if not ops or (await guests.store.txn(checks, ops)).ok",
            "if not ops or (await guests.store.txn([], ops)).ok",
        ),
        ("await guests.driver.stop(vmid)  # reaps", "pass  # reaps"),
    ),
    *_of(
        "access/audit.py",
        ("if chain(str(prev), record) != digest:", "if False:"),
        ("if head is not None and prev != head:", "if False:"),
        ('record["what"] != "torn" or ', ""),
        (' or record["params"].get("sha256") != hashlib.sha256(pending).hexdigest()', ""),
    ),
    *_of(
        "access/rights.py",
        ("if self._base is None or not own:", "if True:"),
        ('if path.count("/") > DEPTH_LIMIT:', "if False:"),
        ("if not roles or NO_ACCESS in roles:", "if not roles:"),
        ("found.get(priv, False) or propagates", "propagates"),
        ("own[p] and base[p] for p in own", "own[p] for p in own"),
        ("{role: False for pool in pools", "{role: True for pool in pools"),
        ("if level and level[1]:", "if level:"),
        ("        if self.is_root:\n            return _EVERYTHING\n", ""),
    ),
    *_of(
        "storage/image_header.py",
        ("    if backing:\n", "    if False:\n"),
        ("if incompatible & 4:", "if False:"),
        ("if incompatible & 2:", "if False:"),
        ("if incompatible & ~0b11111:", "if False:"),
        ("    if crypt:\n", "    if False:\n"),
        ("if not 9 <= bits <= 21 or size > _MAX_SIZE:", "if not 9 <= bits <= 21:"),
        ("if not 104 <= length <= 1 << bits:", "if not 104 <= length:"),
        ("if extra > 1024:", "if False:"),
        ('out["names_other"] = "extents"', "pass"),
        ("except (Broken, struct.error, OverflowError, OSError)", "except Broken"),
    ),
]
