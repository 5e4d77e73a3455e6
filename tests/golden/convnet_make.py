"""Makes the convolutional nets' fixtures anew: `python -m tests.golden.convnet_make`.

Needs torch and timm. One file a case: a part of what the reference computes. Weights
and inputs are `convnet_cases`', from seeded generators.
"""

import pathlib

from safetensors.numpy import save_file

from . import convnet_cases as cases
from . import convnet_reference as reference

FOLDER = pathlib.Path(__file__).parent / "convnets"


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, case in cases.CASES.items():
        if not case.golden:
            continue
        net = reference.model(case)
        ours, shapes = cases.shapes_of(case)
        theirs = {k: tuple(t.shape) for k, t in net.state_dict().items()}
        counts = {k for k in theirs if k.endswith("num_batches_tracked")}
        assert shapes == {k: v for k, v in theirs.items() if k not in counts}, name
        expected, unsteady = reference.exactly(case, *cases.inputs(case, ours.classes))
        path = FOLDER / f"{name}.safetensors"
        save_file(cases.kept(expected, unsteady), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
