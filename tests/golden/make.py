"""Makes the committed fixtures anew: `python -m tests.golden.make`.

Needs the `parity` extra. One folder a case: config.json and model.safetensors as the
library saves them, and expected.safetensors with inputs, intermediates, outputs, loss
and gradients, or with the tokens that it generates. All numbers come from seeded
random generators. Where a fixture changes without a change of the case, the reference's
version did it: say so in the commit.
"""

import functools
import pathlib
import shutil

from safetensors.numpy import save_file

from fmjax import interop

from . import (
    bert_cases,
    bert_reference,
    generation_cases,
    generation_reference,
    lm_cases,
    lm_reference,
    vision_cases,
    vision_reference,
)

HERE = pathlib.Path(__file__).parent


def main():
    for name, case in bert_cases.CASES.items():
        if case.golden:
            net, given = (
                bert_reference.model(case),
                bert_cases.inputs(case, batch=bert_cases.ROWS),
            )
            write("bert", name, net, given, bert_reference.compute)
    for name, case in lm_cases.CASES.items():
        if case.golden:
            net, given = (
                lm_reference.model(case),
                lm_cases.inputs(case, batch=bert_cases.ROWS),
            )
            compute = functools.partial(lm_reference.compute, case)
            write("lm", name, net, given, compute)
    for name, text in generation_cases.TEXTS.items():
        if text.golden:
            net = generation_reference.model(text)
            made = {}
            for case in generation_cases.GOLDEN:
                if case == "own":
                    generation_reference.settle(net, text)
                found = generation_reference.compute(net, text, case)
                made |= {f"{case}/{key}": array for key, array in found.items()}
            write("generation", name, net, made, lambda *_: {})
    for name, case in vision_cases.CASES.items():
        if case.golden:
            net, given = (
                vision_reference.model(case),
                vision_cases.inputs(case, batch=bert_cases.ROWS),
            )
            save = functools.partial(vision_reference.save, case)

            def compute(net, given, case=case, name=name):
                loaded = interop.read(HERE / "vision" / name)
                rename = case.family.canonical(loaded.net)
                return vision_reference.compute(case, net, given, rename)

            write("vision", name, net, given, compute, save)


def write(group, name, net, given, compute, save=None):
    folder = HERE / group / name
    shutil.rmtree(folder, ignore_errors=True)
    save(net, folder) if save else net.save_pretrained(folder)
    save_file(given | compute(net, given), folder / "expected.safetensors")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder.relative_to(HERE)}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
