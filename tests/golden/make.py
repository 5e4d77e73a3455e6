"""Makes the committed fixtures anew: `python -m tests.golden.make`.

Needs the `parity` extra. One folder a case: config.json and model.safetensors as
transformers saves them, and expected.safetensors with inputs, intermediates, outputs,
loss and gradients. All numbers come from seeded random generators. Where a fixture
changes without a change of the case, the reference's version did it: say so in the
commit.
"""

import pathlib
import shutil

from safetensors.numpy import save_file

from . import bert_cases, bert_reference

HERE = pathlib.Path(__file__).parent


def main():
    for name, case in bert_cases.CASES.items():
        if not case.golden:
            continue
        folder = HERE / "bert" / name
        shutil.rmtree(folder, ignore_errors=True)
        net = bert_reference.model(case)
        net.save_pretrained(folder)
        given = bert_cases.inputs(case)
        expected = bert_reference.compute(net, given)
        save_file(given | expected, folder / "expected.safetensors")
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder.relative_to(HERE)}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
