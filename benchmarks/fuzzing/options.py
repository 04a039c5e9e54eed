"""What is typed: --methods, --set, --seeds, --nfe and --size, up to the methods that they name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from fuzzing.mutating import NUMBERS, TEXTS, odd_text
from fuzzing.worker import Input

METHODS = (
    "diffusion-dpo", "diffusion-dpo,sft", "diffusion-dpo[beta=500],tpo,tmm+ipa", "tpo[t_mid=0.5]", "sft+diffusion-dpo",
    "flow-grpo[beta=0.1,clip_range=0.2]", "ipa[eta_bg=0.1]", "base,sft",
)  # fmt: skip
SETS = ("diffusion-dpo.beta=500", "tpo.t_mid=0.6", "flow-grpo.beta=0", "ipa.fraction=0.5", "sft.criterion=motion")
SEEDS, NFES, SIZES = ("3", "0,1,2", "7,"), ("20", "100,30,10"), ("512x512", "640x480")
ALPHABET = "[]+,=.-_ xyz019AZ\n\t\x00\x1béß中\u202e\"'\\/$%&#{}<>|;`*?"


class Options:
    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        from halign_bench import registry

        for name in registry.names("method"):
            registry.get("method", name)  # imported before the first case is timed
        return [{}]

    def change(self, seeds: list[Input], rng: random.Random) -> Input:
        choices = {"methods": METHODS, "set": SETS, "seeds": SEEDS, "nfe": NFES, "size": SIZES}
        asked = {name: rng.choice(texts) for name, texts in choices.items()}
        name = rng.choice(("methods", "methods", "set", "set", "seeds", "nfe", "size"))
        text = asked[name]
        if rng.random() < 0.4:
            text = text.replace("500", str(rng.choice(NUMBERS))).replace("0.5", rng.choice(TEXTS))
        asked[name] = odd_text(text, rng, ALPHABET, METHODS) if rng.random() < 0.9 else text
        return {"options.json": json.dumps(asked).encode()}

    def run(self, folder: Path) -> None:
        """Each option by itself, so that one that is refused does not hide the next."""
        from halign_bench.errors import HalignError
        from halign_bench.grammar import parse_methods, parse_nfe, parse_seeds, parse_size
        from halign_bench.plan import RunRequest, plan

        def planned(methods: str, *settings: str) -> Callable[[], object]:
            return lambda: plan(RunRequest(
                methods=[methods], track="puppet", backbone="puppet-dit", profile="smoke", overrides=list(settings)
            ))  # fmt: skip

        asked = json.loads((folder / "options.json").read_text())
        refusal: HalignError | None = None
        for read in (
            lambda: parse_methods(asked["methods"]), lambda: parse_seeds(asked["seeds"]),
            lambda: parse_nfe(asked["nfe"]), lambda: parse_size(asked["size"]), planned(asked["methods"]),
            planned("diffusion-dpo,tpo,ipa,flow-grpo", asked["set"]),
        ):  # fmt: skip
            try:
                read()
            except HalignError as problem:
                refusal = problem
        if refusal is not None:
            raise refusal


TARGETS = {"grammar": Options}
