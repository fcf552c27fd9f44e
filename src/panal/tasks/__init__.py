"""Long work and its log: every change that takes time runs as a task with a UPID, a live log, a queue and an end."""
