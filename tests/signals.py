"""How commands are started that a test interrupts."""

# Before a command: starts it as a script does with ``&``, so that it inherits that interrupts are ignored.
WITH_INTERRUPTS_IGNORED = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
