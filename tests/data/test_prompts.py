"""The grammar of MedVQA-GI's prompts, typos included."""

import pytest

from medtextdiff.data import prompts
from medtextdiff.data.prompts import claims, image_claims


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Generate an image from a colonoscopy procedure.", {"colonoscopy": True}),
        ("Generate an image from a gastroscopy procedure.", {"colonoscopy": False}),
        ("Generate an image with no polyps.", {"polyp": False, "several polyps": False}),
        ("Generate an image with 1 polyp.", {"polyp": True, "several polyps": False}),
        ("Generate an image with 16 polyps.", {"polyp": True, "several polyps": True}),
        ("Generate an image with no findings.", {"finding": False, "several findings": False}),
        ("Generate an image with 2 instruments.", {"instrument": True, "several instruments": True}),
        ("Generate an image containing text.", {"text": True}),
        ("Generate an image not containing text.", {"text": False}),
        ("Generate an image not containing a green/black box artefact.", {"black box": False}),
        ("Generate an image containing a green/black box artefact.", {"black box": True}),
        ("Generate an image containing a polyp.", {"polyp": True, "finding": True}),
        (
            "Generate an image containing a polypandoesophagitis.",
            {"polyp": True, "finding": True, "oesophagitis": True},
        ),
        (
            "Generate an image containing polyp snareandtube.",
            {"polyp snare": True, "tube": True, "instrument": True},
        ),
        ("Generate an image containing the z-line.", {"z-line": True}),
        ("Generate an image with Pink findings.", {}),
        ("A dermoscopic image of a melanoma.", {}),
        ("", {}),
    ],
)
def test_one_prompt(prompt, said):
    assert claims(prompt) == said


def test_a_list_of_places_is_complete():
    said = claims(
        "Generate an image with an an anatomical landmark located in the center, upper-center and lower-rigth."
    )
    assert {name for name, there in said.items() if there} == {
        "landmark center", "landmark upper-center", "landmark lower-right",
    }  # fmt: skip
    assert sum(not there for there in said.values()) == 6
    assert claims("Generate an image with an an instrument located in the center.")["instrument"]


def test_a_list_of_colours_is_complete_and_its_slips_are_mended():
    said = claims("Generate an image with an abnormality with the colors ink, white and violet.")
    assert {name for name in prompts.COLOURS if said[name]} == {"pink", "white", "purple"}
    assert claims("Generate an image with an abnormality with the color red.")["red"]


def test_sizes_and_types():
    said = claims("Generate an image with polyps of size < 5mm and >20mm.")
    assert {name for name in prompts.GROUPS["polyp size"] if said[name]} == {"polyp < 5mm", "polyp >20mm"}
    said = claims("Generate polyps of type paris is and paris iia.")
    assert {name for name in prompts.TYPES if said[name]} == {"paris is", "paris iia"}
    assert said["polyp"]
    assert claims("Generate a polyp of type paris ip.") == {
        "paris is": False, "paris ip": True, "paris iia": False, "polyp": True, "finding": True,
    }  # fmt: skip


def test_all_prompts_of_an_image_say_most():
    said = image_claims(
        ["Generate an image with 1 finding.", "Generate an image containing ulcerative colitis.",
         "Generate an image with no instruments.", "Generate an image containing text."]
    )  # fmt: skip
    assert said["ulcerative colitis"]
    assert not said["oesophagitis"]
    assert not said["tube"]
    assert not said["z-line"]
    assert "colonoscopy" not in said
    labels = prompts.as_labels(said)
    assert len(labels) == len(prompts.ATTRIBUTES)
    assert labels[prompts.ATTRIBUTES.index("colonoscopy")] == -1


def test_a_single_prompt_leaves_open_what_it_does_not_say():
    for prompt in ("Generate an image with 1 finding.", "Generate an image containing a polyp."):
        assert image_claims([prompt]) == claims(prompt)


def test_contradictions_say_nothing():
    said = image_claims(["Generate an image containing a polyp.", "Generate an image with no polyps."])
    assert "polyp" not in said


def test_every_attribute_has_one_group():
    assert len(set(prompts.ATTRIBUTES)) == len(prompts.ATTRIBUTES)
    assert prompts.group_of("abnormality center") == "place of the abnormality"
    assert prompts.group_of("colonoscopy") == "procedure"
