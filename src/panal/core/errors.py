"""Every error that Panal raises on purpose, in one tree.

    PanalError
    ├── BadInput            the caller is wrong; names the field               (api: 400)
    │   └── BadParameters   several fields at once                             (api: 400)
    ├── NotAuthenticated    who are you?                                       (api: 401)
    ├── Forbidden           you may not                                        (api: 403)
    ├── NotFound            there is no such thing                             (api: 404 or PVE's 500)
    ├── Conflict            somebody else changed it, or it exists already     (api: PVE's 500)
    ├── Busy                a bounded queue or a limit is full: try again      (api: 429)
    ├── Unsupported         this back end cannot do that; says which can       (api: 501)
    ├── Interrupted         stopped by a person or by a restart                (api: 500)
    ├── Unavailable         a part we need does not answer                     (api: 503)
    │   ├── NoQuorum        the store cannot decide now
    │   └── OutcomeUnknown  the store did not answer: it may have happened
    └── Failed              the system could not do it                         (api: 500)
        └── ProgramFailed   a program ended with an error (host/run.py)

Messages are English sentences that say what to do next. `code` is stable, for translation; `params` are its
arguments. HTTP status codes live only in `api/`, exit codes only in `cli/`. Secrets never go into either.
"""

from __future__ import annotations


class PanalError(Exception):
    """Root of the tree. `code` defaults to the class name in kebab case."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, **params: object) -> None:
        super().__init__(message)
        self.message = message
        self.params = params
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class BadInput(PanalError):
    """One field is wrong. `field` is the name the caller used."""

    code = "bad-input"

    def __init__(self, field: str, message: str, **params: object) -> None:
        super().__init__(message, code=None, field=field, **params)
        self.field = field

    @property
    def fields(self) -> dict[str, str]:
        """Field → what is wrong with it."""
        return {self.field: self.message}


class BadParameters(BadInput):
    """Several fields are wrong; `fields` maps each to its message."""

    code = "bad-parameters"

    def __init__(self, errors: dict[str, str]) -> None:
        if not errors:
            raise ValueError("BadParameters needs at least one field")
        field, message = next(iter(errors.items()))
        super().__init__(field, message)
        self.errors = dict(errors)

    @property
    def fields(self) -> dict[str, str]:
        """Field → what is wrong with it."""
        return self.errors


class NotAuthenticated(PanalError):
    """No valid ticket or token."""

    code = "not-authenticated"


class Forbidden(PanalError):
    """The caller is known and may not do this."""

    code = "forbidden"


class NotFound(PanalError):
    """No such guest, volume, user…"""

    code = "not-found"


class Conflict(PanalError):
    """The thing exists already, or was changed by somebody else in between."""

    code = "conflict"


class Busy(PanalError):
    """A limit or a bounded queue is full."""

    code = "busy"


class Unsupported(PanalError):
    """This back end cannot do that."""

    code = "unsupported"


class Interrupted(PanalError):
    """The work was stopped by a person or by a restart."""

    code = "interrupted"


class Unavailable(PanalError):
    """A part we depend on does not answer."""

    code = "unavailable"


class NoQuorum(Unavailable):
    """The store cannot decide now; nothing was written."""

    code = "no-quorum"


class OutcomeUnknown(Unavailable):
    """The store did not answer in time: the write may or may not have happened."""

    code = "outcome-unknown"


class Failed(PanalError):
    """The system could not do it."""

    code = "failed"


class ProgramFailed(Failed):
    """A program ended with a non-zero status. `stderr` is its last lines, already redacted."""

    code = "program-failed"

    def __init__(self, program: str, status: int, stderr: str) -> None:
        last = stderr.strip().splitlines()[-1] if stderr.strip() else "no message"
        super().__init__(f"{program} failed with status {status}: {last}", program=program, status=status)
        self.status = status
        self.stderr = stderr
