"""The few-label subsets of MoNuSeg, fixed and published here, so that a figure can be repeated.

The published papers never said which 5 images they trained on (reference section 2.3). Ours are draws of Python's
`random.Random(draw).sample(sorted(train ids), n)` from the 24 training images, written out.
"""

MONUSEG: dict[tuple[int, int], tuple[str, ...]] = {  # (number of labelled images, draw) -> ids
    (1, 0): ("TCGA-CH-5767-01Z-00-DX1",),
    (1, 1): ("TCGA-50-5931-01Z-00-DX1",),
    (1, 2): ("TCGA-21-5786-01Z-00-DX1",),
    (5, 0): (
        "TCGA-CH-5767-01Z-00-DX1",
        "TCGA-DK-A2I6-01A-01-TS1",
        "TCGA-21-5786-01Z-00-DX1",
        "TCGA-AR-A1AS-01Z-00-DX1",
        "TCGA-G9-6348-01Z-00-DX1",
    ),
    (5, 1): (
        "TCGA-50-5931-01Z-00-DX1",
        "TCGA-G9-6362-01Z-00-DX1",
        "TCGA-38-6178-01Z-00-DX1",
        "TCGA-AR-A1AS-01Z-00-DX1",
        "TCGA-49-4488-01Z-00-DX1",
    ),
    (5, 2): (
        "TCGA-21-5786-01Z-00-DX1",
        "TCGA-38-6178-01Z-00-DX1",
        "TCGA-B0-5711-01Z-00-DX1",
        "TCGA-A7-A13E-01Z-00-DX1",
        "TCGA-RD-A8N9-01A-01-TS1",
    ),
}
