"""Stage `train`: fit one model at one missing rate with one seed."""

import argparse
from pathlib import Path

from mitfrnet.data.tensors import read_tensors
from mitfrnet.files import sha256_of, write_json
from mitfrnet.missing import read_masks
from mitfrnet.params import load_params
from mitfrnet.training.loop import train
from mitfrnet.training.settings import TrainParams, check_seed, read_planned_model
from mitfrnet.workers.params import RunParams
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="what the training depends on")
    parser.add_argument("--tensors", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timings", type=Path, required=True)
    args = parser.parse_args(argv)

    params = load_params(TrainParams, section="train")
    model_params = read_planned_model(args.plan, args.model)
    splits = read_tensors(args.tensors, ["train", "valid"])
    masks = read_masks(args.masks, {name: split.steps for name, split in splits.items()})
    trained = train(
        splits,
        masks,
        name=args.model,
        model_params=model_params,
        params=params,
        seed=check_seed(args.seed),
        curves=args.out / "curves",
        run=load_params(RunParams, section="run"),
        text_cache=args.work / "text",
        unfinished=args.work / "training",
        code=sha256_of(args.plan),
    )
    if trained.first:
        trained.model.config["training"]["tensors"] = {
            name: sha256_of(args.tensors / f"{name}.safetensors") for name in splits
        }
        trained.model.save(args.out)
        write_json(trained.cost, args.timings)
        trained.checkpoint.remove()


if __name__ == "__main__":
    run_stage(main)
