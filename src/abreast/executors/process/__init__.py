"""The pool of processes: a supervisor, private pipes, and a core that decides."""
