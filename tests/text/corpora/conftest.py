"""Made-up files in the official schemas of MIMIC-III and MIMIC-IV-Note. No line of them is from a real note."""

import gzip
from pathlib import Path

import pytest

SECRET = "Zebrafibroma"  # stands for a note's text: no message, report or log may hold it
COLUMNS3 = "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION CGID ISERROR TEXT"
HEADER3 = ",".join(f'"{name}"' for name in COLUMNS3.split())
HEADER4 = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"


def row3(number: int, patient: int, text: str, category: str = "Radiology", error: str = "") -> str:
    quoted = text.replace('"', '""')
    return f'{number},{patient},1{number},2151-07-16,,,"{category}","CHEST (PA & LAT)",,{error},"{quoted}"'


def row4(number: int, patient: int, text: str, kind: str = "RR") -> str:
    quoted = text.replace('"', '""')
    times = "2180-05-07 00:00:00,2180-05-07 23:15:00"
    return f'{patient}-{kind}-{number},{patient},2{number},{kind},{number},{times},"{quoted}"'


def report(number: int, patient: int) -> str:
    return (
        f"[**2151-7-16**] 9:01 AM\n CHEST (PORTABLE AP)   Clip # [**Clip Number (Radiology) 123**]\n\n\n\n"
        f'FINAL REPORT\n INDICATION:  "{SECRET}", cough.\r\n\nFINDINGS: Patient {patient}, line {number}:\x07\n'
        f"a nodule, {number} mm, ___ seen by Dr. [**Known lastname 12**].\n\nIMPRESSION: {SECRET} number {number}.\n"
    )


@pytest.fixture
def noteevents(tmp_path: Path) -> Path:
    """300 reports of 60 patients, one of them an error, one a copy, one of another category."""
    rows = [HEADER3] + [row3(n, n % 60, report(n, n % 60)) for n in range(300)]
    rows += [row3(300, 3, "An error, long enough to be a document.", error="1"), row3(301, 7, report(7, 7))]
    rows += [row3(302, 8, "Nursing note, long enough to be a document.", category="Nursing/other ")]
    path = tmp_path / "NOTEEVENTS.csv.gz"
    path.write_bytes(gzip.compress(("\n".join(rows) + "\n").encode()))
    return path


@pytest.fixture
def mimic4_files(tmp_path: Path) -> list[Path]:
    files = {"discharge.csv.gz": "DS", "radiology.csv.gz": "RR"}
    for name, kind in files.items():
        rows = [HEADER4] + [row4(n, 10_000 + n % 30, f"{kind} " + report(n, n % 30), kind) for n in range(60)]
        (tmp_path / name).write_bytes(gzip.compress(("\n".join(rows) + "\n").encode()))
    return [tmp_path / name for name in files]
