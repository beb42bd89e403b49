"""The statistics as research scripts write them: image by image, nothing shared, nothing batched but what must be.

Each function measures ``num`` samples of a context and gives a number that the project's statistic gives too, so that the two
sides are known to compute the same. hessian-eigenthings stands in for a script of Hessian products.
"""

import hessian_eigenthings
import numpy as np
import torch
from scipy.fft import dst
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional

from study.smoothness import MeasureContext, probabilities, unit_logits
from study.smoothness.pairs import draw_pairs


def input_jacobian(context: MeasureContext, num: int) -> float:
    """Mean log norm of the unit logits' Jacobian: a Jacobian an image, for each of three scales."""
    x, _ = context.sample("test", num, "input_jacobian/test")
    logs = []
    for image in x:
        for scale in (probabilities, lambda z: z.double(), unit_logits):
            found = torch.autograd.functional.jacobian(lambda pixels, s=scale: s(context.model(pixels))[0], image[None])
            norm = found.flatten().double().norm().log()
        logs.append(norm)
    return float(torch.stack(logs).mean())


def noise_stability(context: MeasureContext, num: int) -> float:
    """Mean L1 distance at sigma 64: an image, a draw and a sigma at a time."""
    x, _ = context.sample("test", num, "noise_stability/test")
    noise = torch.randn(x.shape, generator=context.generator("noise_stability/draw/0"))
    moved = []
    for image, drawn in zip(x, noise.to(x), strict=True):
        for sigma in (1.0, 4.0, 16.0, 64.0):
            with torch.no_grad():
                clean, noisy = context.model(image[None]), context.model((image + sigma / 255 * drawn)[None])
            distance = (probabilities(noisy) - probabilities(clean)).abs().sum()
        moved.append(distance)
    return float(torch.stack(moved).mean())


def noise_accuracy(context: MeasureContext, num: int) -> float:
    """Accuracy at sigma 64: an image and a sigma at a time."""
    x, y = context.sample("test", num, "noise_stability/test")
    noise = torch.randn(x.shape, generator=context.generator("noise_stability/draw/0"))
    hits = 0
    for image, drawn, label in zip(x, noise.to(x), y.tolist(), strict=True):
        for sigma in (0.0, 8.0, 16.0, 32.0, 64.0):
            with torch.no_grad():
                hit = int(context.model((image + sigma / 255 * drawn)[None]).argmax()) == label
        hits += hit
    return hits / len(x)


def path(context: MeasureContext, num: int, num_steps: int = 32) -> float:
    """Mean number of label flips between same-class images: a pair at a time, a point at a time."""
    images, labels = context.split("test")
    flips = []
    for same in (False, True):
        kind = "same" if same else "different"
        for pair in draw_pairs(labels, num, same, context.generator(f"path/{kind}/test")).tolist():
            start, end = images[pair[0]], images[pair[1]]
            points = [torch.lerp(start, end, step / num_steps)[None] for step in range(num_steps + 1)]
            with torch.no_grad():
                named = torch.cat([context.model(point) for point in points]).argmax(1)
            if same:
                flips.append((named.diff() != 0).sum().double())
    return float(torch.stack(flips).mean())


def frequency(context: MeasureContext, num: int, num_steps: int = 32) -> float:
    """Mean log frequency of logits between same-class images: a pair at a time, a point at a time, scipy's transform."""
    images, labels = context.split("test")
    logs = []
    for same in (False, True):
        kind = "same" if same else "different"
        for pair in draw_pairs(labels, num, same, context.generator(f"path/{kind}/test")).tolist():
            points = [torch.lerp(*images[pair], step / num_steps)[None] for step in range(num_steps + 1)]
            with torch.no_grad():
                z = np.stack([context.model(point)[0].double().cpu().numpy() for point in points])
            t = np.linspace(0, 1, num_steps + 1)[:, None]
            for curve in (softmax(z, axis=1), unit_logits(torch.tensor(z)).numpy(), z - z.mean(1, keepdims=True)):
                power = (dst((curve - (1 - t) * curve[0] - t * curve[-1])[1:-1], type=1, axis=0) ** 2).sum(1)
            if same:
                logs.append(np.log(power @ np.arange(1, num_steps) / power.sum()))
    return float(np.mean(logs))


def input_curvature(context: MeasureContext, num: int) -> float:
    """Mean curvature at h = 1: an image and a step at a time, on two scales."""
    x, y = context.sample("test", num, "input_curvature/test")

    def gradient(image: Tensor, label: Tensor, temperature: float) -> Tensor:
        image = image.detach()[None].requires_grad_()
        loss = functional.cross_entropy(context.model(image).double() / temperature, label[None])
        return torch.autograd.grad(loss, image)[0][0]

    found = []
    for image, label in zip(x, y, strict=True):
        for temperature in (context.temperature, 1.0):
            at = gradient(image, label, temperature)
            direction = at.sign() / at.sign().norm().clamp_min(1.0)
            for step in (0.1, 0.5, 1.0):
                moved = (gradient(image + step * direction, label, temperature) - at).double().norm() / step
        found.append(moved)
    return float(torch.stack(found).mean())


def local_lipschitz(context: MeasureContext, num: int) -> float:
    """Mean spectral norm of the logits' Jacobian: whole Jacobians and their singular values, an image at a time."""
    x, _ = context.sample("test", num, "input_jacobian/test")
    norms = []
    for image in x:
        for scale in (probabilities, unit_logits, lambda z: z.double()):
            found = torch.autograd.functional.jacobian(lambda pixels, s=scale: s(context.model(pixels))[0], image[None])
            norm = torch.linalg.svdvals(found.flatten(1).double())[0]
        norms.append(norm)
    return float(torch.stack(norms).mean())


def attention_importance(context: MeasureContext, num: int) -> float:
    """Losses with a channel of an attention layer's map at zero: a unit and an image at a time; gates free, for simplicity."""
    from study.smoothness.clamped import gated_modules

    x, y = context.sample("test", num, "attention_importance/test")
    total = 0.0
    for module, _ in gated_modules(context.model).values():
        held: list[int] = []
        probe = module.register_forward_pre_hook(lambda module, given, into=held: into.append(given[0].shape[1]))
        with torch.no_grad():
            context.model(x[:1])
        probe.remove()
        for unit in range(held[0]):

            def without(module: torch.nn.Module, given: tuple[Tensor], unit: int = unit) -> tuple[Tensor]:
                seen = given[0].clone()
                seen[:, unit] = 0
                return (seen,)

            for kind in range(2):  # to zero, to the mean: two passes
                handle = module.register_forward_pre_hook(without)
                for image, label in zip(x, y, strict=True):
                    with torch.no_grad():
                        total += kind * float(functional.cross_entropy(context.model(image[None]), label[None]))
                handle.remove()
    return total


def hessian(context: MeasureContext, num: int) -> float:
    """The top eigenvalue, the trace and the density, each by the public tool, to what the project's settings ask for."""
    x, y = context.sample("train", num, "hessian/train")
    operator = hessian_eigenthings.HessianOperator(
        context.model, [(x, y)], hessian_eigenthings.supervised_loss(functional.cross_entropy)
    )
    top = hessian_eigenthings.lanczos(operator, k=1, max_iter=100, which="LA", reorthogonalize=True, seed=2, tol=1e-2)
    hessian_eigenthings.hutchinson(operator, num_samples=5, seed=0)
    hessian_eigenthings.spectral_density(operator, num_runs=5, lanczos_steps=20, seed=7)
    return float(top.eigenvalues[0])
