"""Judges what the Autobahn test suite found: `judge.py REPORTS/index.json`.

No case may fail, every close must be clean, and only the cases of NON_STRICT may be other than strict:
there the suite wants an echo before the failure, and an echo that has to go to a worker and back arrives
after it.

`judge.py --ready` reads `broadgate status --json` and ends with 0 when a gateway and a worker are ready.
"""

import collections
import json
import sys

NON_STRICT = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}


def ready():
    status = json.load(sys.stdin)
    members = [member for key in ("gateways", "workers") for member in status[key]]
    return len(members) == 2 and all(member["state"] == "ready" for member in members)


def judge(path):
    with open(path) as file:
        (results,) = json.load(file).values()
    faults = []
    for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        behavior, close = result["behavior"], result["behaviorClose"]
        if behavior not in ("OK", "INFORMATIONAL") and not (behavior == "NON-STRICT" and case in NON_STRICT):
            faults.append(f"{case}: {behavior}")
        if close not in ("OK", "INFORMATIONAL"):
            faults.append(f"{case}: close {close}")
    counts = collections.Counter(result["behavior"] for result in results.values())
    print(f"{len(results)} cases: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    for fault in faults:
        print(fault)
    return not faults and len(results) > 0


if __name__ == "__main__":
    sys.exit(0 if (ready() if sys.argv[1] == "--ready" else judge(sys.argv[1])) else 1)
