import subprocess
import sys

import pytest

from medtextdiff.diffusion import lean_import

ASK = """
import sys
from medtextdiff.diffusion.lean_import import unet_2d_model
found = unet_2d_model()
unneeded = {"peft", "scipy", "diffusers.models.unets.unet_2d_condition", "diffusers.models.transformers"}
heavy = unneeded & set(sys.modules)
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models import transformers, unets
print(sorted(heavy), UNet2DModel is found, unets.UNet2DModel is found, hasattr(transformers, "FluxTransformer2DModel"))
"""


def test_only_what_a_unet_needs_is_imported_and_the_rest_is_there_when_asked_for():
    told = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout
    assert told.split("\n")[0] == "[] True True True"


@pytest.mark.parametrize("error", [ImportError, AttributeError])
def test_another_layout_of_diffusers_is_imported_as_usual(monkeypatch, error):
    from diffusers import UNet2DModel

    def elsewhere(names):
        raise error("moved")

    monkeypatch.setattr(lean_import, "_bare", elsewhere)
    monkeypatch.delitem(sys.modules, "diffusers.models.unets.unet_2d")
    assert lean_import.unet_2d_model() is UNet2DModel
