"""The few-label subsets of MoNuSeg and the targets of chest X-rays, fixed here, so that a figure can be repeated.

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

# Mask folder -> how a note asks for it; the first phrasing is the one of evaluation.
CHEST_TARGETS: dict[str, tuple[str, ...]] = {
    "masks_left_lung": (
        "The left lung.",
        "Left lung",
        "Mark the left lung.",
        "The lung on the left side.",
        "Left lung field",
    ),
    "masks_right_lung": (
        "The right lung.",
        "Right lung",
        "Mark the right lung.",
        "The lung on the right side.",
        "Right lung field",
    ),
    "masks_lesion": ("All lesions.", "Every lesion", "Mark all lesions.", "All infected areas of the lungs."),
    "masks_ground_glass": (
        "Ground-glass opacity.",
        "Ground glass",
        "Mark the ground-glass opacities.",
        "The areas of ground glass.",
    ),
    "masks_consolidation": (
        "Consolidation.",
        "Consolidated lung tissue",
        "Mark the consolidations.",
        "The areas of consolidation.",
    ),
}
