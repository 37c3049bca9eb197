#!/usr/bin/python3
"""Instructions and allocations per record: a regression is seen on a noisy machine too.

    make bench-counts [COUNTS=--keep]

Drains 200 and 2,200 records to the endpoint under callgrind, and with the allocator's
calls counted; the difference, divided by 2,000, has no start-up in it. It is compared
with counts.json beside this: more than the margin above is a failure (exit status 1),
below is news to be kept with --keep. Skipped (77) where valgrind is missing or the
libraries are not those that were counted: their instructions are in it.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

FEW, MANY = 200, 2200
KEPT = pathlib.Path(__file__).with_name("counts.json")
MARGIN = 0.10
ROWS = """UPDATE ledger SET max_spool = 1073741824;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
INSERT INTO interactions (model_id, request_body, response_body, request_id)
SELECT 'anthropic.claude-instant-v1',
  '{{"prompt":"' || substr(hex(zeroblob(600)), 1, 900) || '"}}',
  '{{"completion":"' || substr(hex(zeroblob(600)), 1, 760) || '"}}', 'r' || i FROM n;
PRAGMA wal_checkpoint(TRUNCATE);
"""


class Counter:
    def __init__(self, build, folder):
        self.build, self.folder = build, folder
        self.environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8",
                            "HOME": "/nonexistent"}
        self.endpoint = subprocess.Popen([build / "bench" / "endpoint"], text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.url = self.endpoint.stdout.readline().split()[-1] + "/v1"
        self.config = folder / "agent.conf"
        self.config.write_text(f"[endpoint]\nurl = {self.url}\nconnections = 32\n"
                               "[app default]\napp_key = app-key\napi_key = api-key\n")

    def close(self):
        self.endpoint.terminate()
        self.endpoint.communicate(timeout=30)

    def run(self, command, **more):
        result = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=300,
                                env={**self.environment, **more})
        if result.returncode != 0:
            sys.exit(f"{command[0]} ended with {result.returncode}: {result.stderr}")
        return result.stderr

    def drain(self, count, wrapper=(), **more):
        """Drains a new spool of so many records; returns what was said on the way."""
        spool = self.folder / "spool.db"
        for old in self.folder.glob("spool.db*"):
            old.unlink()
        self.run([self.build / "reconify-agent", "init", "--spool", spool])
        subprocess.run(["sqlite3", "-batch", "-bail", spool], input=ROWS.format(count=count),
                       text=True, check=True, stdout=subprocess.DEVNULL)
        said = self.run([*wrapper, self.build / "reconify-agent", "drain", "--config",
                         self.config, "--spool", spool], **more)
        if f"{count} delivered" not in said:
            sys.exit(f"not all were delivered: {said}")
        return said

    def instructions(self, count):
        said = self.drain(count, ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"])
        return int(re.search(r"Collected : (\d+)", said).group(1))

    def lean_instructions(self, count):
        said = self.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                         self.build / "bench" / "poster", "--lean", "--posts", count, self.url])
        return int(re.search(r"Collected : (\d+)", said).group(1))

    def allocations(self, count):
        counted = self.folder / "allocations"
        self.drain(count, LD_PRELOAD=str(self.build / "bench" / "allocations.so"),
                   ALLOCATIONS_FILE=str(counted))
        return int(counted.read_text().split()[0])


def libraries():
    """Whose instructions are counted too."""
    names = ("libcurl", "sqlite3", "libuv", "libcjson")
    found = (subprocess.run(["pkg-config", "--modversion", name], capture_output=True,
                            text=True).stdout.strip() for name in names)
    return {"machine": os.uname().machine, **dict(zip(names, found))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default="build", help="where the programs are")
    parser.add_argument("--keep", action="store_true", help="keep what is measured")
    options = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if not shutil.which("valgrind"):
        print("counts: skipped, there is no valgrind")
        return 77
    if not options.keep and kept.get("libraries") != libraries():
        print("counts: skipped, counts.json was kept with other versions of the libraries")
        return 77
    with tempfile.TemporaryDirectory(prefix="reconify-") as folder:
        counter = Counter(pathlib.Path(options.build).resolve(), pathlib.Path(folder))
        try:
            asked = {"instructions": counter.instructions, "allocations": counter.allocations}
            if options.keep:
                asked["lean poster's instructions"] = counter.lean_instructions
            measured = {name: round((ask(MANY) - ask(FEW)) / (MANY - FEW))
                        for name, ask in asked.items()}
        finally:
            counter.close()
    if options.keep:
        KEPT.write_text(json.dumps({"per_record": measured, "libraries": libraries()}, indent=1)
                        + "\n")
    failed = False
    for name, value in measured.items():
        old = kept.get("per_record", {}).get(name, value)
        verdict = "as kept"
        if name.startswith("lean"):
            verdict = "to compare with"
        elif value > old * (1 + MARGIN):
            verdict = "MORE than is kept"
            failed = not options.keep
        elif value < old * (1 - MARGIN):
            verdict = "less: keep it, make bench-counts COUNTS=--keep"
        print(f"counts: {value:,} {name} a record, kept {old:,}: {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
