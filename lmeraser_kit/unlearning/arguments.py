"""What is checked before anything is computed: arguments, samples that join, samples that are asked about."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.data.copies import public_twins
from lmeraser_kit.ground.hashing import described
from lmeraser_kit.ground.names import named
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.protocol import Learner
from lmeraser_kit.partitions.protocol import Partition
from lmeraser_kit.unlearning.votes import Choices, Vote

NEVER_FORGOTTEN = "what is public cannot be forgotten, and neither could its owner be"
NOT_DESCRIBED = ("backbone", "n_jobs", "verbose")  # no bit of a state depends on the last two


def check_arguments(arguments: Mapping[str, Any], choices: Choices) -> None:
    """Refuse arguments of an eraser that make no sense, or do not go with each other. Raises ValueError."""
    checks.instance("backbone", arguments["backbone"], Backbone, ", such as Backbone.train(public)")
    checks.seed(arguments["seed"])
    checks.whole("threads", arguments["threads"])
    checks.flag("verbose", arguments["verbose"])
    if arguments["n_classes"] is not None:
        checks.whole("n_classes", arguments["n_classes"])
    n_jobs = arguments["n_jobs"]
    if n_jobs is not None and checks.whole("n_jobs", n_jobs, least=-4096) == 0:
        raise ValueError("n_jobs is 0, expected how many clusters are learnt at a time, -1 for one a core, or None")

    expected = (
        ("clusters (the partition)", choices.partition, Partition, "HierarchicalClusters(8)"),
        ("learner", choices.learner, Learner, "PromptTuning()"),
        ("vote", choices.vote, Vote, "ClusterVote()"),
    )
    for name, part, protocol, example in expected:
        if isinstance(part, type) or not isinstance(part, protocol):
            lacking = sorted(name for name in dir(protocol) if not name.startswith("_") and not hasattr(part, name))
            lacks = f" (it lacks {', '.join(lacking)})" if lacking and not isinstance(part, type) else ""
            raise ValueError(f"{name} is {part!r:.80}{lacks}, expected a {protocol.__name__.lower()} such as {example}")
    if hasattr(choices.learner, "check"):
        choices.learner.check()
    if hasattr(choices.learner, "check_backbone"):
        choices.learner.check_backbone(arguments["backbone"])
    if hasattr(choices.vote, "check"):
        choices.vote.check(choices.learner)


def check_fit(arguments: Mapping[str, Any], choices: Choices, private: Samples, public: Samples | None) -> Samples:
    """Check what a fit is made with, and warn of private images that are also public.

    Args:
        arguments: An eraser's.
        choices: Its partition, learner and vote.
        private: Samples that may later be forgotten.
        public: Samples that are never forgotten, or None.

    Returns:
        The private samples, with the task's number of classes.

    Raises:
        ValueError: If arguments contradict each other or the samples.
        TypeError: If samples are something else.
    """
    check_arguments(arguments, choices)
    partition = choices.partition
    if not isinstance(private, Samples):
        raise TypeError(f"private is {type(private).__name__}, expected Samples(images, labels, uids)")
    if not isinstance(public, (Samples, type(None))):
        raise TypeError(f"public is {type(public).__name__}, expected Samples(images, labels, uids), or None")
    if partition.learns_from == "public" and public is None:
        raise ValueError("the partition is fitted on public features: give fit(private, public=...)")
    source = private if public is None or partition.learns_from != "public" else public
    if len(source) or source is public:
        partition.check(len(source))
    if public is not None and len(shared := np.intersect1d(private.uids, public.uids)):
        raise ValueError(f"uid {str(shared[0])!r} is both public and private: what is public cannot be forgotten")
    if public is not None and len(shared := np.intersect1d(private.owners, public.owners)):
        raise ValueError(f"owner {str(shared[0])!r} has public samples, too: {NEVER_FORGOTTEN}")
    n_classes = arguments["n_classes"] or (private if public is None else public).n_classes
    private = replace(private, n_classes=n_classes)  # checks the labels before anything costs time
    if public is not None and (twins := public_twins(private, public)):
        few = ", ".join(twins[:3]) + ", ..." * (len(twins) > 3)
        warnings.warn(
            f"{len(twins)} of {len(private)} private images are also public, pixel for pixel ({few}): forgetting one "
            "leaves the public copy, which cannot be forgotten (near copies were not looked for)",
            stacklevel=4,
        )
    return private


def fit_arguments(arguments: Mapping[str, Any]) -> dict[str, str]:
    """What a state depends on besides the samples, as text by argument. Raises ValueError for what has no text."""
    parts = {name: described(value) for name, value in arguments.items() if name not in NOT_DESCRIBED}
    return {"backbone": arguments["backbone"].fingerprint} | parts


def check_same(then: Mapping[str, str], arguments: Mapping[str, Any], choices: Choices, n_classes: int) -> None:
    """Refuse arguments that make no sense, or are not those of the fit, which found `n_classes`. Raises ValueError."""
    check_arguments(arguments, choices)
    check_unchanged(then, fit_arguments({**arguments, "n_classes": arguments["n_classes"] or n_classes}))


def check_unchanged(then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to answer for a model that other arguments would have made. Raises ValueError, naming them."""
    changed = [f"{name} from {then[name]:.200} to {now[name]:.200}" for name in now if then[name] != now[name]]
    if changed:
        raise ValueError(
            f"arguments were changed since the fit ({'; '.join(changed)}), and the model is that of the old ones: "
            "set them back, or fit again"
        )


