"""Read a made-up NOTEEVENTS.csv of some size and print the peak memory: python measure_memory.py FOLDER GIGABYTES."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

HEADER = "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT"
WORDS = [
    f"{a}{b}" for a in ("card", "pneum", "neph", "hepat", "my", "oste", "neur") for b in ("itis", "al", "opathy", "o")
]


def write(path: Path, size: int) -> None:
    """Notes of 100 to 8,000 characters of 46,000 patients, up to `size` bytes; no two are the same."""
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS, k=12)) + "." for _ in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        written = file.write(HEADER + "\n")
        number = 0
        while written < size:
            body = "\n".join(rng.choices(lines, k=rng.choice((1, 2, 5, 10, 20, 80))))
            text = f'[**2151-7-{number % 28}**] Note {number}\n\nFINDINGS: a ""quoted"" word, ___.\n{body}'
            row = f'{number},{rng.randrange(46_000)},,2151-07-16,,,"Radiology","CHEST",,,"{text}"\n'
            written += file.write(row)
            number += 1


def read(path: Path) -> dict[str, object]:
    """Read all documents; the report, seconds and peak memory in MB of this process."""
    from medtextdiff.text.corpora import mimic3

    begun = time.monotonic()
    corpus = mimic3.Config(paths=(str(path),)).build()
    characters = sum(len(document) for document in corpus.documents())
    report = corpus.report(hashes=False)
    return {
        "bytes": path.stat().st_size,
        "characters": characters,
        "documents": report["documents"],
        "patients": report["patients"],
        "left_out": report["left_out"],
        "seconds": round(time.monotonic() - begun, 1),
        "peak_mb": _peak_kb() // 1024,
    }


def _peak_kb() -> int:
    """Of this process alone: `ru_maxrss` begins with the peak of the process that started it."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "the peak of a process is read from Linux's /proc"
    return int(found[1])


def measure(folder: Path, gigabytes: float) -> dict[str, object]:
    """Write the file, read it in a process of its own, and delete it."""
    path = folder / "NOTEEVENTS.csv"
    try:
        write(path, int(gigabytes * 1e9))
        command = [sys.executable, __file__, "--read", str(path)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    result = read(Path(sys.argv[2])) if sys.argv[1] == "--read" else measure(Path(sys.argv[1]), float(sys.argv[2]))
    print(json.dumps(result))
