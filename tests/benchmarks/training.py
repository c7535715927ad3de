"""A training against a bare loop over the same network, batches and optimizer.

`python -m tests.benchmarks.training` prints steps a second and peak memory of both, in turns.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, ROUNDS = 40, 2
BATCH = 4
LEAST_RATIO, MOST_MEMORY = 0.95, 1.05


def ours(folder: Path) -> float:
    """Steps a second of the trainer, without loading and without checkpoints."""
    import numpy as np

    from safelight.engines.diffusers.training import trainer
    from safelight.engines.training import DatasetOptions, Example, TrainingOptions, TrainRequest

    class Timed:
        begun = ended = 0.0

        def checkpoints(self):
            return []

        def read(self, name):
            return None

        def write(self, name, content):
            pass

        def drop(self, name):
            pass

        def told(self, point, losses):
            if point.step == 10:  # what is allocated once is there
                self.begun = time.process_time()
            self.ended = time.process_time()

        def sampled(self, step, prompts, pictures):
            pass

    draw = np.random.default_rng(0)
    examples = [
        Example(draw.integers(0, 256, (64, 64, 3), np.uint8), f"thing {at}") for at in range(12)
    ]
    options = TrainingOptions(max_train_steps=STEPS, train_batch_size=BATCH, sample_every=0)
    asked = TrainRequest("starter", DatasetOptions(), options, seed=0)
    trainer.encode_dataset(asked, examples, folder / "data")
    timed = Timed()
    trainer.train(asked, folder / "data", timed, folder / "trained")
    return (STEPS - 10) / (timed.ended - timed.begun)


def bare(folder: Path) -> float:
    """The same by peft and torch alone."""
    import numpy as np
    import torch
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, inject_adapter_in_model

    from safelight.weights.places import STARTER

    del folder
    pipeline = StableDiffusionPipeline.from_pretrained(STARTER, local_files_only=True)
    unet, scheduler = pipeline.unet, pipeline.scheduler
    for module in (unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False)
    targets = [
        name
        for name, layer in unet.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and "attentions" in name
    ]
    inject_adapter_in_model(LoraConfig(r=16, lora_alpha=16, target_modules=targets), unet)
    weights = [p for n, p in unet.named_parameters() if "lora_" in n]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    draw = np.random.default_rng(0)
    with torch.no_grad():
        pixels = torch.from_numpy(draw.integers(0, 256, (12, 3, 64, 64)).astype(np.float32))
        latents = pipeline.vae.encode(pixels / 127.5 - 1).latent_dist.mode()
        latents = latents * pipeline.vae.config.scaling_factor
        texts = pipeline.encode_prompt([f"thing {at}" for at in range(12)], "cpu", 1, False)[0]
    unet.train()
    begun = 0.0
    for step in range(STEPS):
        if step == 10:
            begun = time.process_time()
        chosen = torch.randint(12, (BATCH,))
        noise = torch.randn(BATCH, *latents.shape[1:])
        moments = torch.randint(1000, (BATCH,))
        noisy = scheduler.add_noise(latents[chosen], noise, moments)
        wanted = scheduler.get_velocity(latents[chosen], noise, moments)
        said = unet(noisy, moments, encoder_hidden_states=texts[chosen]).sample
        loss = torch.nn.functional.mse_loss(said, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss)
    return (STEPS - 10) / (time.process_time() - begun)


def once(which: str) -> dict[str, float]:
    """One measurement in a process of its own."""
    words = [sys.executable, "-m", "tests.benchmarks.training", which]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return json.loads(told.splitlines()[-1])


def main() -> int:
    """Measure both in turns, or one of them; 1 when a bar is missed."""
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            rate = {"ours": ours, "bare": bare}[sys.argv[1]](Path(folder))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"rate": rate, "peak": peak}))  # noqa: T201
        return 0
    found: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for _ in range(ROUNDS):
        for which, measured in found.items():
            measured.append(once(which))
    best = {which: max(one["rate"] for one in measured) for which, measured in found.items()}
    peak = {which: min(one["peak"] for one in measured) for which, measured in found.items()}
    line = {
        "benchmark": "training",
        "steps_a_cpu_second": round(best["ours"], 3),
        "bare": round(best["bare"], 3),
        "ratio": round(best["ours"] / best["bare"], 3),
        "peak_mib": round(peak["ours"]),
        "bare_peak_mib": round(peak["bare"]),
        "peak_ratio": round(peak["ours"] / peak["bare"], 3),
    }
    print(json.dumps(line))  # noqa: T201
    return int(line["ratio"] < LEAST_RATIO or line["peak_ratio"] > MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
