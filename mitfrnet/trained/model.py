"""A trained model with all that it needs to score utterances."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mitfrnet.data.batches import Batch
from mitfrnet.data.masked import MaskedUtterances, mask_utterances
from mitfrnet.data.masked_text import FrozenText
from mitfrnet.data.ragged import Observed
from mitfrnet.data.scaling import Scaling
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError, MitfrnetError
from mitfrnet.features.text_encoder import TextEncoder, best_device, load_tokenizer
from mitfrnet.files import replacing, write_json
from mitfrnet.models import registry
from mitfrnet.models.base import Output, Task
from mitfrnet.trained.folder import CONFIG, ENCODER, FORMAT, SCALING, WEIGHTS, read_config

_SCORED_TOGETHER = 64


class Network(nn.Module):
    """A model, behind its text encoder if that is fine-tuned.

    Args:
        model: one of the registry.
        text_encoder: turns the batch's token ids into its text values; None: the batch has them.
    """

    def __init__(self, model: nn.Module, text_encoder: TextEncoder | None) -> None:
        super().__init__()
        self.model = model
        self.text_encoder = text_encoder

    def forward(self, batch: Batch, *, aux: bool = True) -> Output:
        """Return the model's output for `batch`."""
        if self.text_encoder is not None:
            vectors = self.text_encoder(batch.token_ids, batch.valid["text"])
            # An empty transcript has a null step, which is not a token.
            real = (batch.observed["text"] | batch.hidden["text"])[..., None]
            batch = replace(batch, values={**batch.values, "text": vectors * real})
        return self.model(batch, aux=aux)


@dataclass(frozen=True)
class TrainedModel:
    """Weights, scaling statistics and settings.

    Attributes:
        network: the model.
        scaling: of acoustic and visual features.
        config: `model`, its name in `params.yaml`; `architecture` and `settings`; `dims`; `text`
            (frozen or fine-tuned); `features` (how each modality was made); `scale`; `training`.
    """

    network: Network
    scaling: Scaling
    config: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`, `scaling.safetensors` and `config.json`.

        A fine-tuned text encoder is written beside them with its tokenizer, as a folder that
        transformers reads. The model it started from is then no longer needed.
        """
        encoder = self.network.text_encoder
        parts = {WEIGHTS: _on_cpu(self._own_state()), SCALING: self.scaling.tensors()}
        for name, tensors in parts.items():
            with replacing(folder / name) as temporary:
                save_file(tensors, temporary)
        if encoder is not None:
            tokenizer = load_tokenizer(encoder.bert.name_or_path)
            tokenizer.save_pretrained(folder / ENCODER)
            encoder.bert.save_pretrained(folder / ENCODER)
        write_json(self.config | {"format": FORMAT}, folder / CONFIG)

    def _own_state(self) -> dict[str, Tensor]:
        """Return the weights, except those of the text encoder."""
        state = self.network.state_dict()
        return {k: v for k, v in state.items() if not k.startswith("text_encoder.")}

    @classmethod
    def load(cls, folder: Path) -> "TrainedModel":
        """Return the model of a folder; nothing in it is executed.

        Raises:
            FeatureError: a file is absent, damaged, of a newer version, or does not fit the others.
        """
        config = read_config(folder)
        try:
            model = registry.build(
                config["architecture"],
                dims=config["dims"],
                task=task_of(config["scale"]),
                **config["settings"],
            )
        except (KeyError, TypeError, ValueError, MitfrnetError) as error:
            raise FeatureError(f"{folder / CONFIG}: no model can be built ({error})") from error
        encoder = None
        if config["text"] == "finetuned":
            _refuse_code(folder / ENCODER)
            encoder = TextEncoder(str(folder / ENCODER))
        network = Network(model, encoder)
        loaded = cls(network, _scaling(folder / SCALING, config["dims"]), config)
        weights = _read(folder / WEIGHTS)
        own = loaded._own_state()
        misfits = [n for n in own if n not in weights or weights[n].shape != own[n].shape]
        misfits += sorted(set(weights) - set(own))
        if misfits:
            raise FeatureError(
                f"{folder / WEIGHTS}: {misfits[0]} and {len(misfits) - 1} more do not fit "
                f"{CONFIG} (expected the weights of {config['architecture']}; run train again)"
            )
        network.load_state_dict(weights, strict=False)  # the encoder has its own
        network.to(best_device()).eval()
        return loaded

    def check_features(self, split: SplitTensors) -> None:
        """Refuse tensors whose features have other settings than those of the training.

        Raises:
            FeatureError: names the modality.
        """
        for modality, trained_on in self.config["features"].items():
            if split.metadata["features"][modality]["digest"] != trained_on["digest"]:
                raise FeatureError(
                    f"{modality} features: extracted with other settings than the model was "
                    "trained on (run train again, or extract with the model's settings)"
                )

    def predict(
        self, split: SplitTensors, observed: Observed, text: FrozenText, *, whole: bool
    ) -> NDArray[np.float32]:
        """Return one score, or the index of one class, per utterance, (utterances,).

        Args:
            split: complete features.
            observed: the steps that the mask keeps.
            text: encodes masked transcripts; unused if the text encoder is saved with the model.
            whole: whether the mask hides whole modalities.

        Raises:
            FeatureError: the model was trained on features with other settings.
        """
        self.check_features(split)
        frozen = None if self.network.text_encoder else text
        utterances = mask_utterances(split, observed, self.scaling, frozen, whole=whole)
        return predict_utterances(self.network, utterances).numpy()


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise FeatureError(
            f"{path}: not a complete safetensors file ({error}); fetch it again, or run train again"
        ) from error


def _scaling(path: Path, dims: Mapping[str, int]) -> Scaling:
    tensors = _read(path)
    try:
        scaling = Scaling.from_tensors(tensors)
    except KeyError as error:
        raise FeatureError(f"{path}: no {error} in it; run train again") from error
    for modality, mean in scaling.mean.items():
        if not mean.shape == scaling.scale[modality].shape == (dims[modality],):
            raise FeatureError(
                f"{path}: {modality} has {len(mean)} features (expected {dims[modality]}, as in "
                f"{CONFIG}; run train again)"
            )
    return scaling


def _refuse_code(folder: Path) -> None:
    """Refuse an encoder that brings its own Python code, which transformers offers to run."""
    for path in sorted(folder.glob("*.json")):
        if b'"auto_map"' in path.read_bytes():
            raise FeatureError(
                f"{path}: auto_map asks to run code (expected a type of encoder that transformers "
                "has built in)"
            )


def task_of(scale: Mapping[str, Any]) -> Task:
    """Return the task of a corpus, from the label scale in its metadata."""
    if "classes" in scale:
        return Task(classes=len(scale["classes"]))
    return Task(scale["low"], scale["high"])


@torch.no_grad()
def predict_utterances(network: Network, utterances: MaskedUtterances) -> Tensor:
    """Return scores, or indices of classes, on the CPU, (utterances,), in float32."""
    device = next(network.parameters()).device
    network.eval()
    order = np.argsort(utterances.steps, kind="stable")
    predicted = []
    for start in range(0, len(order), _SCORED_TOGETHER):
        batch = utterances.batch(order[start : start + _SCORED_TOGETHER]).to(device)
        prediction = network(batch, aux=False).prediction
        predicted.append(prediction.argmax(1) if prediction.ndim == 2 else prediction)
    scores = torch.empty(len(utterances))
    scores[torch.from_numpy(order)] = torch.cat(predicted).float().cpu()
    return scores
