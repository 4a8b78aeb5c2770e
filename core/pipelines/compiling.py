"""Compiled blocks (DIFFBOX_COMPILE): faster steps, after a first one that takes a minute or more.

A model's repeated blocks share their code, so one graph serves all blocks of both experts, and,
with sizes left open, all sizes. What was compiled is kept in `compiled_dir` for later processes.

Only the blocks' forward is compiled. DiffSynth's `compile_pipeline` compiles the call, which has
the hooks of a run in it, and they are others in every run. The Linears are made hot for LoRAs
before, as the first LoRA would do: so taking the last one off leads back to the first graph.
"""

from __future__ import annotations

import logging

import torch

from core.config import CoreConfig, keep_compiled
from core.errors import ConfigError
from core.pipelines.loading import Loaded

log = logging.getLogger(__name__)

_GRAPHS = 32
"""For each model: one for each set of LoRA-bearing modules, and more where sizes coincide. Torch's
own limit is 8, beyond which it no longer compiles."""


def compile_blocks(loaded: Loaded, config: CoreConfig) -> None:
    """Have the repeated blocks of the models that take the steps compiled when they first run.

    Raises:
        ConfigError: the weights are not all on the device; what moves them can't be compiled.
    """
    pipe, placement = loaded.pipe, loaded.placement.name
    if placement != "full":
        raise ConfigError(
            f"DIFFBOX_COMPILE=1 needs weights that stay on the GPU, and these are kept as "
            f"{placement}: use a larger GPU, DIFFBOX_VRAM_POLICY=full, or DIFFBOX_COMPILE=0"
        )
    keep_compiled(config)
    torch._dynamo.config.recompile_limit = _GRAPHS
    compiled = 0
    for name in pipe.compilable_models:
        model = getattr(pipe, name)
        if model is None:  # dit2 of models with one expert
            continue
        pipe.enable_lora_hot_loading(model)
        for block in model.modules():
            if type(block).__name__ in model._repeated_blocks:
                block.forward = torch.compile(block.forward, dynamic=True)
                compiled += 1
    log.info("%d blocks are compiled when they first run", compiled)
