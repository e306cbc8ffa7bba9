"""The few-label subsets of MoNuSeg and Kvasir-SEG, and the targets of chest X-rays, fixed, so that figures repeat.

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

# Ten polyps of Kvasir-SEG, drawn in the same way from its 798 training images.
KVASIR: dict[int, tuple[str, ...]] = {  # draw -> ids
    0: (
        "cju45pm27n80u08174kyow1gj",
        "cju8dqkrqu83i0818ev74qpxq",
        "cju5hwonqedw10801vsd3w6kk",
        "cju18849rrsgr0988p90hkygb",
        "cju32a52lb9rc0799xi40qs00",
        "cju6yywx1whbb0871ksgfgf9f",
        "cju6v4szov55u0871qmqz3v8n",
        "cju5ekty5ckzf07550c9u3ckk",
        "cju35eg0tdmjt085525sb4bua",
        "cju5yeqiwmkgl0801fzv2douc",
    ),
    1: (
        "cju2p4ddkmzxj0993p94o62av",
        "cju7d1tvt25bu08019dvw3uff",
        "cjyztzaqtrv430848l8xgcerw",
        "cju1dfeupuzlw0835gnxip369",
        "cju323ypb1fbb0988gx5rzudb",
        "cju2mh8t6p07008350e01tx2a",
        "cju6w733bveoz0817e600tw72",
        "cjyzkpsbjdsjq07211dfi4sru",
        "cju5vcmrqla7i0817x4sp4pqw",
        "cju5xopi0md7q0871r1sjc1av",
    ),
    2: (
        "cju1cnnziug1l0835yh4ropyg",
        "cju1hmff8tkp809931jps6fbr",
        "cju1fyb1d69et0878muzdak9u",
        "cju41s6nbleqy0755e2mslg0b",
        "cju2srvy5440s0801y1ba9akr",
        "cju8c1a0ws7o208181c6lbsom",
        "cju885ikhnmkn09878s2lqtuh",
        "cju3tp94kfstl08181awh6z49",
        "cju31ugmfb3dz0855xtqshki6",
        "cju7ez7r22qbc08015xfoz2wb",
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
