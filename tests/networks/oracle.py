"""The network and its loss written down as plainly as the paper's formulas: slow, and independent of the package.

Everything is a function of a state dictionary in the layout in which the authors publish their checkpoints. All four
encoders run, whatever is present; features are then multiplied by the mask, regions and modalities form one dense
tensor, and attention projects keys and values anew for every head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

MODALITIES = ("FLAIR", "T1ce", "T1", "T2")
CLASSES = 4
LEVELS = (1, 2, 3, 4)


@dataclass
class Outputs:
    """What a forward pass returns.

    Args:
        segmentation: probabilities (B, 4, X, Y, Z).
        regions: per level the region probabilities, upsampled to (B, 4, X, Y, Z).
        features: per level the level feature before calibration, (B, C_l, X_l, Y_l, Z_l).
        auxiliary: per present modality the auxiliary decoder's probabilities (B, 4, X, Y, Z).
    """

    segmentation: Tensor
    regions: dict[int, Tensor]
    features: dict[int, Tensor]
    auxiliary: dict[str, Tensor]


def shapes(width: int, calibrated: bool = True) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all parameters in the authors' layout.

    Args:
        width: channels at full resolution.
        calibrated: with the attention of a site.
    """
    found: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        found[f"{name}.weight"] = (outputs, inputs, kernel, kernel, kernel)
        found[f"{name}.bias"] = (outputs,)

    def linear(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.weight"] = (outputs, inputs)
        found[f"{name}.bias"] = (outputs,)

    channels = {level: width * 2 ** (level - 1) for level in LEVELS}
    for m in range(1, 5):
        for level, c in channels.items():
            convolution(f"c{m}_encoder.e{level}_c1.conv", 1 if level == 1 else c // 2, c, 3)
            convolution(f"c{m}_encoder.e{level}_c2.conv", c, c, 3)
            convolution(f"c{m}_encoder.e{level}_c3.conv", c, c, 3)
    for decoder in ("decoder_fuse", "decoder_sep"):
        for level in (3, 2, 1):
            c = channels[level]
            convolution(f"{decoder}.d{level}_c1.conv", 2 * c, c, 3)
            convolution(f"{decoder}.d{level}_c2.conv", 2 * c, c, 3)
            convolution(f"{decoder}.d{level}_out.conv", c, c, 1)
        convolution(f"{decoder}.seg_layer", width, CLASSES, 1)
    for level, c in channels.items():
        fusion, regions = f"decoder_fuse.RFM{level}", f"decoder_fuse.prm_generator{level}"
        for k in range(CLASSES):
            convolution(f"{fusion}.modal_fusion.{k}.weight_layer.0", 4 * c + 1, 128, 1)
            convolution(f"{fusion}.modal_fusion.{k}.weight_layer.2", 128, 4, 1)
        for part in ("region_fusion.fusion_layer", "short_cut"):
            convolution(f"{fusion}.{part}.0.conv", 4 * c, c, 1)
            convolution(f"{fusion}.{part}.1.conv", c, c, 3)
            convolution(f"{fusion}.{part}.2.conv", c, c // 2, 1)
        convolution(f"{regions}.embedding_layer.0.conv", 4 * c, c // 4, 1)
        convolution(f"{regions}.embedding_layer.1.conv", c // 4, c // 4, 3)
        convolution(f"{regions}.embedding_layer.2.conv", c // 4, c, 1)
        convolution(f"{regions}.prm_layer.0.conv", c if level == 4 else 2 * c, 16, 1)
        convolution(f"{regions}.prm_layer.1", 16, CLASSES, 1)
        if calibrated:
            heads = 4 if level == 1 else 8
            for letter in "qkv":
                linear(f"decoder_fuse.x{level}_attn.fc_{letter}", c, heads * c)
            linear(f"decoder_fuse.x{level}_attn.fc_o", heads * c, c)
            found[f"decoder_fuse.x{level}_attn.conv1X1.weight"] = (1, heads, 1, 1)
            found[f"decoder_fuse.x{level}_attn.conv1X1.bias"] = (1,)
    return found


def random_state(width: int, seed: int = 0, calibrated: bool = True) -> dict[str, Tensor]:
    """Random parameters in the authors' layout, of a size that keeps every part of the network at work."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(width, calibrated).items():
        inputs = torch.Size(shape[1:]).numel()
        state[name] = torch.randn(shape, generator=generator) * (0.1 if len(shape) == 1 else inputs**-0.5)
    return state


def random_anchors(width: int, seed: int = 0, rows: int = 16) -> dict[int, Tensor]:
    """Random anchors, per level (rows, C_l)."""
    generator = torch.Generator().manual_seed(seed)
    return {level: torch.randn(rows, width * 2 ** (level - 1), generator=generator) for level in LEVELS}


def forward(
    state: dict[str, Tensor],
    x: Tensor,
    mask: list[bool],
    anchors: dict[int, Tensor] | None = None,
    residual: bool = False,
    training: bool = True,
) -> Outputs:
    """The whole network without dropout.

    Args:
        state: parameters by the authors' names.
        x: images (B, 4, X, Y, Z), sides multiples of 8, modalities in protocol order.
        mask: which of the four modalities are present, the same for every sample.
        anchors: per level the anchors (rows, C_l); without them features are not calibrated (the server).
        residual: add the calibration's output to the feature instead of replacing it.
        training: make what only the loss needs too, ``regions`` and ``auxiliary``; without it they are empty.
    """
    encoded = [_encode(state, f"c{m + 1}_encoder", x[:, m : m + 1]) for m in range(4)]
    auxiliary = {}
    if training:
        auxiliary = {name: _decode_auxiliary(state, encoded[m]) for m, name in enumerate(MODALITIES) if mask[m]}
    presence = torch.tensor(mask, dtype=x.dtype, device=x.device).view(1, 4, 1, 1, 1, 1)
    regions: dict[int, Tensor] = {}
    features: dict[int, Tensor] = {}
    upsampled = None
    for level in reversed(LEVELS):
        stacked = torch.stack([encoded[m][level] for m in range(4)], dim=1) * presence
        region_map = _region_map(state, level, stacked, upsampled)
        if training:
            regions[level] = _upsample(region_map, 2 ** (level - 1))
        feature = _fuse(state, level, stacked, region_map.detach())
        if upsampled is not None:
            feature = _block(state, f"decoder_fuse.d{level}_c2", torch.cat([feature, upsampled], dim=1))
            feature = _block(state, f"decoder_fuse.d{level}_out", feature)
        features[level] = feature
        if anchors is not None:
            calibrated = _attend(state, level, feature, anchors[level])
            feature = feature + calibrated if residual else calibrated
        if level > 1:
            upsampled = _block(state, f"decoder_fuse.d{level - 1}_c1", _upsample(feature, 2))
    segmentation = _convolve(state, "decoder_fuse.seg_layer", feature).softmax(dim=1)
    return Outputs(segmentation, regions, features, auxiliary)


def training_loss(outputs: Outputs, label: Tensor) -> tuple[Tensor, dict]:
    """Dice and cross entropy of the segmentation, of every region map and of every present modality's auxiliary map.

    Args:
        outputs: what :func:`forward` returned.
        label: classes (B, X, Y, Z), int64.

    Returns:
        The sum of all parts, and the parts as (cross entropy, Dice): ``final``, ``regions`` by level, ``auxiliary`` by
        modality.
    """
    truth = torch.stack([label == k for k in range(CLASSES)], dim=1).to(outputs.segmentation.dtype)
    parts = {
        "final": _loss_parts(outputs.segmentation, truth),
        "regions": {level: _loss_parts(region_map, truth) for level, region_map in outputs.regions.items()},
        "auxiliary": {name: _loss_parts(aux, truth) for name, aux in outputs.auxiliary.items()},
    }
    pairs = [parts["final"], *parts["regions"].values(), *parts["auxiliary"].values()]
    return sum(cross_entropy + dice for cross_entropy, dice in pairs), parts


def _loss_parts(probabilities: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    dice = 1.0
    for k in range(CLASSES):
        p, t = probabilities[:, k], truth[:, k]
        dice = dice - 2 * (p * t).sum() / (p.sum() + t.sum() + 1e-7) / CLASSES
    voxels = truth[0, 0].numel()
    samples = []
    for p, t in zip(probabilities, truth, strict=True):
        weights = 1 - t.sum(dim=(1, 2, 3)) / voxels
        samples.append(-(weights.view(-1, 1, 1, 1) * t * p.clamp(0.005, 1).log()).sum(dim=0).mean())
    return torch.stack(samples).mean(), dice


def _convolve(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return functional.conv3d(x, weight, state[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)


def _block(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    x = functional.instance_norm(_convolve(state, f"{name}.conv", x, stride), eps=1e-5)
    return functional.leaky_relu(x, 0.2, inplace=True)


def _upsample(x: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return x
    return functional.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)


def _encode(state: dict[str, Tensor], name: str, x: Tensor) -> dict[int, Tensor]:
    levels = {}
    for level in LEVELS:
        y = _block(state, f"{name}.e{level}_c1", x, stride=1 if level == 1 else 2)
        x = y + _block(state, f"{name}.e{level}_c3", _block(state, f"{name}.e{level}_c2", y))
        levels[level] = x
    return levels


def _decode_auxiliary(state: dict[str, Tensor], levels: dict[int, Tensor]) -> Tensor:
    x = levels[4]
    for level in (3, 2, 1):
        x = _block(state, f"decoder_sep.d{level}_c1", _upsample(x, 2))
        x = _block(state, f"decoder_sep.d{level}_c2", torch.cat([x, levels[level]], dim=1))
        x = _block(state, f"decoder_sep.d{level}_out", x)
    return _convolve(state, "decoder_sep.seg_layer", x).softmax(dim=1)


def _region_map(state: dict[str, Tensor], level: int, stacked: Tensor, upsampled: Tensor | None) -> Tensor:
    name = f"decoder_fuse.prm_generator{level}"
    x = stacked.flatten(1, 2)
    for i in range(3):
        x = _block(state, f"{name}.embedding_layer.{i}", x)
    if upsampled is not None:
        x = torch.cat([upsampled, x], dim=1)
    x = _block(state, f"{name}.prm_layer.0", x)
    return _convolve(state, f"{name}.prm_layer.1", x).softmax(dim=1)


def _fuse(state: dict[str, Tensor], level: int, stacked: Tensor, region_map: Tensor) -> Tensor:
    """Region-aware fusion of ``stacked`` (B, modality, C, X, Y, Z) under ``region_map`` (B, class, X, Y, Z)."""
    name = f"decoder_fuse.RFM{level}"
    # The dense tensor: (B, modality, class, C, X, Y, Z).
    dense = stacked[:, :, None] * region_map[:, None, :, None]
    regions = []
    for k in range(CLASSES):
        share = region_map[:, k].mean(dim=(1, 2, 3)).view(-1, 1) + 1e-7
        pooled = [dense[:, m, k].mean(dim=(2, 3, 4)) / share for m in range(4)]
        x = torch.cat([*pooled, share], dim=1)[..., None, None, None]
        x = _convolve(state, f"{name}.modal_fusion.{k}.weight_layer.0", x)
        x = torch.where(x >= 0, x, 0.2 * x)
        weights = torch.sigmoid(_convolve(state, f"{name}.modal_fusion.{k}.weight_layer.2", x))
        regions.append((weights[:, :, None] * dense[:, :, k]).sum(dim=1))
    fused = torch.cat(regions, dim=1)
    short_cut = stacked.flatten(1, 2)
    for i in range(3):
        fused = _block(state, f"{name}.region_fusion.fusion_layer.{i}", fused)
        short_cut = _block(state, f"{name}.short_cut.{i}", short_cut)
    return torch.cat([fused, short_cut], dim=1)


def _attend(state: dict[str, Tensor], level: int, feature: Tensor, anchors: Tensor) -> Tensor:
    """LACCA: every voxel of ``feature`` (B, C, X, Y, Z) asks the ``anchors`` (rows, C)."""
    name = f"decoder_fuse.x{level}_attn"
    channels = feature.shape[1]
    voxels = feature.flatten(2).transpose(1, 2)

    def project(letter: str, x: Tensor) -> Tensor:
        return functional.linear(x, state[f"{name}.fc_{letter}.weight"], state[f"{name}.fc_{letter}.bias"])

    queries, keys, values = project("q", voxels), project("k", anchors), project("v", anchors)
    heads = []
    for start in range(0, queries.shape[-1], channels):
        head = slice(start, start + channels)
        attention = (queries[..., head] @ keys[:, head].T / channels**0.5).softmax(dim=-1)
        heads.append(attention @ values[:, head])
    return project("o", torch.cat(heads, dim=-1)).transpose(1, 2).reshape(feature.shape)
