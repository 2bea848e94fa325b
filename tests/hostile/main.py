"""Runs attacks against real processes. See `run`."""

import argparse
import asyncio
import importlib
import pkgutil
import resource
import sys
import time
import traceback

import attacks
from cluster import Cluster


def every_attack():
    """Each module of attacks/ is one: `async def attack(executable, scale)` returns what it saw."""
    names = sorted(module.name for module in pkgutil.iter_modules(attacks.__path__))
    return {name: importlib.import_module(f"attacks.{name}") for name in names}


def main():
    known = every_attack()
    parser = argparse.ArgumentParser(description="attacks on a real cluster; ends with 1 if one harms anybody")
    parser.add_argument("executable")
    parser.add_argument("--only", choices=sorted(known), action="append", help="this attack (again for more)")
    parser.add_argument("--scale", type=float, default=1.0, help="the size of the attacks; CI runs 0.1")
    parser.add_argument("--keep-logs", action="store_true", help="keep the folders with the processes' logs")
    options = parser.parse_args()
    Cluster.keep_logs = options.keep_logs

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    failed = 0
    for name, module in known.items():
        if options.only and name not in options.only or getattr(module, "ALONE", False) and not options.only:
            continue
        began = time.monotonic()
        try:
            seen = asyncio.run(module.attack(options.executable, options.scale))
            print(f"ok      {name} ({time.monotonic() - began:.0f} s): {seen}", flush=True)
        except Exception as error:  # whatever it is, the attack has not been withstood
            failed += 1
            print(f"FAILED  {name} ({time.monotonic() - began:.0f} s): {error or type(error).__name__}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc()
    return 1 if failed else 0


sys.exit(main())
