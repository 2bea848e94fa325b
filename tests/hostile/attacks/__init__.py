"""One attack a file: `async def attack(executable, scale)` starts its own cluster, attacks it, fails with an
AssertionError if the honest user was affected, and returns a sentence on what it saw."""
