"""What a call of a known model says about its condition, and that model's own embedding of it.

For a model of your own, any function of the call's arguments by name does:

    read_cond=lambda call: Given(noise=call["t"], label=call["y"])
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lorafusion.dropin.given import Given


class OwnEmbedding:
    """A model whose calls we can read and whose own embedding of the condition we can compute."""

    def __call__(self, call: Mapping[str, Any]) -> Given:
        raise NotImplementedError

    def width(self, model: nn.Module) -> int | None:
        """E of the model's embedding; None = it has none that suits."""
        raise NotImplementedError

    def embed(self, model: nn.Module, given: Given) -> Tensor:
        """The model's embedding (B, E), as its own forward computes it."""
        raise NotImplementedError

    def num_classes(self, model: nn.Module) -> int | None:
        raise NotImplementedError


class DiffusersUNet(OwnEmbedding):
    """diffusers' ``UNet2DModel`` and ``UNet2DConditionModel``: time embedding plus class embedding.

    What a text says reaches their cross-attention by itself. ``class_labels`` of the kinds 'timestep' and 'identity'
    are no classes, and SDXL's added conditions are not read: then the embedding is the time's, and the classes', alone.
    """

    def __call__(self, call: Mapping[str, Any]) -> Given:
        labels = call.get("class_labels")
        whole = labels is None or not labels.is_floating_point()
        return Given(noise=call.get("timestep"), label=labels if whole else None)

    def width(self, model: Any) -> int | None:
        return model.time_embedding.linear_2.out_features

    def num_classes(self, model: Any) -> int | None:
        return model.class_embedding.num_embeddings if isinstance(model.class_embedding, nn.Embedding) else None

    def embed(self, model: Any, given: Given) -> Tensor:
        if given.noise is None:
            raise ValueError("the call gives no timestep (noise), which the model's embedding reads")
        device = next(model.parameters()).device
        steps = torch.as_tensor(given.noise, device=device)
        wave = model.time_proj(steps[None] if steps.ndim == 0 else steps)
        emb = model.time_embedding(wave.to(model.dtype))  # (B, E)
        if isinstance(model.class_embedding, nn.Embedding):
            if given.label is None:
                raise ValueError("the call gives no class_labels (label), which the model's embedding reads")
            label = torch.as_tensor(given.label, device=device)
            weight = model.class_embedding.weight
            mixed = label.to(weight) @ weight if label.is_floating_point() else model.class_embedding(label)
            emb = emb + (mixed if mixed.ndim == 2 else mixed[None])
        act = getattr(model, "time_embed_act", None)
        return emb if act is None else act(emb)


class DiffusersDiT(OwnEmbedding):
    """diffusers' ``DiTTransformer2DModel``: each block embeds time and class anew, so the embedding is one of ours.

    Its last class is the null class of guidance. The model drops labels inside, where no updates see it: to train the
    updates for guidance, give the null class in the call.
    """

    def __call__(self, call: Mapping[str, Any]) -> Given:
        return Given(noise=call.get("timestep"), label=call.get("class_labels"))

    def width(self, model: Any) -> int | None:
        return None

    def num_classes(self, model: Any) -> int | None:
        return int(model.config.num_embeds_ada_norm) + 1


diffusers_unet = DiffusersUNet()
diffusers_dit = DiffusersDiT()
KNOWN = {"diffusers_unet": diffusers_unet, "diffusers_dit": diffusers_dit}
