"""Encoders pre-trained one by one, and how a pre-trained encoder becomes part of MMA-DFER."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mma_trainer.model import MMADFER, MMADFERConfig
from mma_trainer.model.encoder import Encoder
from mma_trainer.model.inputs import ContractModel, prepare_frames, prepare_mel
from mma_trainer.training.precision import has_bf16
from mma_trainer.weights.checkpoint import Checkpoint, check_fit
from mma_trainer.weights.encoders import EncoderWeights

BLOCKS_SHARE = 0.3
"""Of the training steps in which an encoder with an early head computes its blocks, too. Its stem needs many steps,
and the others cost less; the blocks, which are taught what the stem knows, need fewer."""


class EncoderClassifier(nn.Module):
    """One encoder without prompts and a linear head on its [CLS].

    Args:
        patch_dropout: share of the patches left out of each training batch (Liu et al. 2022): less to
            compute and less to memorise.
        extra_classes: classes that occur in training only, numbered after the config's.
        early_head: what a stem and transformer blocks need to learn from random weights with few clips.
            A head, on the mean and the maximum over the patches, is trained on the same labels (deep
            supervision, Lee et al. 2015), and it alone trains the stem: the blocks, which know where a patch lies,
            would make the stem learn by heart how each corpus was recorded. In most steps of the training only it and
            the stem are computed, see BLOCKS_SHARE. The patch embedding starts with zero
            mean and unit variance on the first batch (Mishkin and Matas 2016), and the positions with half of that
            deviation, because the frequency of a sound matters.
    """

    def __init__(
        self,
        config: MMADFERConfig,
        modality: str,
        patch_dropout: float = 0.0,
        extra_classes: int = 0,
        early_head: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(config, modality)
        self.num_classes, self.patch_dropout = config.num_classes, patch_dropout
        classes = config.num_classes + extra_classes
        self.head = nn.Linear(config.width, classes)
        self.early_head = None
        if early_head:
            self.early_head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * config.width, classes))
            self.register_buffer("standardised", torch.tensor(False))
            with torch.no_grad():
                self.encoder.pos_embed.normal_(std=0.5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, C, H, W) -> logits (B, classes); in training with an early head also its logits, or these alone.

        In training H may be shorter than the encoder's: the clip then lies anywhere on its grid.
        """
        if not self.training:
            return self.head(self.encoder.encode(self.encoder.embed(x)))[:, : self.num_classes]
        if self.early_head is not None and not self.standardised:
            self._standardise(x)
        patches = seen = self.encoder.patches(x)  # (B, P, W)
        early = None
        if self.early_head is not None:
            early = self.early_head(torch.cat([seen.mean(dim=1), seen.amax(dim=1)], dim=1))
            if torch.rand(()) >= BLOCKS_SHARE:
                return early
            patches = seen.detach()
        B, P, _ = patches.shape
        rows, columns = self.encoder.grid
        first = columns * int(torch.randint(rows - P // columns + 1, ()))
        kept = torch.randperm(P)[: round(P * (1 - self.patch_dropout))].sort().values
        positions = self.encoder.pos_embed
        tokens = (patches + positions[:, 1 + first : 1 + first + P])[:, kept]
        cls = (self.encoder.cls_token + positions[:, :1]).expand(B, -1, -1)
        logits = self.head(self.encoder.encode(torch.cat([cls, tokens], dim=1)))
        return logits if early is None else (logits, early)

    def start_from(self, weights: EncoderWeights, path: str) -> None:
        """Start from a trained encoder; the heads stay random. See `initialise_encoder`."""
        initialise_encoder(self.encoder, weights, path)
        if self.early_head is not None:
            self.standardised.fill_(True)

    @torch.no_grad()
    def _standardise(self, x: Tensor) -> None:
        proj = self.encoder.patch_embed.proj
        patches = self.encoder.patches(x).flatten(0, 1)
        mean, std = patches.mean(dim=0), patches.std(dim=0) + 1e-6
        proj.weight /= std.view(-1, 1, 1, 1)
        proj.bias.copy_((proj.bias - mean) / std)
        self.standardised.fill_(True)


class Teacher(nn.Module):
    """What pre-trained encoders of one modality say, each with the head that it was trained with: a student's targets.

    They are averaged as logarithms (Hinton et al. 2015): a class that one of them rules out is ruled out.

    Args:
        num_classes: of the heads, those that occur in training only included.

    Raises:
        CheckpointError: weights without a head, or with one of fewer classes.
    """

    share = 0.7  # of a student's targets

    def __init__(
        self, config: MMADFERConfig, modality: str, weights: Sequence[EncoderWeights], num_classes: int
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(Encoder(config, modality) for _ in weights)
        self.heads = nn.ModuleList(nn.Linear(config.width, num_classes) for _ in weights)
        for encoder, head, read in zip(self.encoders, self.heads, weights, strict=True):
            initialise_encoder(encoder, read, f"the {modality} encoder's file")
            state = {key: tensor[:num_classes] for key, tensor in read.head.items()}
            check_fit(state, head.state_dict(), f"the head in the {modality} encoder's file")
            head.load_state_dict(state)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> log-probabilities (B, classes)."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=has_bf16(x.device)):
            said = [head(net.encode(net.embed(x))) for net, head in zip(self.encoders, self.heads, strict=True)]
        return torch.stack(said).float().log_softmax(dim=2).mean(dim=0).log_softmax(dim=1)


class PairTeachers(nn.Module):
    """What a teacher of faces and one of voices say of a clip; fusion learns from it.

    Their probabilities are multiplied, as those of two witnesses who know nothing of each other. A modality that is
    absent (a black face, silence as zeros) says nothing.

    Args:
        color: of the image encoder's faces, as in the config.
        face_shift: float (C,), added to the log-probabilities of a face: how much more often a class is among these
            clips than among the faces that its teacher was trained on, as a logarithm (Saerens et al. 2002).
        voice_shift: float (C,), the same for a voice: a class that few corpora have is rarer among all voices than its
            teacher, which compared it in these corpora alone, thinks.
    """

    FRAME_STEP = 4  # every n-th frame is looked at
    share = Teacher.share

    def __init__(self, image: Teacher, audio: Teacher, color: str, face_shift: Tensor, voice_shift: Tensor) -> None:
        super().__init__()
        self.image, self.audio, self.color = image, audio, color
        self.face_shift, self.voice_shift = face_shift, voice_shift

    @torch.no_grad()
    def forward(self, frames: Tensor, mel: Tensor) -> Tensor:
        """frames uint8 (B, 16, S, S, 3), mel (B, 512, 128) -> log-probabilities (B, C)."""
        seen, heard = (there.unsqueeze(1) for there in _present(frames, mel))
        frames = prepare_frames(frames[:, self.FRAME_STEP // 2 :: self.FRAME_STEP], self.color)
        of_frames = self.image(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # (B, F, C)
        of_face = (of_frames.logsumexp(dim=1) + self.face_shift).log_softmax(dim=1)  # the frames' mean probabilities
        of_voice = (self.audio(prepare_mel(mel)) + self.voice_shift).log_softmax(dim=1)
        return (seen * of_face + heard * of_voice).log_softmax(dim=1)


class OwnTeacher(nn.Module):
    """What a model says of the face alone and of the voice alone, joined anew: from it the model learns whom to trust.

    Pseudo pairs teach it to trust faces too much: their photographs are posed, and a face that speaks looks neutral to
    it most of the time. Here both answers count as much as they were worth with strangers: each is cooled by the
    temperature fitted there, and the face's has the exponent FACE_TRUST besides. A clip with one modality keeps the
    model's answer, so nothing else is to change.

    Args:
        temperatures: of `bundle.manifest.MODALITIES`; that of both keeps the joint answers as sharp as they were.
    """

    FACE_TRUST = 0.5
    """Chosen on real clips of six people, where 0.5 to 0.75 of the cooled answers were right most often; 0.5 since the
    voice's encoder knows more."""
    share = 0.9  # the labels are what made it trust faces too much

    def __init__(self, model: MMADFER, temperatures: Mapping[str, float]) -> None:
        super().__init__()
        self.model, self.temperatures = ContractModel(model), dict(temperatures)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, frames: Tensor, mel: Tensor) -> Tensor:
        """frames uint8 (B, 16, S, S, 3), mel (B, 512, 128) -> log-probabilities (B, C)."""
        seen, heard = _present(frames, mel)
        said = {}
        for name, rows, inputs in (
            ("video", seen, (frames, torch.zeros_like(mel))),
            ("audio", heard, (torch.zeros_like(frames), mel)),
        ):
            said[name] = torch.zeros(len(rows), self.model.model.config.num_classes, device=mel.device)
            if rows.any():
                said[name][rows] = self.model(*(x[rows] for x in inputs)).float().log_softmax(dim=1)
        cooled = {name: answers / self.temperatures[name] for name, answers in said.items()}
        joint = self.temperatures["both"] * (self.FACE_TRUST * cooled["video"] + cooled["audio"])
        both = (seen & heard).unsqueeze(1)
        return torch.where(both, joint, said["video"] + said["audio"]).log_softmax(dim=1)


def _present(frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
    """Which clips of a batch have a face and which a voice: bool (B,) each. Absent ones are zeros."""
    return tuple((x != 0).flatten(1).any(dim=1) for x in (frames, mel))


def initialise_encoder(encoder: Encoder, weights: EncoderWeights, path: str) -> None:
    """Put pre-trained weights into an encoder with prompts.

    Patch position embeddings are resized bicubically to the new grid (align_corners=False); the
    prompts' positions keep their N(0, 1) initialisation.

    Raises:
        CheckpointError: `weights` are not exactly those of the encoder (what is missing or misshapen).
    """
    wanted, found = encoder.state_dict(), dict(weights.state)
    if "pos_embed" in found:
        positions = wanted["pos_embed"].clone()
        resized = resize_positions(found["pos_embed"], weights.grid, encoder.grid)
        if resized.shape[1] <= positions.shape[1] and resized.shape[2] == positions.shape[2]:
            positions[:, : resized.shape[1]] = resized
            found["pos_embed"] = positions
    check_fit(found, wanted, path)
    encoder.load_state_dict(found)


def resize_positions(positions: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, 1 + old patches, W), [CLS] first -> (1, 1 + new patches, W)."""
    if old_grid == new_grid:
        return positions
    patches = positions[:, 1:].reshape(1, *old_grid, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, new_grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


def model_from_encoders(config: MMADFERConfig, image: EncoderWeights | None, audio: EncoderWeights | None) -> MMADFER:
    """MMA-DFER around pre-trained encoders, which may be of other image sizes and sound lengths.

    A modality that the config does not use may be None.
    """
    model = MMADFER(config)
    for name, weights, encoder in (("image", image, model.image_encoder), ("audio", audio, model.audio_encoder)):
        if encoder is not None:
            initialise_encoder(encoder, weights, f"the {name} encoder's file")
    return model


def at_image_size(checkpoint: Checkpoint, image_size: int) -> Checkpoint:
    """A whole model for another face size: the image positions are resized, those of the prompts kept."""
    old, new = checkpoint.config, checkpoint.config.replace(image_size=image_size)
    key = next((key for key in checkpoint.state_dict if key.endswith("image_encoder.pos_embed")), "")
    if old.image_grid == new.image_grid or not key:
        return dataclasses.replace(checkpoint, config=new)
    positions = checkpoint.state_dict[key]
    patches = 1 + old.image_grid[0] * old.image_grid[1]
    resized = resize_positions(positions[:, :patches], old.image_grid, new.image_grid)
    state = {**checkpoint.state_dict, key: torch.cat([resized, positions[:, patches:]], dim=1)}
    return dataclasses.replace(checkpoint, config=new, state_dict=state)
