"""Pure decisions: no clock, no lock, no thread, no I/O. Each is a function of what is known."""
