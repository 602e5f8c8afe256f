"""Approximate unlearning: methods that change a tuned prompt and head instead of tuning them again. None is exact.

One short function each, of an `UnlearningTask` and a `strength`: 1 is the published default. Every published rate
stands here as a share of the rate that the model was tuned with; those were made for whole networks. They act on
an unpartitioned model (one prompt and one head, or the head alone) over the frozen backbone.
"""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import softmax

from lmeraser_kit import checks
from lmeraser_kit.baselines.methods import check_methods
from lmeraser_kit.baselines.unlearning_task import Parameters, Part, UnlearningTask
from lmeraser_kit.ground.determinism import exact_arithmetic
from lmeraser_kit.ground.hashing import keyed_uniform


def fine_tune(task: UnlearningTask, strength: float = 1.0, epochs: int = 10) -> Parameters:
    """Go on with the retain set (published: 10 epochs at a tenth of the training rate)."""
    _check(task, strength, epochs)
    parameters = task.copy()
    optimiser = task.optimiser(parameters, 0.1 * strength)
    for epoch in range(epochs):
        for inputs, labels in task.retain.batches(task.seed, epoch):
            _step(optimiser, F.cross_entropy(task.logits(parameters, inputs), labels))
    return parameters


def gradient_ascent(task: UnlearningTask, strength: float = 1.0, epochs: int = 5) -> Parameters:
    """Climb the loss of the forget set (in Unlearn-Saliency's code at 5e-4, for a training rate of 0.1)."""
    _check(task, strength, epochs)
    parameters = task.copy()
    optimiser = task.optimiser(parameters, 0.005 * strength)
    for epoch in range(epochs):
        for inputs, labels in task.forget.batches(task.seed, epoch):
            _step(optimiser, -F.cross_entropy(task.logits(parameters, inputs), labels))
    return parameters


def neg_grad_plus(task: UnlearningTask, strength: float = 1.0, epochs: int = 10, alpha: float = 0.95) -> Parameters:
    """NegGrad+ (Kurmanji et al. 2023): `alpha CE(retain) - (1 - alpha) CE(forget)`."""
    _check(task, strength, epochs)
    checks.number("alpha", alpha, 0, 1)
    parameters = task.copy()
    optimiser = task.optimiser(parameters, 0.1 * strength)
    for epoch in range(epochs):
        leaving = itertools.cycle(task.forget.batches(task.seed, epoch))
        for inputs, labels in task.retain.batches(task.seed, epoch):
            kept = F.cross_entropy(task.logits(parameters, inputs), labels)
            inputs, labels = next(leaving)
            lost = F.cross_entropy(task.logits(parameters, inputs), labels)
            _step(optimiser, alpha * kept - (1 - alpha) * lost)
    return parameters


def random_label(task: UnlearningTask, strength=1.0, epochs: int = 10, only: Parameters | None = None) -> Parameters:
    """The forget set with random other labels, then the retain set, in every epoch (Golatkar et al. 2020; rate 0.013).

    `only` may restrict the change to some entries of the parameters: 1 for those that change, 0 for the others.
    """
    _check(task, strength, epochs)
    _check_entries("only", {} if only is None else only, task)
    if task.n_classes < 2:
        raise ValueError("there is one class only, expected two at least: a random label has to be another one")
    parameters = task.copy()
    optimiser = task.optimiser(parameters, 0.13 * strength)
    for epoch in range(epochs):
        draws = keyed_uniform("random label", task.seed, task.forget.keys, epoch)[:, 0]
        shift = torch.from_numpy(1 + (draws * (task.n_classes - 1)).astype(np.int64)).to(task.forget.labels)
        wrong = Part(task.forget.inputs, (task.forget.labels + shift) % task.n_classes, task.forget.keys)
        for part in (wrong, task.retain):
            for inputs, labels in part.batches(task.seed, epoch):
                _step(optimiser, F.cross_entropy(task.logits(parameters, inputs), labels))
                for name, where in (only or {}).items():
                    parameters[name].data.copy_(torch.where(where > 0, parameters[name], task.start[name]))
    return parameters


