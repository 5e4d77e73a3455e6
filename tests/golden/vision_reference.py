"""transformers' and timm's vision models with random weights, and what they compute."""

import numpy as np
import torch
import transformers

from . import timm_alone


def model(case, seed=0):
    """A reference in evaluation mode, with weights far from any initialiser's."""
    if case.kind == "timm":
        fields = case.config()
        net = timm_alone.import_timm().create_model("vit_base_patch16_224", **fields)
    else:
        kind = getattr(transformers, case.kind)
        config = kind.config_class(**case.config(), attn_implementation="eager")
        net = kind(config)
    if case.kind == "ViTMAEForPreTraining":
        # Version 5.23 fills these tables when it reads a file, not when it makes a net.
        embeddings = net.vit.embeddings
        embeddings.patch_embeddings.projection._is_hf_initialized = False
        embeddings.initialize_weights()
        net.decoder.initialize_weights(embeddings.patch_embeddings.num_patches)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if not parameter.requires_grad:  # MAE's fixed positions
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "logit_scale":
                parameter.fill_(1.7)
            elif parameter.ndim in (2, 4) and "embedding.weight" not in name:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.3 * noise)
    return net.eval()


def save(case, net, folder):
    """As the library itself writes its files."""
    if case.kind != "timm":
        net.save_pretrained(folder)
        return
    hub = timm_alone.import_timm().models._hub
    hub.save_for_hf(net, folder, model_args=case.config(), safe_serialization=True)


def load(case, folder):
    """The library's own reading of a folder; raises where a tensor is not its own."""
    if case.kind == "timm":
        timm = timm_alone.import_timm()
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    kind = getattr(transformers, case.kind)
    net, info = kind.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    expected = {"pooler.dense.weight", "pooler.dense.bias"} & set(info["missing_keys"])
    assert set(info["missing_keys"]) == expected, info
    assert not any(v for k, v in info.items() if k != "missing_keys"), info
    return net.eval()


def compute(case, net, given, rename):
    """Intermediates, outputs, loss and gradients; rename: names in memory to files'."""
    given = {k.removeprefix("input/"): torch.tensor(v) for k, v in given.items()}
    out, hooks = {}, []
    kinds = (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Conv2d)

    for name, module in net.named_modules():
        if isinstance(module, kinds) and not name.startswith("pooler"):
            name = rename(f"{name}.weight").removesuffix(".weight")

            def keep(module, _inputs, output, name=name):
                if isinstance(module, torch.nn.Conv2d):  # to [B, N, D]
                    output = output.flatten(2).transpose(1, 2)
                out[f"act/{name}"] = output

            hooks.append(module.register_forward_hook(keep))
    image = given["image"].permute(0, 3, 1, 2)
    if case.kind == "timm":
        outputs = (net(image),)
    elif case.kind == "ViTMAEForPreTraining":
        # Noise whose order is the one wanted.
        noise = given["order"].long().argsort(dim=1).float()
        result = net(image, noise=noise)
        outputs, loss = (result.logits, result.mask), result.loss
    elif case.kind == "CLIPModel":
        result = net(
            given["tokens"].long(), image, given["mask"].long(), return_loss=True
        )
        outputs = result.image_embeds, result.text_embeds, result.logits_per_image
        loss = result.loss
    elif case.kind == "ViTModel":
        outputs = (net(image).last_hidden_state[:, 0],)
    else:
        outputs = (net(image).logits,)
    for hook in hooks:
        hook.remove()
    if "label" in given:
        label = given["label"].long()
        if outputs[0].shape[1] == 1:
            loss = ((outputs[0][:, 0] - label) ** 2).mean()
        else:
            loss = torch.nn.functional.cross_entropy(outputs[0], label)
    elif "weight" in given:
        loss = (outputs[0] ** 2 * given["weight"]).mean()
    net.zero_grad()
    loss.backward()
    out |= {f"output/{i}": tensor for i, tensor in enumerate(outputs)}
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            out[f"grad/{rename(name)}"] = parameter.grad
    out["loss"] = loss
    # In order, because safetensors writes the memory as it lies.
    arrays = {name: tensor.detach().numpy() for name, tensor in out.items()}
    return {name: np.array(array, order="C") for name, array in arrays.items()}
