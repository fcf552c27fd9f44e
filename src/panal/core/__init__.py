"""No I/O: errors, ids, formats, property strings, time, redaction. Everything may import this; it imports nothing of ours."""