def salun(task: UnlearningTask, strength: float = 1.0, epochs: int = 10, share: float = 0.5) -> Parameters:
    """SalUn (Fan et al. 2024): random label, on the entries whose forget-gradient is in the top half."""
    _check(task, strength, epochs)
    checks.number("share", share, 0, 1, beyond=True)
    parameters = task.copy()
    loss = F.cross_entropy(task.logits(parameters, task.forget.inputs), task.forget.labels)
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    sizes = torch.cat([g.abs().flatten() for g in gradients.values()])
    least = sizes.sort(descending=True).values[max(int(share * len(sizes)), 1) - 1]
    return random_label(task, strength, epochs, {n: (g.abs() >= least).float() for n, g in gradients.items()})


def scrub(task: UnlearningTask, strength: float = 1.0, epochs: int = 10, ascents: int = 3) -> Parameters:
    """SCRUB (Kurmanji et al. 2023): away from the old model on the forget set, towards it on the retain set.

    Adam at 5e-4, temperature 2, `CE + 0.5 KL` on the retain set, the ascent in the first 3 epochs.
    """
    _check(task, strength, epochs)
    checks.whole("ascents", ascents, 0)
    parameters = task.copy()
    optimiser = torch.optim.Adam(parameters.values(), lr=5e-4 * strength)

    def from_teacher(inputs: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            teacher = task.logits(task.start, inputs)
        return F.kl_div(F.log_softmax(student / 2, 1), F.softmax(teacher / 2, 1), reduction="batchmean") * 4

    for epoch in range(epochs):
        for inputs, _ in task.forget.batches(task.seed, epoch) if epoch < ascents else ():
            _step(optimiser, -from_teacher(inputs, task.logits(parameters, inputs)))
        for inputs, labels in task.retain.batches(task.seed, epoch):
            student = task.logits(parameters, inputs)
            _step(optimiser, F.cross_entropy(student, labels) + 0.5 * from_teacher(inputs, student))
    return parameters


def ssd(task: UnlearningTask, strength: float = 1.0, alpha: float = 10.0, lam: float = 1.0) -> Parameters:
    """Selective synaptic dampening (Foster et al. 2024): shrink entries that matter more to the forget set.

    Where `Fisher_forget > alpha / strength * Fisher_all`, an entry is multiplied by
    `min(lam Fisher_all / Fisher_forget, 1)`. The Fisher information is the mean squared gradient of batches, as in its
    code.
    """
    _check(task, strength)
    checks.number("alpha", alpha), checks.number("lam", lam)
    parameters = task.copy()

    def fisher(*parts: Part) -> list[torch.Tensor]:
        squares, n = [torch.zeros_like(p) for p in parameters.values()], 0
        for inputs, labels in itertools.chain.from_iterable(part.batches(task.seed, 0) for part in parts):
            loss = F.cross_entropy(task.logits(parameters, inputs), labels)
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            squares, n = [s + g**2 for s, g in zip(squares, gradients, strict=True)], n + 1
        return [s / n for s in squares]

    leaving, everybody = fisher(task.forget), fisher(task.forget, task.retain)
    for parameter, f, a in zip(parameters.values(), leaving, everybody, strict=True):
        damped = (lam * a / f.clamp(min=1e-30)).clamp(max=1.0)
        parameter.data *= torch.where(f > alpha / strength * a, damped, torch.ones_like(damped))
    return parameters


def newton_removal(task: UnlearningTask, strength: float = 1.0, l2: float = 1e-3) -> Parameters:
    """One Newton step on the head (Guo et al. 2020): `w + H^-1 (lambda w + gradient of the forget set)`.

    H is the Hessian of the loss of the retain set, with `l2` per sample; the prompt stays as it is. The system is
    solved by conjugate gradients.
    """
    _check(task, strength)
    checks.number("l2", l2, beyond=True)
    parameters = {name: tensor.clone() for name, tensor in task.start.items()}
    with torch.no_grad():
        parts = (task.retain, task.forget)
        features = [task.embed(parameters, part.inputs).double().cpu().numpy() for part in parts]
    task.passed += len(features[0]) + len(features[1])
    stay, leave = (np.c_[x, np.ones(len(x))] for x in features)
    w = np.c_[parameters["weight"].cpu().double().numpy(), parameters["bias"].cpu().double().numpy()]
    p_stay, p_leave = softmax(stay @ w.T, axis=1), softmax(leave @ w.T, axis=1)
    labels = np.eye(task.n_classes)[task.forget.labels.cpu().numpy()]
    removed = (p_leave - labels).T @ leave + l2 * len(leave) * w

    def hessian(v: np.ndarray) -> np.ndarray:
        u = stay @ v.reshape(w.shape).T
        u = p_stay * (u - (p_stay * u).sum(axis=1, keepdims=True))
        return (u.T @ stay).ravel() + l2 * len(stay) * v

    operator = LinearOperator((w.size, w.size), matvec=hessian, dtype=float)
    step, _ = cg(operator, removed.ravel(), rtol=1e-8, maxiter=2000)
    w = w + strength * step.reshape(w.shape)
    new = {"weight": torch.from_numpy(w[:, :-1]), "bias": torch.from_numpy(w[:, -1])}
    return parameters | {name: tensor.to(task.start[name]) for name, tensor in new.items()}


APPROXIMATE: dict[str, Callable[..., Parameters]] = {
    "fine-tune": fine_tune,
    "gradient ascent": gradient_ascent,
    "neggrad+": neg_grad_plus,
    "random label": random_label,
    "salun": salun,
    "scrub": scrub,
    "ssd": ssd,
    "newton": newton_removal,
}


def unlearn(name: str, task: UnlearningTask, strength: float = 1.0, **options) -> tuple[Parameters, dict[str, float]]:
    """Apply an approximate method by name.

    Returns:
        The parameters after, and what it has cost: `sample_gradients` and `seconds`.

    Raises:
        ValueError: If the name is unknown, or an argument makes no sense for the method.
    """
    check_methods([name], APPROXIMATE)
    _check(task, strength)
    for option in options:
        checks.choice(f"an option of {name}", option, [*inspect.signature(APPROXIMATE[name]).parameters][2:])
    before, started = task.passed, time.perf_counter()
    with exact_arithmetic(task.eraser.threads):
        parameters = APPROXIMATE[name](task, strength, **options)
    cost = {"sample_gradients": task.passed - before, "seconds": time.perf_counter() - started}
    return {key: tensor.detach() for key, tensor in parameters.items()}, cost


def relearn_steps(task: UnlearningTask, parameters: Parameters, accuracy: float, most: int = 100) -> int:
    """Relearn time: steps on those who have left until their accuracy is back where it was.

    Args:
        task: The task.
        parameters: An unlearned (or retrained) model.
        accuracy: The accuracy on the forget set to be reached, a share.
        most: Give up after so many steps.

    Raises:
        ValueError: If an argument is none of these.
    """
    _check(task)
    _check_entries("parameters", parameters, task, all_of_them=True)
    accuracy, most = checks.number("accuracy", accuracy), checks.whole("most", most)
    parameters = {name: tensor.clone().requires_grad_(True) for name, tensor in parameters.items()}
    optimiser, steps = task.optimiser(parameters, 1.0), 0
    labels = task.forget.labels.cpu().numpy()
    with exact_arithmetic(task.eraser.threads):
        batches = (batch for epoch in itertools.count() for batch in task.forget.batches(task.seed, epoch))
        for inputs, targets in batches:
            predicted = task.predict(parameters, task.forget).argmax(axis=1)
            if steps >= most or (predicted == labels).mean() >= accuracy:
                break
            _step(optimiser, F.cross_entropy(task.logits(parameters, inputs), targets))
            steps += 1
    return steps


def _step(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _check(task: UnlearningTask, strength: float = 1.0, epochs: int = 1) -> None:
    """Refuse what no method can do anything with. Raises ValueError."""
    checks.instance("task", task, UnlearningTask, "(eraser, uids)")
    checks.number("strength", strength, beyond=True)
    checks.whole("epochs", epochs)
    for name, part in (("forget", task.forget), ("retain", task.retain)):
        if not len(part.keys):
            raise ValueError(f"the task's {name} set is empty, expected somebody to leave and somebody to stay")


def _check_entries(name: str, entries: Parameters, task: UnlearningTask, all_of_them: bool = False) -> None:
    """Refuse tensors that are none of the model's. Raises ValueError."""
    shapes = {key: tuple(tensor.shape) for key, tensor in task.start.items()}
    given = {key: tuple(getattr(tensor, "shape", ())) for key, tensor in checks.instance(name, entries, dict).items()}
    if not given.items() <= shapes.items() or (all_of_them and given != shapes):
        raise ValueError(f"{name} has {given}, expected tensors as in task.start: {shapes}")