def only_holding(given: Any, eraser: Any) -> Any:
    """The eraser; but if it is fitted, it must hold these samples and no others: who has left would come back unsaid.

    Raises:
        ValueError: If the eraser is fitted, and holds somebody else; it names one.
    """
    if not hasattr(eraser, "state_") or not isinstance(given, Samples):
        return eraser
    held, new = set(eraser.state_.samples.uids.tolist()), set(given.uids.tolist())
    if held != new:
        who = (
            f"{min(new - held)!r} is given and not held" if new - held else f"{min(held - new)!r} is held and not given"
        )
        raise ValueError(
            f"the eraser is fitted on {len(held)} samples, and {len(new)} are given: {who} (forgotten, or never "
            "added). Give the samples that it holds, eraser.state_.samples, or an eraser that is not fitted"
        )
    return eraser


def rectified(samples: Samples, held: Mapping[str, str]) -> Samples:
    """Samples that replace those held of the same uids; who states no owner keeps the one that it has.

    Args:
        samples: The right images, labels and owners.
        held: The owners of the samples held, by uid.

    Raises:
        ValueError: If a uid is not held.
    """
    named(checks.instance("samples", samples, Samples, "(images, labels, uids)"), held)
    pairs = zip(samples.uids.tolist(), samples.owners.tolist(), strict=True)
    return samples.with_owners([held[uid] if owner == uid else owner for uid, owner in pairs])


def check_joining(
    joining: Samples, held: Mapping[str, str], like: Samples, n_classes: int, public: Samples | None
) -> Samples:
    """Check samples that are to be added.

    Args:
        joining: The samples.
        held: The owners of those that are there, by uid.
        like: Samples of the right shape.
        n_classes: The task's number of classes.
        public: The public samples.

    Returns:
        The samples, with the task's number of classes.

    Raises:
        ValueError: If a uid is held already or public, an owner has public samples, or a shape or a label does not fit.
    """
    joining, shape = replace(checks.instance("samples", joining, Samples), n_classes=n_classes), like.images.shape[1:]
    if joining.images.shape[1:] != shape:
        raise ValueError(f"images of shape {joining.images.shape[1:]} cannot join images of {shape}")
    never, public_owners = (
        (set(), set()) if public is None else (set(public.uids.tolist()), set(public.owners.tolist()))
    )
    for uid, owner in zip(joining.uids.tolist(), joining.owners.tolist(), strict=True):
        if uid in held or uid in never:
            why = "there already" if uid in held else "public, and what is public cannot be forgotten"
            if held.get(uid, owner) != owner:
                why = f"there already, and its owner is {held[uid]!r}: an image has one, which rectify changes"
            raise ValueError(f"uid {uid!r} is {why}; a uid names one sample for life")
        if owner in public_owners:
            raise ValueError(f"owner {owner!r} has public samples: {NEVER_FORGOTTEN}")
    return joining


def as_queries(samples: Samples | np.ndarray, like: Samples, n_classes: int) -> Samples:
    """Samples, or images, uint8 (N, C, H, W), as samples without labels.

    Raises:
        ValueError: If their shape is not that of the samples that they should be like.
    """
    if not isinstance(samples, Samples):
        images = checks.as_array("images", samples)
        n = len(images) if images.ndim else 0
        samples = Samples(images, np.zeros(n), np.arange(n))  # checks the images
    given, held = samples.images.shape[1:], like.images.shape[1:]
    if given != held:
        raise ValueError(f"images are {given} (channels, height, width), those that were fitted are {held}")
    return Samples(samples.images, np.zeros(len(samples)), samples.uids, n_classes)
