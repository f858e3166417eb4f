"""The model card: what a model is, how it was trained, its scores, and its limits.

Stage `cards` writes it to `report/cards`, since an output of DVC belongs to one stage. The card
holds the fingerprint of its model, so that a model that was trained again never shows old scores.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mitfrnet.errors import FeatureError
from mitfrnet.files import sha256_of
from mitfrnet.labels import ClassScale, LabelScale, parse_scale
from mitfrnet.metrics import ScoresByMask, metric_names
from mitfrnet.missing import WHOLE_PATTERNS
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.registry import full_name, lacking
from mitfrnet.trained.folder import CARD, ENCODER, SCALING, WEIGHTS

_PAPER = (
    "Li et al., *MIT-FRNet: Modality-invariant temporal representation learning-based feature "
    "reconstruction network for missing modalities*, Expert Systems with Applications, 2024, "
    "[doi:10.1016/j.eswa.2024.123655](https://doi.org/10.1016/j.eswa.2024.123655)"
)
# The rows of the table of scores: missing rate, seed of the test mask, scores.
CardRows = list[tuple[str, str, dict[str, Any]]]


def fingerprint(config: Mapping[str, Any], folder: Path) -> str:
    """Return the SHA-256 of a model's settings, weights and scaling statistics.

    Args:
        config: of the model.
        folder: holds its weights.
    """
    # The format belongs to the folder: the same model may be saved in another one.
    settings = {key: value for key, value in config.items() if key != "format"}
    paths = [folder / WEIGHTS, folder / SCALING]
    if config["text"] == "finetuned":  # otherwise an encoder may be left from another model
        paths += (folder / ENCODER).glob("*.safetensors")
    tensors = {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}
    text = json.dumps([settings, tensors], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def written_card(config: Mapping[str, Any], folder: Path) -> ModelCard | None:
    """Return the card in a model folder, or else the one that stage `cards` wrote; None: no card.

    A card that names another model is ignored. A card outside the folder must name this one.

    Args:
        config: of the model folder.
        folder: the model folder.

    Raises:
        FeatureError: a card cannot be read.
    """
    own = fingerprint(config, folder)
    for path, unless_named in ((folder / CARD, own), (_card_of_stage(folder), None)):
        if not path.is_file():
            continue
        try:
            card = ModelCard(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise FeatureError(
                f"{path}: not a model card ({' '.join(str(error).split())}); mend or remove it"
            ) from error
        if card.data.get("fingerprint", unless_named) == own:
            return card
    return None


def _card_of_stage(folder: Path) -> Path:
    """Return where stage `cards` writes the card of `models/<corpus>/<model>/<rate>/<seed>`."""
    *project, _, corpus, model, rate, seed = ("",) * 5 + folder.resolve().parts
    return Path(*project, "report", "cards", corpus, model, rate, f"{seed}.md")


def model_card(
    config: Mapping[str, Any],
    *,
    fingerprint: str,
    scores: ScoresByMask | None = None,
    corpus: str | None = None,
) -> str:
    """Return the model card: metadata for the Hugging Face hub, then Markdown.

    Args:
        config: of the model folder.
        fingerprint: of the model.
        scores: None: the card says that there are none.
        corpus: the name of the corpus the model was trained on, if known.
    """
    rows = [
        (str(rate), str(seed), dict(one_mask))
        for rate, by_seed in (scores or {}).items()
        for seed, one_mask in by_seed.items()
    ]
    metadata = _metadata(config, rows, corpus, fingerprint).to_yaml()
    return f"---\n{metadata}\n---\n\n" + "\n".join(_body(config, rows, corpus)) + "\n"


def _metadata(
    config: Mapping[str, Any], rows: CardRows, corpus: str | None, fingerprint: str
) -> ModelCardData:
    results = [
        EvalResult(
            task_type="sentiment-analysis",
            task_name="multimodal sentiment analysis",
            dataset_type=corpus or "corpus",
            dataset_name=corpus or "corpus",
            # The hub accepts a metric once per configuration.
            dataset_config=f"missing rate {rate}, mask seed {seed}",
            dataset_split="test",
            metric_type=key,
            metric_name=key,
            metric_value=one_mask[key],
        )
        for rate, seed, one_mask in rows
        for key in metric_names(config["scale"])
        if one_mask.get(key) is not None
    ]
    return ModelCardData(
        language=[config["language"]],
        library_name="mitfrnet",
        tags=["missing-modalities", "multimodal", "sentiment-analysis"],
        model_name=full_name(config) if results else None,
        eval_results=results or None,
        fingerprint=fingerprint,
    )


def _body(config: Mapping[str, Any], rows: CardRows, corpus: str | None) -> Iterator[str]:
    training, scale = config["training"], parse_scale(config["scale"])
    # Imported features say where they are from, not how they were made.
    from_clips = all("source" not in f["identity"] for f in config["features"].values())
    yield f"# {full_name(config)}, {corpus or 'multimodal sentiment'}"
    yield ""
    whole = config["architecture"] == "mitfrnet" and not lacking(config)
    yield (
        "Scores the sentiment of a video clip of a person speaking, from words, voice and face, "
        "even if some of them are missing. "
        f"{'The model of' if whole else 'A model compared in'} {_PAPER}."
    )
    yield ""
    if from_clips:
        yield "```python"
        yield "from mitfrnet import load_model"
        yield ""
        yield 'print(load_model("<this folder>").predict("clip.mp4", text="what is said"))'
        yield "```"
    else:
        yield (
            "It was trained on features that were imported; the package cannot make such features "
            "from clips, and so scores none with it."
        )
    yield ""
    yield f"**Output:** {_output(scale)}."
    yield ""
    yield "## Training"
    yield ""
    clips = training["clips"]
    yield (
        f"- Data: {f'corpus `{corpus}`, ' if corpus else ''}{clips['train']} clips, and "
        f"{clips['valid']} to choose the epoch by (number {training['best_epoch']}, with a task "
        f"loss of {training['best_valid_task_loss']:.4g} on them); language `{config['language']}`."
    )
    # Older models do not have these digests.
    for split, digest in training.get("tensors", {}).items():
        yield f"- SHA-256 of `{split}.safetensors`, which holds them: `{digest}`."
    yield f"- What was hidden: {_hidden(training['masks'])}"
    encoder = config["features"]["text"]["identity"].get("encoder")
    if encoder is not None:
        yield f"- Text encoder: `{encoder}`, {config['text'].replace('finetuned', 'fine-tuned')}."
    for modality in MODALITIES:
        features = config["features"][modality]
        settings = json.dumps(features["identity"].get("settings", {}), sort_keys=True)
        yield (
            f"- {modality.capitalize()} features, {config['dims'][modality]}, fingerprint "
            f"`{features['digest']}`: `{settings}`."
        )
    yield f"- Parameters: {training['parameters']:,}; training seed {training['seed']}."
    network = json.dumps(config["settings"], sort_keys=True)
    yield f"- Settings of the network, `{config['model']}` in `params.yaml`: `{network}`."
    versions = ", ".join(f"{name} {number}" for name, number in sorted(config["versions"].items()))
    yield f"- Libraries: {versions}."
    yield ""
    yield "## Scores"
    yield ""
    yield from _score_table(rows, metric_names(config["scale"]))
    yield ""
    yield "## Intended use, and limits"
    yield ""
    yield (
        "For research on sentiment analysis with missing data. Not for decisions about people: "
        "what a face or a voice shows is not what a person feels, and no score says whether a "
        "person was scored fairly."
    )
    yield ""
    yield (
        "- Scores hold for clips like those trained on: their language, speakers, cameras and "
        "length. They were not measured by age, sex, skin colour or dialect."
    )
    yield ("- Scores carry no measure of uncertainty, even if almost everything is missing.")
    yield "- Only one face per frame is used; with several people it may not be the speaker's."
    if from_clips:
        yield (
            "- Features must be made with the settings in `config.json`; the package makes them, "
            "and refuses other versions of its libraries unless told otherwise."
        )
    yield "- The terms of the training corpus apply to what was learned from it."


def _hidden(masks: Mapping[str, Any]) -> str:
    """Return what training hid, and with which settings."""
    protocol, params = masks["protocol"], masks["params"]
    amount = {
        "complete_train": "nothing in training and validation",
        "fixed_train": f"in training and validation at missing rate {params.get('fixed_rate')}",
        "random_train": "at a rate drawn per clip, redrawn each epoch in training",
    }.get(protocol, f"at missing rate {masks['rate']}, in all splits")
    text = "token by token, before it is encoded"
    if masks["pattern"] in WHOLE_PATTERNS:
        text = "as a whole, like every modality that the pattern hides"
    settings = json.dumps(params, sort_keys=True)
    return (
        f"pattern `{masks['pattern']}`, protocol `{protocol}`: {amount}. Text is hidden {text}. "
        f"Settings of the masks: `{settings}`."
    )


def _output(scale: LabelScale) -> str:
    if isinstance(scale, ClassScale):
        return f"one of the classes {', '.join(f'`{c}`' for c in scale.classes)}"
    return (
        f"a score from {scale.low:g} to {scale.high:g}, negative below {scale.neutral_point:g} and "
        "positive above"
    )


def _score_table(rows: CardRows, names: Iterable[str]) -> Iterator[str]:
    if not rows:
        yield "This model was saved without its scores; run the pipeline to add them."
        return
    yield (
        f"On the test split, {rows[0][2]['n']} clips, with parts hidden by the same pattern, "
        "at the missing rates given."
    )
    yield ""
    keys = [k for k in names if k in rows[0][2] and not k.endswith("_swapped")]
    yield f"| missing rate | mask seed | {' | '.join(keys)} |"
    yield f"| ---: | ---: |{' ---: |' * len(keys)}"
    for rate, seed, one_mask in rows:
        cells = ["" if one_mask.get(k) is None else f"{one_mask[k]:.3f}" for k in keys]
        yield f"| {rate} | {seed} | {' | '.join(cells)} |"
