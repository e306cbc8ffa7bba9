"""Make the tables of docs/performance.md: every part of `medtextdiff bench`, each in a process of its own.

    python benchmarks/make_tables.py OUT [--runs 3] [--device cuda] [PART ...]

OUT gets PART.json and PART.txt; a part whose .json is there is left out, so a run that was stopped goes on. Nothing
else should run on the machine meanwhile: one busy process beside it makes some rows six times slower.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from medtextdiff.bench.parts import PARTS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--runs", default="3")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for part in options.parts or PARTS:
        table = options.out / f"{part}.json"
        if table.exists():
            continue
        words = ["bench", "--what", part, "--runs", options.runs, "--device", options.device, "-o", str(table)]
        print(f"{part} ...", flush=True)
        done = subprocess.run([sys.executable, "-m", "medtextdiff", *words], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(part)
        else:
            (options.out / f"{part}.txt").write_text(done.stdout, encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}; run the same command again", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
