import torch

from mitfrnet.models.mitfrnet.extraction import Extraction


def extraction(*, causal: bool = False) -> Extraction:
    torch.manual_seed(0)
    return Extraction(
        dims={"text": 3, "acoustic": 2, "visual": 4},
        dim=6,
        heads=3,
        intra_layers=2,
        cross_layers=1,
        feedforward_dim=12,
        kernels={"text": 1, "acoustic": 5, "visual": 3},
        text_dropout=0.0,
        attention_dropout={"text": 0.1, "acoustic": 0.2, "visual": 0.3},
        relu_dropout=0.0,
        residual_dropout=0.0,
        embed_dropout=0.0,
        causal=causal,
    ).eval()


def inputs() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    shapes = {"text": (4, 3), "acoustic": (9, 2), "visual": (5, 4)}
    values = {m: torch.randn(1, *shape) for m, shape in shapes.items()}
    return values, {m: torch.ones(1, n, dtype=torch.bool) for m, (n, _) in shapes.items()}


def test_shapes_and_encoders():
    """Nine encoders; H has 3 x 6 features at the modality's own steps."""
    model = extraction()
    assert len(model.encoders) == 9
    assert len(model.encoders["text_to_text"].layers) == 2
    assert len(model.encoders["acoustic_to_text"].layers) == 1
    assert all(c.conv.bias is None for c in model.convolutions.values())
    encoded = model(*inputs())
    assert {m: tuple(h.shape) for m, h in encoded.items()} == {
        "text": (1, 4, 18),
        "acoustic": (1, 9, 18),
        "visual": (1, 5, 18),
    }


def test_attention_dropout_is_that_of_the_source():
    layers = extraction().encoders["acoustic_to_text"].layers
    assert layers[0].attention.dropout == 0.2


def test_each_third_of_h_sees_its_own_sources():
    """Eq. 6 for the visual modality: [v -> v; l -> v; a -> v]; all queries are visual."""
    model = extraction()
    values, valid = inputs()
    before = model(values, valid)["visual"]
    for changed, thirds in (("text", [1]), ("acoustic", [2]), ("visual", [0, 1, 2])):
        other = model({**values, changed: values[changed] + 1}, valid)["visual"]
        moved = (other - before).abs().unflatten(-1, (3, 6)).amax((0, 1, 3)) > 0
        assert moved.nonzero().flatten().tolist() == thirds


def test_causal_setting_reaches_the_encoders():
    """A text step sees no later text; kernel 1 lets none through either."""
    values, valid = inputs()
    later = values["text"].clone()
    later[0, 3] += 1
    for causal, changes in ((True, False), (False, True)):
        model = extraction(causal=causal)
        change = model({**values, "text": later}, valid)["text"] - model(values, valid)["text"]
        assert bool(change[0, 0, :6].any()) is changes
